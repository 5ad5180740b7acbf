"""Write a checkpoint as one ONNX file, prompts and memory bank inside, and check that it gives the same numbers."""

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from apps.export.graph import ScoringGraph, settle, without_fft
from engine.checkpoint import Snapshot, read
from engine.few_shot_run import FewShotRun
from engine.open_checkpoint import open_checkpoint
from engine.recipe import AS_IN_THE_PAPER
from engine.run import Run
from engine.settings import fixed, setting
from engine.spec import METHODS, ScoreSpec, SupportSpec, SystemSpec
from engine.zero_shot import TransferRun
from runtime.bars import Bar
from runtime.errors import InputError
from runtime.flags import path
from runtime.linear import plain
from scoring.maps import Calibration

NEEDED = ("onnx", "onnxscript", "onnxruntime")
STEPS = ("tracing", "writing", "checking")
TOLERANCE = 1e-3  # between PyTorch's maps and scores and the file's
CHECKED = 3  # images that the file is checked on
LARGE = 1.8e9  # bytes of weights and bank from which they get a file of their own: an ONNX file holds less than 2 GiB
SECOND = ".data"  # what that file's name has after the first one's


@dataclass(frozen=True, kw_only=True)
class ExportSpec(ScoreSpec, SupportSpec, SystemSpec):
    """Write a checkpoint as one ONNX file: image in, anomaly map and score out."""

    GROUP: ClassVar = "export"
    ckpt: Path | None = setting(None, "adapter file of train_few.py or train_zero.py", type=path, required=True)
    onnx: Path | None = setting(None, "the file to write", type=path, required=True, metavar="FILE")
    stage: str = setting("last", "best: the epoch chosen on the test set", choices=("last", "best"))
    precision: str = fixed("fp32")
    compile: bool = fixed(False)


def export(asked: Mapping[str, Any]) -> None:
    """Open the checkpoint, trace it, write the file, and check it. asked: settings of `ExportSpec` by name.

    Raises InputError for what is missing or does not fit, and for a file that gives other numbers than PyTorch does.
    """
    spec = ExportSpec.of(asked)
    check_spec(spec)
    if getattr(read(spec.ckpt), spec.stage) is None:
        raise InputError(f"{spec.ckpt} has no best epoch, since it was trained with --eval_every 0; leave --stage out")
    opened = open_checkpoint(spec.ckpt, ExportSpec, asked, purpose="prediction")
    if opened.run.spec.method != METHODS[0]:
        raise InputError(f"{spec.ckpt} holds a baseline (--method {opened.run.spec.method}), which has no ONNX form")
    snapshot, run = opened.load(spec.stage), opened.run
    check_recipe(spec.ckpt, run)
    scorer = scorer_of(run, snapshot.calibration)
    images = test_images(run)
    expected = scorer.reference(images)
    with stages() as done:
        without_fft(run.system.decoder, settle(run.system))
        program = traced(scorer)
        program.model.metadata_props.update(metadata(run, snapshot, scorer, spec.ckpt))
        done()
        with tempfile.TemporaryDirectory(prefix=f".{spec.onnx.stem}-", dir=spec.onnx.parent) as folder:
            draft = Path(folder) / spec.onnx.name
            program.save(draft, external_data=sum(tensor.nbytes for tensor in scorer.state_dict().values()) > LARGE)
            done()
            differences = compare(draft, images, expected)
            second = put(draft, spec.onnx)
    beside = f" and {second.name}, {second.stat().st_size / 1e6:.1f} MB: keep them together" if second else ""
    print(f"{spec.onnx}: {spec.onnx.stat().st_size / 1e6:.1f} MB{beside}")
    print(f"against PyTorch on {CHECKED} images: map {differences[0]:.1e}, score {differences[1]:.1e} apart at most")
    known = [f"{name.replace('_', ' ')} {float(value):.4f}" for name, value in thresholds(scorer).items()]
    print(f"{run.info.name}: {', '.join(known) or 'no threshold is known; values are mean probabilities of abnormal'}")


def check_spec(spec: ExportSpec) -> None:
    """InputError for what would otherwise show only after the work."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"the package {missing[0]} is missing: pip install -r requirements/onnx.txt")
    if spec.onnx.suffix != ".onnx":
        raise InputError(f"--onnx {spec.onnx}: give the file a name that ends in .onnx")
    spec.onnx.parent.mkdir(parents=True, exist_ok=True)
    if spec.onnx.is_dir():
        raise InputError(f"--onnx {spec.onnx} is a folder; give the name of a file")


@contextmanager
def stages() -> Iterator[Callable[[], None]]:
    """A bar over STEPS; what it gives is called after each."""
    with Bar(total=len(STEPS), leave=False, bar_format="{desc}: step {n_fmt} of {total_fmt} [{elapsed}]") as bar:

        def done() -> None:
            bar.update()
            bar.set_description(STEPS[min(bar.n, len(STEPS) - 1)])

        bar.set_description(STEPS[0])
        yield done


def check_recipe(path: Path, run: FewShotRun | TransferRun) -> None:
    """Raise InputError for a part of a recipe that the graph has not, since thresholds would not be of its scores."""
    made = run.recipe if isinstance(run, FewShotRun) else AS_IN_THE_PAPER
    for name in ("image_score", "smooth", "neighbourhood", "bank_taps"):
        value = getattr(made, name)
        if value != getattr(AS_IN_THE_PAPER, name):
            raise InputError(
                f"{path} was trained with --{name} {value}, which has no ONNX form; train with --recipe paper"
            )


def scorer_of(run: FewShotRun | TransferRun, calibration: Calibration | None) -> ScoringGraph:
    """The run's system as a module on the CPU."""
    banks = run.banks(keep=True) if isinstance(run, FewShotRun) else {}
    scorer = ScoringGraph(run.system, run.scored_text(), banks, rule=run.rule, calibration=calibration)
    run.system.device = torch.device("cpu")
    return scorer.to("cpu").eval()


def test_images(run: Run) -> Tensor:
    """Images (CHECKED, 3, S, S) to check the file on: noise, and support images where the run has some."""
    noise = torch.rand(CHECKED, 3, run.system.size, run.system.size, generator=torch.Generator().manual_seed(0))
    support = run.support.images[: CHECKED - 1] if isinstance(run, FewShotRun) else noise[:0]
    return torch.cat([support, noise])[:CHECKED]


def traced(scorer: ScoringGraph) -> torch.onnx.ONNXProgram:
    """The scorer's graph, for any batch size."""
    example = torch.rand(2, 3, scorer.size, scorer.size)
    with quiet(), plain():
        return torch.onnx.export(
            scorer,
            (example,),
            input_names=["images"],
            output_names=["map", "score"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of itself."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def metadata(run: Run, snapshot: Snapshot, scorer: ScoringGraph, path: Path) -> dict[str, str]:
    """What a program that reads the file has to know."""
    found = {
        "object": run.info.name,
        "classname": run.info.classname,
        "input": f"images (B, 3, {scorer.size}, {scorer.size}) float32: RGB in [0, 1], bicubic to {scorer.size} pixels",
        "output": f"map (B, {scorer.size}, {scorer.size}) and score (B,) float32; abnormal: at or above the threshold",
        "branch": scorer.branch,
        "size": str(scorer.size),
        "adapter": run.system.decoder.kind,
        "checkpoint": path.name,
        "epoch": str(snapshot.epoch),
        "weights_sha256": run.system.weights_sha256,
        "prompts_sha256": run.prompts_sha256,
        "demo": str(run.spec.demo).lower(),
    }
    return found | thresholds(scorer)


def thresholds(scorer: ScoringGraph) -> dict[str, str]:
    """Those of the image score and of the map's pixels, as far as they are known."""
    known = {"image_threshold": scorer.calibration.image, "pixel_threshold": scorer.calibration.pixel}
    values = {name: by_branch.get(scorer.branch, math.nan) for name, by_branch in known.items()}
    return {name: repr(value) for name, value in values.items() if math.isfinite(value)}


def compare(file: Path, images: Tensor, expected: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The largest differences of maps and of scores from `expected`, in one batch and one by one.

    Raises InputError when they are above TOLERANCE.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    worst = torch.zeros(2)
    for size in (len(images), 1):
        parts = [session.run(None, {"images": part.numpy()}) for part in images.split(size)]
        for place, found in enumerate(zip(*parts, strict=True)):
            difference = torch.cat([torch.from_numpy(part) for part in found]) - expected[place]
            worst[place] = torch.maximum(worst[place], difference.abs().max())  # nan stays nan
    if not worst.max() <= TOLERANCE:
        versions = ", ".join(f"{module.__name__} {module.__version__}" for module in (torch, onnxruntime))
        raise InputError(f"the file's numbers are {worst.max():.1e} off, so it was not kept: try other than {versions}")
    return tuple(worst.tolist())


def put(draft: Path, target: Path) -> Path | None:
    """Move the file, and a second one if it has it, to where they belong; a file and another's weights never meet.

    Gives the second one.
    """
    second = [path.with_name(path.name + SECOND) for path in (draft, target)]
    if second[0].exists() or second[1].exists():
        target.unlink(missing_ok=True)
        second[1].unlink(missing_ok=True)
    if second[0].exists():
        os.replace(*second)
    os.replace(draft, target)
    return second[1] if second[1].exists() else None

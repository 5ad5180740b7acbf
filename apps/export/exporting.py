"""Write a checkpoint as a file for ONNX Runtime or OpenVINO, prompts and memory bank inside, and check its numbers."""

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from apps.export.formats import ONNX, OPENVINO, Format, convert
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

FORMATS = (ONNX, OPENVINO)
STEPS = ("tracing", "writing", "checking")
TOLERANCE = 1e-3  # between PyTorch's maps and scores and the file's
CHECKED = 3  # images that the file is checked on
LARGE = 1.8e9  # bytes of weights and bank from which they get a file of their own: an ONNX file holds less than 2 GiB


@dataclass(frozen=True, kw_only=True)
class ExportSpec(ScoreSpec, SupportSpec, SystemSpec):
    """Write a checkpoint as a file for ONNX Runtime or OpenVINO: image in, anomaly map and score out."""

    GROUP: ClassVar = "export"
    ckpt: Path | None = setting(None, "adapter file of train_few.py or train_zero.py", type=path, required=True)
    onnx: Path | None = setting(None, "the ONNX file to write", type=path, metavar="FILE.onnx")
    openvino: Path | None = setting(
        None, "the OpenVINO file to write, weights in FILE.bin beside it", type=path, metavar="FILE.xml"
    )
    stage: str = setting("last", "best: the epoch chosen on the test set", choices=("last", "best"))
    precision: str = fixed("fp32")
    compile: bool = fixed(False)


def export(asked: Mapping[str, Any]) -> None:
    """Open the checkpoint, trace it, write the files, and check them. asked: settings of `ExportSpec` by name.

    Raises InputError for what is missing or does not fit, and for a file that gives other numbers than PyTorch does.
    """
    spec = ExportSpec.of(asked)
    targets = targets_of(spec)
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
    with stages() as done, ExitStack() as folders:
        without_fft(run.system.decoder, settle(run.system))
        program = traced(scorer)
        done()
        drafts = {kind: draft_of(target, folders) for kind, target in targets.items()}
        large = sum(tensor.nbytes for tensor in scorer.state_dict().values()) > LARGE
        write(program, metadata(run, snapshot, scorer, spec.ckpt), drafts, large)
        done()
        differences = {kind: compare(kind, draft, images, expected) for kind, draft in drafts.items()}
        for kind, draft in drafts.items():
            put(draft, targets[kind], kind.second)
    for kind, target in targets.items():
        tell(target, kind.second(target), differences[kind])
    known = [f"{name.replace('_', ' ')} {float(value):.4f}" for name, value in thresholds(scorer).items()]
    print(f"{run.info.name}: {', '.join(known) or 'no threshold is known; values are mean probabilities of abnormal'}")


def targets_of(spec: ExportSpec) -> dict[Format, Path]:
    """The files that are asked for; InputError for none, and for what would otherwise show only after the work."""
    asked = {kind: getattr(spec, kind.name) for kind in FORMATS}
    targets = {kind: file for kind, file in asked.items() if file is not None}
    if not targets:
        raise InputError("name the file to write: --onnx FILE.onnx, --openvino FILE.xml, or both")
    for kind, file in targets.items():
        kind.check(file)
    return targets


def draft_of(target: Path, folders: ExitStack) -> Path:
    """The file's name in a temporary folder beside it, which goes with `folders`."""
    folder = tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent)
    return Path(folders.enter_context(folder), target.name)


def write(
    program: torch.onnx.ONNXProgram, facts: Mapping[str, str], drafts: Mapping[Format, Path], large: bool
) -> None:
    """Write the drafts; that of OpenVINO from an ONNX file, which lies beside it if none is asked for.

    large: whether an ONNX file's weights get a file of their own.
    """
    program.model.metadata_props.update(facts)
    onnx = drafts.get(ONNX) or drafts[OPENVINO].with_suffix(ONNX.suffix)
    program.save(onnx, external_data=large)
    if OPENVINO in drafts:
        convert(onnx, drafts[OPENVINO], facts)


def tell(file: Path, second: Path, differences: tuple[float, float]) -> None:
    """Print what was written, and how near it comes to PyTorch."""
    beside = f" and {second.name}, {second.stat().st_size / 1e6:.1f} MB: keep them together" if second.exists() else ""
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB{beside}")
    print(f"against PyTorch on {CHECKED} images: map {differences[0]:.1e}, score {differences[1]:.1e} apart at most")


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


def compare(kind: Format, file: Path, images: Tensor, expected: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The largest differences of maps and of scores from `expected`, in one batch and one by one.

    Raises InputError when they are above TOLERANCE.
    """
    run, worst = kind.opened(file), torch.zeros(2)
    for size in (len(images), 1):
        parts = [run(part.numpy()) for part in images.split(size)]
        for place, found in enumerate(zip(*parts, strict=True)):
            difference = torch.cat([torch.from_numpy(part) for part in found]) - expected[place]
            worst[place] = torch.maximum(worst[place], difference.abs().max())  # nan stays nan
    if not worst.max() <= TOLERANCE:
        versions = ", ".join(f"{name} {version(name)}" for name in ("torch", kind.needed[-1]))
        raise InputError(f"the file's numbers are {worst.max():.1e} off, so it was not kept: try other than {versions}")
    return tuple(worst.tolist())


def put(draft: Path, target: Path, second: Callable[[Path], Path]) -> None:
    """Move the file, and its second one if it has it, to where they belong; a file and another's weights never meet."""
    weights = second(draft), second(target)
    if any(file.exists() for file in weights):
        target.unlink(missing_ok=True)
        weights[1].unlink(missing_ok=True)
    if weights[0].exists():
        os.replace(*weights)
    os.replace(draft, target)

"""A checkpoint as one ONNX file: image in, anomaly map and score out, prompts and memory bank inside.

python export.py --ckpt ckpt/few-shot/Brain_4-shot.pth --onnx Brain.onnx
"""

from runtime.errors import InputError, exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import argparse
import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import dataset
import prompt
from apps.export.graph import Scorer, settle, without_fft
from engine import checkpoint, few_shot, options, zero_shot
from engine.build import build, encoder, sentences
from engine.checkpoint import Checkpoint, Stage
from engine.objects import objects
from engine.run import Run, same_object
from runtime.linear import plain
from utils import seed_everything

NEEDED = ("onnx", "onnxscript", "onnxruntime")
STEPS = ("tracing", "writing", "checking")
TOLERANCE = 1e-3  # between PyTorch's maps and scores and the file's
CHECKED = 3  # images that the file is checked on
LARGE = 1.8e9  # bytes of weights from which they get a file of their own: an ONNX file holds less than 2 GiB
SECOND = ".data"  # what that file's name has after the first one's


def main() -> None:
    """Open the checkpoint, trace it, write the file, and check that it gives the same numbers."""
    args = options.export()
    check_options(args)
    run, stage = opened(args)
    scorer = scorer_of(run, stage)
    images = test_images(run)
    expected = scorer.reference(images)
    with stages() as done:
        without_fft(run.system.decoder, settle(run.system))
        program = traced(scorer)
        program.model.metadata_props.update(metadata(run, stage, scorer, args.ckpt))
        done()
        with tempfile.TemporaryDirectory(prefix=f".{args.onnx.stem}-", dir=args.onnx.parent) as folder:
            draft = Path(folder) / args.onnx.name
            program.save(draft, external_data=size_of(scorer) > LARGE)
            done()
            differences = compare(draft, images, expected)
            put(draft, args.onnx)
    print(f"{args.onnx}: {args.onnx.stat().st_size / 1e6:.1f} MB{beside(args.onnx)}")
    print(f"against PyTorch on {CHECKED} images: map {differences[0]:.1e}, score {differences[1]:.1e} apart at most")
    print(said(run, scorer))


def check_options(args: argparse.Namespace) -> None:
    """InputError for what would otherwise show only after the work."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"the package {missing[0]} is missing: pip install -r requirements-onnx.txt")
    if args.onnx.suffix != ".onnx":
        raise InputError(f"--onnx {args.onnx}: give the file a name that ends in .onnx")
    args.onnx.parent.mkdir(parents=True, exist_ok=True)
    if args.onnx.is_dir():
        raise InputError(f"--onnx {args.onnx} is a folder; give the name of a file")


@contextmanager
def stages() -> Iterator[Callable[[], None]]:
    """A bar over STEPS; what it gives is called after each."""
    with tqdm(total=len(STEPS), leave=False, bar_format="{desc}: step {n_fmt} of {total_fmt} [{elapsed}]") as bar:

        def done() -> None:
            bar.update()
            bar.set_description(STEPS[min(bar.n, len(STEPS) - 1)])

        bar.set_description(STEPS[0])
        yield done


def opened(args: argparse.Namespace) -> tuple[Run, Stage]:
    """The run that the checkpoint is of, with the wanted stage's adapters in place; and that stage, calibrated."""
    path, content = args.ckpt, checkpoint.read(args.ckpt)
    record = content.record or {}
    obj = args.obj if "obj" in args.given else record.get("obj", args.obj)
    recalled = options.recall(checkpoint.fit_options(args, content), content.record, path, obj)
    stage = getattr(content, args.stage)
    if stage is None:
        raise InputError(f"{path} has no best epoch, since it was trained with --eval_every 0; leave --stage out")
    seed_everything(recalled.seed)
    run = open_transfer(recalled, obj, content) if "trained_on" in record else open_few(recalled, obj, content, path)
    holds = run.calibration_holds(content.record, path)
    return run, run.put(stage if holds else replace(stage, calibration=None), path)


def open_few(args: argparse.Namespace, obj: str, content: Checkpoint, path: Path) -> Run:
    """A few-shot run, whose support makes the memory bank."""
    same_object(content.record, obj, path)
    objects(args)
    return few_shot.open_run(args, obj)


def open_transfer(args: argparse.Namespace, obj: str, content: Checkpoint) -> Run:
    """A zero-shot run, for which no image of the object is needed."""
    info = dataset.find(obj, args.data_path, args.classname)
    if info.masks is None or obj == content.record["obj"]:
        info = replace(info, masks=content.record["masks"])
    with encoder(args) as encode:  # before the image tower is in memory
        words = sentences(args, info)
        text = encode.directions(*words)
    trained_on = zero_shot.trained_on(content.record)
    system = build(args)
    return zero_shot.TransferRun(args, info, (), system, text.to(system.device), prompt.digest(*words), trained_on)


def scorer_of(run: Run, stage: Stage) -> Scorer:
    """The run's system as a module on the CPU."""
    transfer = isinstance(run, zero_shot.TransferRun)
    text = run.text if transfer else run.scored_text()
    banks = {} if transfer else run.banks(keep=True)
    scorer = Scorer(run.system, text, banks, masks=run.masks, transfer=transfer, calibration=stage.calibration)
    run.system.device = torch.device("cpu")
    return scorer.to("cpu").eval()


def test_images(run: Run) -> Tensor:
    """Images (CHECKED, 3, S, S) to check the file on: noise, and support images where the run has some."""
    noise = torch.rand(CHECKED, 3, run.system.size, run.system.size, generator=torch.Generator().manual_seed(0))
    support = run.support.images[: CHECKED - 1] if isinstance(run, few_shot.FewShotRun) else noise[:0]
    return torch.cat([support, noise])[:CHECKED]


def traced(scorer: Scorer) -> torch.onnx.ONNXProgram:
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


def metadata(run: Run, stage: Stage, scorer: Scorer, path: Path) -> dict[str, str]:
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
        "epoch": str(stage.epoch),
        "weights_sha256": run.system.weights_sha256,
        "prompts_sha256": run.prompts_sha256,
        "demo": str(run.args.demo).lower(),
    }
    return found | thresholds(scorer)


def thresholds(scorer: Scorer) -> dict[str, str]:
    """Those of the image score and of the map's pixels, as far as they are known."""
    known = {"image_threshold": scorer.calibration.image, "pixel_threshold": scorer.calibration.pixel}
    values = {name: by_branch.get(scorer.branch, math.nan) for name, by_branch in known.items()}
    return {name: repr(value) for name, value in values.items() if math.isfinite(value)}


def size_of(scorer: Scorer) -> int:
    """Bytes of its weights, memory bank included."""
    return sum(tensor.nbytes for tensor in scorer.state_dict().values())


def compare(file: Path, images: Tensor, expected: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The largest differences of maps and of scores from `expected`, in one batch and one by one.

    Raises InputError when they are above TOLERANCE.
    """
    import onnxruntime

    said = onnxruntime.SessionOptions()
    said.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, said, providers=["CPUExecutionProvider"])
    worst = [0.0, 0.0]
    for size in (len(images), 1):
        parts = [session.run(None, {"images": part.numpy()}) for part in images.split(size)]
        for place, found in enumerate(zip(*parts, strict=True)):
            difference = torch.cat([torch.from_numpy(part) for part in found]) - expected[place]
            worst[place] = max(worst[place], difference.abs().max().item())
    if not max(worst) <= TOLERANCE:
        versions = ", ".join(f"{module.__name__} {module.__version__}" for module in (torch, onnxruntime))
        raise InputError(f"the file's numbers are {max(worst):.1e} off, so it was not kept: try other than {versions}")
    return tuple(worst)


def put(draft: Path, target: Path) -> None:
    """Move the file, and a second one if it has it, to where they belong; a file and another's weights never meet."""
    second = [path.with_name(path.name + SECOND) for path in (draft, target)]
    if second[0].exists() or second[1].exists():
        target.unlink(missing_ok=True)
        second[1].unlink(missing_ok=True)
    if second[0].exists():
        os.replace(*second)
    os.replace(draft, target)


def beside(target: Path) -> str:
    """What is said of a second file."""
    second = target.with_name(target.name + SECOND)
    return f" and {second.name}, {second.stat().st_size / 1e6:.1f} MB: keep them together" if second.exists() else ""


def said(run: Run, scorer: Scorer) -> str:
    """The thresholds in words."""
    known = [f"{name.replace('_', ' ')} {float(value):.4f}" for name, value in thresholds(scorer).items()]
    return f"{run.info.name}: {', '.join(known) or 'no threshold is known; values are mean probabilities of abnormal'}"


if __name__ == "__main__":
    sys.exit(exit_code(main))

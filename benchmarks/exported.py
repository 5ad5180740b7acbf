"""The exported scorer beside our own: what a test image costs, and how far its map and score are apart.

    pip install -r requirements/onnx.txt -r requirements/openvino.txt
    python -m benchmarks.exported    (five minutes on two CPU cores, 14 GB of memory at most)

Sizes, random weights and T are those of benchmarks/speed.py. All are called in turns, on one image and with as many
threads, and give map and score; figures are medians. Differences are from ours in float32, on images of noise.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from apps.export.exporting import FORMATS, traced, write
from apps.export.formats import ONNX, OPENVINO, Scorer, opened_onnx, opened_openvino
from apps.export.graph import ScoringGraph, settle, without_fft
from benchmarks import speed
from benchmarks.timing import CPU, in_turns
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.files import atomic_write
from scoring.calibration import Calibration
from scoring.maps import Scale
from scoring.memory_bank import MemoryBank
from scoring.raw_scores import MAP_MAXIMUM

IMAGES = 4  # that differences are taken over
TOKENS, TAPS = 290, 4  # of an image; of its memory bank
OUT = Path(__file__).with_name("exported.md")
HEAD = "seg"
UNIT, OURS = "T: bare trunk of open_clip, fp32", "ours, fp32"
Scores = Callable[[Tensor], tuple[Tensor, Tensor]]  # images (B, 3, S, S) -> maps (B, S, S), scores (B,)


def graph(weights: Path, precision: str, text: Tensor, bank: MemoryBank) -> ScoringGraph:
    """Our scorer; its cache lies beside the weights."""
    system = speed.system(weights.parent, weights, CPU, precision)
    scale = Scale((0.0, float(TAPS)), (0.0, float(TAPS)))
    calibration = Calibration(scale, scale, {}, {})
    return ScoringGraph(system, text, {HEAD: bank}, rule=MAP_MAXIMUM, calibration=calibration).eval()


def exported(scorer: ScoringGraph, folder: Path, threads: int) -> dict[str, Scores]:
    """Write the scorer in every format, and open the files."""
    without_fft(scorer.decoder, settle(scorer.system))
    files = {kind: folder / f"model{kind.suffix}" for kind in FORMATS}
    write(traced(scorer), {}, files, large=True)
    return {
        "ONNX Runtime, fp32": of_tensors(opened_onnx(files[ONNX], threads)),
        "OpenVINO, fp32": of_tensors(opened_openvino(files[OPENVINO], threads)),
        "OpenVINO, bf16": of_tensors(opened_openvino(files[OPENVINO], threads, "bf16")),
    }


def of_tensors(run: Scorer) -> Scores:
    """From and to PyTorch's tensors."""
    return lambda images: tuple(torch.from_numpy(part) for part in run(images.numpy()))


def apart(one: Scores, other: Scores, images: Tensor) -> tuple[float, float]:
    """The largest differences of maps and of scores, of images one by one."""
    pairs = [zip(one(image), other(image), strict=True) for image in images.split(1)]
    found = torch.tensor([[(a - b).abs().max() for a, b in pair] for pair in pairs])  # (images, 2)
    return tuple(found.amax(dim=0).tolist())


def measured(folder: Path) -> dict[str, tuple[float, float | None, float | None]]:
    """Seconds of an image, and how far maps and scores are apart from ours in float32."""
    weights = speed.random_weights(folder)
    numbers = speed.directions(CPU), speed.bank(speed.SHOT * speed.VARIANTS * TOKENS, CPU, TAPS)
    whole, half = (graph(weights, precision, *numbers) for precision in ("fp32", "bf16"))
    exact = numbers[1]
    scorers = {OURS: partial(whole.reference, banks={HEAD: exact})}
    scorers["ours, --precision bf16"] = partial(half.reference, banks={HEAD: speed.sought_in_half(exact)})
    scorers |= exported(graph(weights, "fp32", *numbers), folder, torch.get_num_threads())
    images, trunk = torch.rand(IMAGES, 3, speed.SIZE, speed.SIZE), speed.trunk(CPU)
    differences = {name: apart(whole.reference, scores, images) for name, scores in scorers.items() if name != OURS}
    calls = {name: lambda scores=scores: scores(images[:1]) for name, scores in scorers.items()}
    with torch.inference_mode():
        seconds = in_turns({UNIT: trunk} | calls, speed.REPEATS)
    return {name: (seconds[name], *differences.get(name, (None, None))) for name in seconds}


def write_table(found: dict[str, tuple[float, float | None, float | None]]) -> None:
    """The table as Markdown."""
    place, unit = environment(), found[UNIT][0]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    lines = [
        f"`python -m benchmarks.exported`: {place['cpu']}, {torch.get_num_threads()} threads, {packages}, our products "
        f"by {place['products']}, commit {place['commit']}; random weights, {IMAGES} images of noise.",
        "",
        "| what | seconds | in T | map apart | score apart |",
        "|---|---|---|---|---|",
    ]
    for name, (seconds, *differences) in found.items():
        cells = " | ".join("" if value is None else f"{value:.1e}" for value in differences)
        lines.append(f"| {name} | {seconds:.3g} | {seconds / unit:.3g} | {cells} |")
    with atomic_write(OUT) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    """Measure, and write the table."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind in FORMATS:
            kind.check(Path(scratch, f"model{kind.suffix}"))
        write_table(measured(Path(scratch)))


if __name__ == "__main__":
    sys.exit(exit_code(main))

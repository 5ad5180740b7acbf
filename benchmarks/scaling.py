"""How cost grows, with the demo CLIP: images, shots, bank, image size, batch, prompts.

    python -m benchmarks.scaling

Every point is measured; sets larger than the demo's are its images again and again. Plots and the table of points go
beside this file. Needs matplotlib (requirements/dev.txt).
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import CLIP
from dataset import Sample
from decoder import MDecoder
from engine.score_images import MASKS_IN_MEMORY, score_images
from engine.system import System
from engine.text import encode
from engine.training import Trainer
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.files import atomic_write
from scoring.evaluation import branch_figures
from scoring.memory_bank import BankLimit, MemoryBank
from scoring.patch_scores import PatchScores
from scoring.raw_scores import MAP_MAXIMUM

mpl.use("Agg")
import matplotlib.pyplot as plt

MODEL, WIDTH, EMBED, SIZE = "ViT-T-16-demo", 192, 128, 240
ROOT = Path(__file__).parents[1]
OUT = Path(__file__).with_name("scaling.json")
AXES = {  # what grows -> (its values, what the curve should be)
    "images read": ((100, 1000, 5000), "file to grid values, linear in time; memory flat but for the grids themselves"),
    "images": (
        (100, 1000, 10_000, 100_000),
        "figures from grid values, linear in time; memory flat from 2^29 pixels on, but for the grids",
    ),
    "shots": ((1, 2, 4, 8, 16, 32, 64), "seconds to build the bank linear; memory linear (its tokens)"),
    "bank tokens": (
        (1000, 10_000, 100_000, 1_000_000),
        "linear once the search outweighs the trunk; --bank_cap bounds it",
    ),
    "image size": (
        (224, 240, 288, 336, 392, 448, 518),
        "a little more than its square: attention is quadratic in tokens",
    ),
    "batch": ((1, 2, 4, 8, 16), "training step linear: on a CPU a batch gains nothing"),
    "prompts": ((10, 100, 1000, 10_000), "first encoding linear"),
}
environment = cache(environment)  # as it is before the first table is written, a change of the checkout


def system(size: int = SIZE) -> System:
    """The demo CLIP with random adapters."""
    torch.manual_seed(0)
    clip = CLIP.load_clip(MODEL, ROOT / "CLIP" / "ckpt" / f"{MODEL}.safetensors", size)
    return System(MDecoder(clip, (2, 4, 6, 8)), torch.device("cpu"), size)


def peak() -> float:
    """Peak resident GB of this process so far (Linux; elsewhere also that of the process that started it)."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / (1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds after one call to warm up."""
    call()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


class Blobs:
    """Masks of half of the images, made when asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, rows: slice) -> np.ndarray:
        numbers = range(self.count)[rows]
        masks = np.zeros((len(numbers), SIZE, SIZE), bool)
        for mask, number in zip(masks, numbers, strict=True):
            corner = number * 37 % 180
            mask[corner : corner + 40, 60:100] = number % 2
        return masks


def measure_reading(count: int) -> float:
    """Seconds to read `count` files of one picture against prompts and a bank."""
    one, rng = system(), np.random.default_rng(0)
    bank = MemoryBank.build([([torch.randn(1, 10_000, EMBED) for _ in range(4)], 0)], 1, BankLimit(), 0)
    text = F.normalize(torch.randn(EMBED, 2), dim=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.png")
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(path)
        started = time.perf_counter()
        score_images(one, [Sample(path, 0)] * count, ("seg",), text, {"seg": bank})
        return time.perf_counter() - started


def measure_images(count: int) -> float:
    """Seconds of all figures of `count` images whose readings are there."""
    generator = torch.Generator().manual_seed(0)
    grids = PatchScores(*(torch.rand(count, 4, 15, 15, generator=generator) for _ in range(2)))
    masks = Blobs(count)
    labels = np.arange(count) % 2
    whole = masks[:] if count * SIZE**2 <= MASKS_IN_MEMORY else masks
    started = time.perf_counter()
    branch_figures(MAP_MAXIMUM.raw_scores({"seg": grids}), labels, whole, SIZE, None)
    return time.perf_counter() - started


def measure_shots(count: int) -> float:
    """Seconds to build the bank of `count` normal images in eleven variants."""
    one, image = system(), torch.rand(1, 3, SIZE, SIZE)

    def tokens() -> Iterator[tuple[list[torch.Tensor], int]]:
        for number in range(count * 11):
            yield one.levels([one.prefix(image)], "seg"), number

    started = time.perf_counter()
    MemoryBank.build(tokens(), count * 11, BankLimit(), 0)
    return time.perf_counter() - started


def measure_bank(count: int) -> float:
    """Seconds of a test image against a bank of `count` tokens a tap."""
    one, image = system(), torch.rand(1, 3, SIZE, SIZE)
    bank = MemoryBank([F.normalize(torch.randn(count, EMBED), dim=-1) for _ in range(4)])
    text = F.normalize(torch.randn(EMBED, 2), dim=0)
    return seconds(lambda: one.score(one.prefix(image), ("seg",), text, {"seg": bank}), 3)


def measure_size(size: int) -> float:
    """Seconds of a test image of `size` pixels a side, prompts alone."""
    one, image, text = system(size), torch.rand(1, 3, size, size), F.normalize(torch.randn(EMBED, 2), dim=0)
    return seconds(lambda: one.score(one.prefix(image), ("seg",), text, {}))


def measure_batch(count: int) -> float:
    """Seconds of a training step."""
    one, text = system(), F.normalize(torch.randn(EMBED, 2), dim=0)
    prefixes, labels = one.prefix(torch.rand(count, 3, SIZE, SIZE)), torch.ones(count)
    trainer, masks = Trainer(one, 1e-3), torch.zeros(count, 1, SIZE, SIZE)
    return seconds(lambda: trainer.step(prefixes, labels, masks, text))


def measure_prompts(count: int) -> float:
    """Seconds to encode `count` sentences for the first time."""
    clip = CLIP.load_clip(MODEL, ROOT / "CLIP" / "ckpt" / f"{MODEL}.safetensors", towers=("text",))
    sentences = [
        f"a scan with finding {number} in the {'left' if number % 2 else 'right'} lobe" for number in range(count)
    ]
    started = time.perf_counter()
    encode(clip, sentences)
    return time.perf_counter() - started


MEASURES = {
    "images read": measure_reading,
    "images": measure_images,
    "shots": measure_shots,
    "bank tokens": measure_bank,
    "image size": measure_size,
    "batch": measure_batch,
    "prompts": measure_prompts,
}


def point(axis: str, value: int) -> dict[str, float]:
    """One measurement in a process of its own: seconds, its peak resident GB, and how much above what it had before."""
    code = "import sys; from benchmarks.scaling import alone; alone(sys.argv[1], int(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, axis, str(value)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    taken, before, after = map(float, done.stdout.split())
    return {"value": value, "seconds": taken, "gigabytes": after - before, "peak": after}


def alone(axis: str, value: int) -> None:
    """What `point` starts."""
    before = peak()
    print(MEASURES[axis](value), before, peak())


def plot(axis: str, points: list[dict[str, float]]) -> None:
    """Seconds and memory against what grows, both axes logarithmic."""
    figure, left = plt.subplots(figsize=(5, 3.2), layout="constrained")
    values = [one["value"] for one in points]
    left.loglog(values, [one["seconds"] for one in points], "o-", color="#1f5fa8", label="seconds")
    left.set(xlabel=axis, ylabel="seconds", title=f"{axis} (demo CLIP, 240 px)" if axis != "image size" else axis)
    right = left.twinx()
    right.loglog(values, [max(one["gigabytes"], 1e-3) for one in points], "s--", color="#b5541c", label="GB")
    right.set_ylabel("GB above an idle process")
    handles = [*left.get_lines(), *right.get_lines()]
    left.legend(handles, [line.get_label() for line in handles], loc="upper left")
    left.grid(alpha=0.3)
    with atomic_write(OUT.with_name(f"scaling_{axis.replace(' ', '_')}.png")) as draft:
        figure.savefig(draft, dpi=110)
    plt.close(figure)


def write(found: dict[str, list[dict[str, float]]]) -> None:
    """All points as JSON, and as a table in Markdown that says what to expect."""
    place = environment()
    lines = [
        f"`python -m benchmarks.scaling`: {place['cpu']}, {torch.get_num_threads()} threads, commit {place['commit']}",
        "",
    ]
    for axis, points in found.items():
        lines += [f"**{axis}**: {AXES[axis][1]}", "", f"| {axis} | seconds | GB |", "|---|---|---|"]
        lines += [f"| {one['value']:,} | {one['seconds']:.3g} | {one['gigabytes']:.2f} |" for one in points]
        lines += ["", f"![{axis}](scaling_{axis.replace(' ', '_')}.png)", ""]
    with atomic_write(OUT) as draft:
        draft.write_text(json.dumps({"environment": place, "points": found}, indent=1), encoding="utf-8")
    with atomic_write(OUT.with_suffix(".md")) as draft:
        draft.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Measure every point, one process each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    args = parser.parse_args()
    environment()
    known = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else None
    same = known is not None and known["environment"]["commit"] == environment()["commit"]
    found = known["points"] if same else {}
    for axis in args.axes:
        found[axis] = [point(axis, value) for value in AXES[axis][0]]
        print(axis, found[axis])
        plot(axis, found[axis])
        write({axis: found[axis] for axis in AXES if axis in found})


if __name__ == "__main__":
    sys.exit(exit_code(main))

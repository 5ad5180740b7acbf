"""What a run costs beside the bare trunk, in units of T: one ViT-L/14-336 image forward of `open_clip`.

    python -m benchmarks.speed                  (all rows; about 25 minutes on two CPU cores)
    python -m benchmarks.speed --rows test step
    python -m benchmarks.speed --device cuda    (or mps)

The table is written beside this file: speed_amx.md of a CPU with AMX, speed_amd_avx2.md of AMD's with AVX2 alone,
speed_cuda.md, and so on. Rows are only ever compared within one of them.

T is measured in the same run, in turns with what is compared (float32, batch 1, 240 px, random weights, the same
device); figures are medians. Whole scripts run as processes of their own on generated images, with a weights file of
random weights.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import CLIP
from benchmarks.scaling import point
from benchmarks.timing import REPEATS, in_turns
from decoder import MDecoder, default_taps
from engine.system import System
from engine.text import HALF, TYPICAL, Encoder
from engine.training import Trainer
from runtime import linear
from runtime.cache import Cache
from runtime.devices import timed
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.files import atomic_write
from runtime.processor import processor
from scoring.maps import Scale, max_scores
from scoring.memory_bank import BankLimit, MemoryBank
from utils import pick_device

MODEL, SIZE = "ViT-L-14-336", 240
SHOT, VARIANTS = 4, 11
TOGETHER = 16  # test images, where a device takes several
SEVERAL = f"test image, of {TOGETHER} together"
PROMPTS = 1000
OUT = Path(__file__).parent
LAUNCH = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""
FIRST = """
import runpy, sys, time
started, script = float(sys.argv[1]), sys.argv[2]
sys.argv, sys.path[0] = sys.argv[2:], script.rpartition("/")[0]
from engine.system import System
score = System.score
def noted(*given):
    scores = score(*given)
    print("FIRST", time.time() - started, flush=True)
    return scores
System.score = noted
runpy.run_path(script, run_name="__main__")
"""
ROOT = Path(__file__).parents[1]
environment = cache(environment)  # as it is before the first table is written, a change of the checkout
IMAGE, STEP = "test image", "training step, its prefix known"
LAYERS = "the trunk's linear layers alone, --precision bf16"
LIMITS = {  # row -> its unit, and what it may be at most: on any CPU, or on one of a kind
    "bare trunk by our products": ("T", {}),
    IMAGE: ("T", {"amx": 1.10, "amd": 0.62}),
    f"{IMAGE}, --compile": ("T", {}),
    f"{IMAGE}, --precision bf16": ("T", {"amx": 0.22, "amd": 0.60}),
    LAYERS: ("T", {}),
    f"{IMAGE}, --precision int8": ("T", {"amx": 0.22, "amd": 0.34}),
    STEP: ("T", {"": 2.1}),
    f"{STEP}, --precision bf16": ("T", {"amx": 0.55, "amd": 1.0}),
    "test image seen before": ("T", {"": 1.05}),
    SEVERAL: ("T", {}),
    "one adapter": ("T", {}),
    "a prompt of 1,000": ("T", {"": 0.04}),
    "a prompt of 1,000, --precision bf16": ("T", {}),
    "a changed prompt of 1,000, tower loaded": ("T", {"": 0.04}),
    "1,000 prompts, second run": ("s", {"": 1.0}),
    "train_few.py, peak memory": ("GB", {"": 3.0}),
    "test_few.py, peak memory": ("GB", {"": 2.2}),
    "test_few.py --precision bf16, peak memory": ("GB", {"": 1.5}),
    "test_few.py --precision int8, peak memory": ("GB", {"": 1.4}),
    "test_few.py, start to first image": ("s", {"": 6.0}),
    "the same, support and prompts new": ("s", {}),
    "the same, support and prompts new, --precision bf16": ("s", {"": 15.0}),
    "all figures of 3,715 images": ("s", {"": 25.0}),
    "the same, peak memory": ("GB", {"": 2.0}),
}


def trunk(device: torch.device) -> Callable[[], object]:
    """What takes T."""
    import open_clip

    model = open_clip.create_model(MODEL, pretrained=None, force_image_size=SIZE).eval().to(device)
    image = torch.rand(1, 3, SIZE, SIZE).to(device)
    return lambda: model.encode_image(image)


def random_weights(folder: Path) -> Path:
    """A file of random weights, in 16 bits."""
    torch.manual_seed(0)
    weights, state = folder / "random.safetensors", CLIP.load_clip(MODEL).state_dict()
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, weights)
    return weights


def directions(device: torch.device) -> Tensor:
    """Random text directions (D, 2)."""
    return torch.nn.functional.normalize(torch.randn(CLIP.config(MODEL)[0], 2), dim=0).to(device)


def system(
    folder: Path, weights: Path, device: torch.device, precision: str = "fp32", compiled: bool = False
) -> System:
    """The system at ViT-L's shape, with random weights."""
    torch.manual_seed(0)
    clip = CLIP.load_clip(MODEL, weights, SIZE, towers=("image",), precision=precision)
    half = CLIP.HALVES.get(precision)
    if half is not None and device.type == "cpu" and not compiled:
        CLIP.pack(clip.visual.transformer, clip.visual.tokens(SIZE))
    decoder = MDecoder(clip, default_taps(clip.vision_config.layers), half=half, compiled=compiled).to(device)
    return System(decoder, device, SIZE, cache=Cache(folder / "prefixes", 1 << 30), key=precision)


def layers_alone(one: System) -> Callable[[], object]:
    """The linear layers of all the trunk's blocks: what of an image's time is up to the processor's units."""
    visual = one.decoder.visual
    blocks, width = visual.transformer.resblocks, len(visual.class_embedding)
    narrow, wide = (
        torch.rand(1, visual.tokens(SIZE), size).to(one.device, one.decoder.half) for size in (width, 4 * width)
    )

    def call() -> None:
        for block in blocks:
            block.attn.project(narrow), block.attn.out_proj(narrow), block.mlp.c_fc(narrow), block.mlp.c_proj(wide)

    return call


def bank(tokens: int, device: torch.device, taps: int = 4) -> MemoryBank:
    """A bank of random tokens."""
    width = CLIP.config(MODEL)[0]
    levels = (([torch.randn(1, tokens, width).to(device) for _ in range(taps)], 0) for _ in range(1))
    return MemoryBank.build(levels, 1, BankLimit(), 0)


def sought_in_half(whole: MemoryBank) -> MemoryBank:
    """The same bank, as it is with --precision bf16 and int8."""
    return MemoryBank(whole.levels, whole.owners, search=torch.bfloat16)


def rows_test(folder: Path, weights: Path, device: torch.device) -> dict[str, float]:
    """A test image from pixels to maps and scores, and one whose prefix is known, in T; where a device takes several
    images at once, also one of several."""
    text, image = directions(device), torch.rand(1, 3, SIZE, SIZE)
    exact, scale = bank(SHOT * VARIANTS * 290, device), Scale((0.0, 4.0), (0.0, 4.0))
    ours, whole = system(folder, weights, device), system(folder, weights, device, compiled=True)
    half, small = (system(folder, weights, device, precision) for precision in ("bf16", "int8"))
    quick, there = sought_in_half(exact), image.to(device)
    several = torch.rand(TOGETHER, 3, SIZE, SIZE)
    path = folder / "seen.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    files = ours.known_prefixes
    files.keep(path, ours.prefix(image)[0])

    def scored(one: System, prefix: Callable[[], Tensor], among: MemoryBank = exact) -> Callable[[], object]:
        return lambda: max_scores(one.score(prefix(), ("seg",), text, {"seg": among})["seg"], scale, SIZE)

    together = {"together": scored(ours, lambda: ours.prefix(several))} if device.type != "cpu" else {}
    with torch.inference_mode():
        seconds = in_turns(
            {
                "T": trunk(device),
                "bare trunk by our products": lambda: ours.decoder.visual(there),
                IMAGE: scored(ours, lambda: ours.prefix(image)),
                f"{IMAGE}, --compile": scored(whole, lambda: whole.prefix(image)),
                f"{IMAGE}, --precision bf16": scored(half, lambda: half.prefix(image), quick),
                LAYERS: layers_alone(half),
                f"{IMAGE}, --precision int8": scored(small, lambda: small.prefix(image), quick),
                "test image seen before": scored(ours, lambda: files(path)[None].to(device)),
            }
            | together,
            device=device,
        )
    if "together" in seconds:
        seconds[SEVERAL] = seconds.pop("together") / TOGETHER
    return in_units(seconds)


def rows_step(folder: Path, weights: Path, device: torch.device) -> dict[str, float]:
    """A training step, and one adapter's forward, in T."""
    systems = {precision: system(folder, weights, device, precision) for precision in ("fp32", "bf16")}
    ours, text = systems["fp32"], directions(device)
    trainers = {precision: Trainer(one, 1e-3) for precision, one in systems.items()}
    prefix, labels, masks = ours.prefix(torch.rand(1, 3, SIZE, SIZE)), torch.ones(1), torch.zeros(1, 1, SIZE, SIZE)
    masks[..., SIZE // 4 : SIZE // 2, SIZE // 4 : SIZE // 2] = 1
    labels, masks, bare = labels.to(device), masks.to(device), trunk(device)

    @torch.inference_mode()
    def forward() -> None:
        bare()

    @torch.inference_mode()
    def adapter() -> None:
        ours.decoder.seg_adapters[0](prefix)

    def step(precision: str) -> None:
        trainers[precision].step(prefix, labels, masks, text)

    steps = {STEP: partial(step, "fp32"), f"{STEP}, --precision bf16": partial(step, "bf16")}
    return in_units(in_turns({"T": forward, **steps, "one adapter": adapter}, device=device))


def rows_text(folder: Path, weights: Path, device: torch.device) -> dict[str, float]:
    """First encoding of 1,000 prompts, the second run, and one that changed."""
    rng = np.random.default_rng(0)
    words = "a scan of the left right upper lower lobe shows no small bright dark lesion with smooth edge near it"
    sentences = [" ".join(rng.choice(words.split(), rng.integers(15, 21))) for _ in range(PROMPTS)]
    clip = CLIP.load_clip(MODEL, weights, SIZE, towers=("text",)).to(device)
    half = CLIP.load_clip(MODEL, weights, SIZE, towers=("text",), precision="bf16")
    if device.type == "cpu":
        CLIP.pack(half.transformer, HALF * TYPICAL)
    cache, bare, seconds = Cache(folder / "text", 1 << 30), trunk(device), {}
    with torch.inference_mode():
        unit = in_turns({"T": bare}, 5, device)["T"]
        encode = Encoder(lambda: clip, cache, "text", clip.embed_dim)
        seconds["a prompt of 1,000"] = timed(lambda: encode.features(sentences), device) / PROMPTS
        quick = Encoder(lambda: half.to(device), cache, "text in half", clip.embed_dim)
        name = "a prompt of 1,000, --precision bf16"
        seconds[name] = timed(lambda: quick.features(sentences), device) / PROMPTS
        unit = statistics.mean([unit, in_turns({"T": bare}, 5, device)["T"]])
        started = time.perf_counter()
        Encoder(lambda: clip, cache, "text", clip.embed_dim).features(sentences)
        again = time.perf_counter() - started
        changes = []
        for number in range(REPEATS):
            encode = Encoder(lambda: clip, cache, "text", clip.embed_dim)
            encode.features(sentences)
            started = time.perf_counter()
            encode.features(
                [f"number {number} changed and so it is encoded again, with about twenty symbols", *sentences]
            )
            changes.append(time.perf_counter() - started)
        seconds["a changed prompt of 1,000, tower loaded"] = statistics.median(changes)
    return in_units({"T": unit} | seconds) | {"1,000 prompts, second run": again}


def rows_scripts(folder: Path, weights: Path, device: torch.device) -> dict[str, float]:
    """Peak memory of whole scripts with two test images, the host's, and how soon the first one is scored.

    Training keeps features of prompts and banks, so testing finds them; `new`: as if it found nothing.
    """
    benchmark(folder / "data" / "Brain_AD")
    usual = ["--clip_path", weights, "--data_path", folder / "data", "--iterate", "-1", "--save_path", folder / "ckpt"]
    usual += ["--results_path", folder / "results", "--device", device]
    known, new = ["--cache_path", folder / "cache"], ["--cache_gb", "0"]
    train = [*usual, *known, "--epoch", 1, "--eval_every", 0, "--folds", 0, "--log_dir", folder / "runs"]
    found = {"train_few.py, peak memory": process("train_few.py", *train)}
    for precision in ("fp32", "bf16", "int8"):
        flags = [] if precision == "fp32" else ["--precision", precision]
        several = (process("test_few.py", *usual, *flags, *cache) for cache in (known, known, new))
        found[" ".join(["test_few.py", *flags]) + ", peak memory"] = max(several)
    first = statistics.median(first_image("test_few.py", *usual, *known) for _ in range(3))
    unknown = "the same, support and prompts new"
    found |= {"test_few.py, start to first image": first, unknown: first_image("test_few.py", *usual, *new)}
    half = ["--precision", "bf16"]
    return found | {f"{unknown}, {' '.join(half)}": first_image("test_few.py", *usual, *new, *half)}


def rows_metrics(folder: Path, weights: Path, device: torch.device) -> dict[str, float]:
    """All figures of as many images as Brain's test set has, from grid values: maps, three branches, AUPRO included;
    always on the CPU."""
    found = point("images", 3715)
    return {"all figures of 3,715 images": found["seconds"], "the same, peak memory": found["peak"]}


def benchmark(root: Path) -> None:
    """Random images in the medical layout, 8 + 8 for support and 1 + 1 to score."""
    rng = np.random.default_rng(0)
    for split, count in (("valid", 8), ("test", 1)):
        for place in ("good/img", "Ungood/img", "Ungood/anomaly_mask"):
            folder = root / split / place
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                if place.endswith("mask"):
                    pixels = np.zeros((SIZE, SIZE), np.uint8)
                    pixels[40:90, 50:120] = 255
                Image.fromarray(pixels).save(folder / f"{number}.png")


def process(script: str, *flags: object) -> float:
    """Peak resident GB of a script, which is started by a small process: peaks are inherited."""
    command = [sys.executable, "-c", LAUNCH, sys.executable, str(ROOT / script), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, memory = done.stdout.split()
    assert code == "0", done.stderr
    return float(memory) / (1 << 20)


def first_image(script: str, *flags: object) -> float:
    """Seconds from the start of a script until its first batch of images is read."""
    command = [sys.executable, "-c", FIRST, str(time.time()), (ROOT / script).as_posix(), *map(str, flags)]
    done = subprocess.run([*command, "--batch_size", "1"], capture_output=True, text=True, check=True)
    return float(re.search(r"FIRST (\S+)", done.stdout)[1])


def in_units(seconds: dict[str, float]) -> dict[str, float]:
    """Multiples of T, which comes along in seconds."""
    unit = seconds.pop("T")
    return {name: value / unit for name, value in seconds.items()} | {"T in seconds": unit}


PARTS = {
    part.__name__.removeprefix("rows_"): part for part in (rows_test, rows_step, rows_text, rows_scripts, rows_metrics)
}


def kind(device: torch.device) -> str:
    """What tells a table from others: the device; of CPUs "amx", else the maker, with "_avx2" if nothing is wider."""
    if device.type != "cpu":
        return device.type
    if getattr(torch.cpu, "_is_amx_tile_supported", bool)():
        return "amx"
    makers = [name for name in ("amd", "intel", "apple") if name in processor().lower()]
    maker = makers[0] if makers else platform.machine().lower()
    return f"{maker}_avx2" if torch.backends.cpu.get_cpu_capability() == "AVX2" else maker


def output(device: torch.device) -> Path:
    """Where a device's table is written."""
    return OUT / f"speed_{kind(device)}.md"


def write(found: dict[str, dict], device: torch.device) -> None:
    """The table as Markdown, and the figures as JSON beside it; each part with the commit and the T it had. What is at
    most allowed is said of the CPU."""
    place, out = environment(device), output(device)
    on = place["cpu"] if device.type == "cpu" else f"{place['device']} ({place['cpu']})"
    other = device.type == "cpu" and linear.wide()
    lines = [
        f"`python -m benchmarks.speed{'' if device.type == 'cpu' else f' --device {device.type}'}`: {on}, "
        f"{torch.get_num_threads()} threads, torch {place['torch']}; our products by "
        f"{'oneDNN, those of T by MKL' if other else 'the same library as those of T'}.",
        "",
        "| what | measured | at most | T | commit |",
        "|---|---|---|---|---|",
    ]
    for name, (unit, limits) in LIMITS.items():
        limit = limits.get(kind(device), limits.get("")) if device.type == "cpu" else None
        for part in found.values():
            if name in part["rows"]:
                most = "" if limit is None else f"{limit:g} {unit}"
                took = f"{part['T']:.3g} s" if unit == "T" else ""
                lines.append(f"| {name} | {part['rows'][name]:.3g} {unit} | {most} | {took} | {part['commit']} |")
    with atomic_write(out) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_write(out.with_suffix(".json")) as draft:
        draft.write_text(json.dumps({"environment": place, "parts": found}, indent=1), encoding="utf-8")


def main() -> None:
    """Measure the rows that were asked for, and write the table anew with them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or mps")
    args = parser.parse_args()
    device = pick_device(args.device)
    commit = (environment(device)["commit"] or "unknown")[:10]
    known = output(device).with_suffix(".json")
    found = json.loads(known.read_text(encoding="utf-8"))["parts"] if known.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        weights = random_weights(Path(scratch))
        for name in args.rows:
            rows = PARTS[name](Path(scratch), weights, device)
            found[name] = {"commit": commit, "T": rows.pop("T in seconds", None), "rows": rows}
            write(found, device)
            print(json.dumps(found[name], indent=1))


if __name__ == "__main__":
    sys.exit(exit_code(main))

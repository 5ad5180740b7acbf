"""How long the published protocol takes: 4-shot training on a benchmark of Brain's size, tested after every epoch.

    python -m benchmarks.budget --device cuda --precision bf16
    python -m benchmarks.budget --images 40                     (a few minutes on two cores)

ViT-L/14-336 with random weights, random images. After a training of one epoch, with which the device starts, trainings
of --short and --long epochs run one after the other; what an epoch more takes is their difference, shared out, and 50
epochs are reckoned from that. Folds of the support are trained too, as by default.
"""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.speed import SIZE, random_weights
from engine import FewShotSpec, train_few_shot
from engine.spec import TRAINED
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.flags import positive

EPOCHS = 50
NORMAL, ABNORMAL = 640, 3075  # test images of BMAD's Brain
MASK = "anomaly_mask"


def write_image(path: Path) -> None:
    """Noise, or a mask, at its path."""
    if path.parent.name == MASK:
        pixels = np.zeros((SIZE, SIZE), np.uint8)
        pixels[40:90, 50:120] = 255
    else:
        pixels = np.random.default_rng(int(path.stem)).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(path, compress_level=1)


def write_benchmark(root: Path, images: int) -> None:
    """Brain's folders with 8 + 8 images for support and `images` to score, as many of them normal as in Brain."""
    normal = max(1, round(images * NORMAL / (NORMAL + ABNORMAL)))
    files: list[Path] = []
    for split, counts in (("valid", (8, 8)), ("test", (normal, max(1, images - normal)))):
        for place, count in (("good/img", counts[0]), ("Ungood/img", counts[1]), (f"Ungood/{MASK}", counts[1])):
            (root / split / place).mkdir(parents=True)
            files += [root / split / place / f"{number}.png" for number in range(count)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_image, files, chunksize=64))


def seconds(epochs: int, folder: Path, device: str, precision: str) -> float:
    """Of a training of so many epochs, from its start to its results."""
    asked = {"obj": "Brain", "shot": 4, "iterate": -1, "epoch": epochs, "device": device, "precision": precision}
    asked |= {"clip_path": folder / "random.safetensors", "data_path": folder / "data", "cache_gb": 0.0}
    asked |= {"results_path": folder / "results", "save_path": folder / "ckpt", "save_model": 0}
    started = time.perf_counter()
    train_few_shot(FewShotSpec.of(asked))
    return time.perf_counter() - started


def main() -> None:
    """Train three times, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--precision", default="fp32", choices=TRAINED)
    parser.add_argument("--images", type=positive, default=NORMAL + ABNORMAL, help="to score (default: Brain's)")
    parser.add_argument("--short", type=positive, default=1, help="epochs of the first training")
    parser.add_argument("--long", type=positive, default=3, help="epochs of the second one")
    args = parser.parse_args()
    if args.long <= args.short:
        parser.error(f"--long {args.long} must be more than --short {args.short}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_benchmark(folder / "data" / "Brain_AD", args.images)
        random_weights(folder)
        took = partial(seconds, folder=folder, device=args.device, precision=args.precision)
        first, short, long = took(1), took(args.short), took(args.long)
    each = (long - short) / (args.long - args.short)
    found = {
        "images": args.images,
        "precision": args.precision,
        "first_s": first,
        "short_s": short,
        "long_s": long,
        "epoch_s": each,
    }
    found |= {"epochs_50_s": short + (EPOCHS - args.short) * each, "environment": environment(args.device)}
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(exit_code(main))

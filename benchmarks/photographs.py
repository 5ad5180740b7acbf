"""Two small sets of photographs with defects drawn in: textures and cells, from scikit-image's samples.

    pip install scikit-image && python -m benchmarks.photographs --out data

Normal images are square crops; abnormal ones are crops in which a scratch, a stain, a hole or a patch of another crop
is drawn, with their masks. Support comes from the left half of every photograph and test images from the right, so
that none shows what another does. What a method makes of drawn defects says nothing about real ones.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from runtime.errors import InputError, exit_code
from runtime.files import atomic_write

SETS = {"Textures": ("brick", "grass", "gravel"), "Cells": ("immunohistochemistry",)}  # names in skimage.data
SIDE = 160  # pixels of a crop
VALID, TEST = 24, 60  # images of either label
HALF = 256  # of a photograph's 512 columns

Draw = Callable[[np.random.Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def scratch(rng: np.random.Generator, crop: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A thin bent line, lighter or darker than what is below it."""
    start = rng.uniform(20, SIDE - 20, 2)
    steps = np.cumsum(rng.normal(0, 6, (8, 2)) + rng.normal(0, 6, 2), axis=0)
    line = np.clip(start + steps, 4, SIDE - 5).astype(np.int32)
    mask = np.zeros(crop.shape[:2], np.uint8)
    cv2.polylines(mask, [line], False, 1, int(rng.integers(2, 5)))
    return blend(crop, mask, rng.choice([-70, 70]))


def stain(rng: np.random.Generator, crop: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A soft blot."""
    return blend(crop, blob(rng, 10, 26), rng.choice([-45, 45]), soft=5)


def hole(rng: np.random.Generator, crop: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A small spot without any texture."""
    mask = blob(rng, 6, 14)
    return np.where(mask[..., None] > 0, crop.mean(axis=(0, 1)) * 0.5, crop), mask


def graft(rng: np.random.Generator, crop: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A piece of another crop, turned by a right angle."""
    mask = blob(rng, 14, 28)
    return np.where(mask[..., None] > 0, np.rot90(other, int(rng.integers(1, 4))), crop), mask


DEFECTS: dict[str, Draw] = {"scratch": scratch, "stain": stain, "hole": hole, "graft": graft}


def blob(rng: np.random.Generator, least: float, most: float) -> np.ndarray:
    """An ellipse somewhere in the crop, with half-axes in pixels, uint8 (S, S) in {0, 1}."""
    axes, center = rng.uniform(least, most, 2), rng.uniform(most, SIDE - most, 2)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, center.astype(int).tolist(), axes.astype(int).tolist(), rng.uniform(0, 180), 0, 360, 1, -1)
    return mask


def blend(crop: np.ndarray, mask: np.ndarray, change: float, soft: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """A crop brightened (or darkened) by `change` grey levels where the mask is."""
    weight = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), soft) if soft else mask.astype(np.float32)
    return crop + change * weight[..., None], mask


def crops(rng: np.random.Generator, photographs: list[np.ndarray], first: int) -> Iterator[np.ndarray]:
    """Endless crops float64 (S, S, 3) of the columns `first` to `first + HALF`, of photographs drawn by chance."""
    while True:
        picture = photographs[rng.integers(len(photographs))]
        top, left = rng.integers(0, picture.shape[0] - SIDE), first + rng.integers(0, HALF - SIDE)
        yield picture[top : top + SIDE, left : left + SIDE].astype(np.float64)


def write(out: Path, name: str, photographs: list[np.ndarray]) -> None:
    """One set as `OUT/NAME_AD`, in the medical layout."""
    for split, count, first in (("valid", VALID, 0), ("test", TEST, HALF)):
        rng = np.random.default_rng([len(name), first])
        source = crops(rng, photographs, first)
        for number in range(count):
            _save(out / f"{name}_AD" / split / "good" / "img" / f"{number:03d}.png", next(source))
            kind = list(DEFECTS)[number % len(DEFECTS)]
            image, mask = DEFECTS[kind](rng, next(source), next(source))
            folder, file = out / f"{name}_AD" / split / "Ungood", f"{number:03d}_{kind}.png"
            _save(folder / "img" / file, image)
            _save(folder / "anomaly_mask" / file, 255.0 * mask)


def _save(path: Path, values: np.ndarray) -> None:
    with atomic_write(path) as draft:
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(draft, "PNG")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder that gets Textures_AD and Cells_AD")
    out = parser.parse_args().out
    try:
        from skimage import color, data
    except ImportError as fault:
        raise InputError("the photographs come with scikit-image: pip install scikit-image") from fault
    for name, names in SETS.items():
        pictures = [np.asarray(getattr(data, one)()) for one in names]
        write(
            out,
            name,
            [picture if picture.ndim == 3 else (255 * color.gray2rgb(picture / 255.0)) for picture in pictures],
        )
        print(f"{out / name}_AD: {VALID} + {TEST} images of either label")


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""Real images without a download page: the solar cells of the package `elpv-dataset`, as the object Solar.

    python -m dataset.convert elpv --out data

writes data/Solar_AD in the medical layout, without masks. Cells that the experts found surely sound
(probability 0) are normal, surely defective ones (probability 1) abnormal; the doubtful ones between are
left out. Every tenth cell of each label and wafer type, in the package's order, goes to `valid`, the others
to `test`. File names: NUMBER_mono.png or NUMBER_poly.png.
"""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.convert.writer import File, make, read_record, summary
from runtime.errors import InputError

VALID_EVERY = 10
LABELS = {0.0: "good", 1.0: "Ungood"}
# Images uint8 (N, H, W), probabilities (N,), wafer types (N,)
Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


def read_cells() -> Cells:
    """All cells of the package; InputError with the install line when it is missing."""
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError as fault:
        raise InputError("the package elpv-dataset is missing: pip install elpv-dataset") from fault
    return load_dataset()


def plan(probabilities: np.ndarray, kinds: np.ndarray) -> list[tuple[int, str]]:
    """(index of the cell, its path in Solar_AD) for every cell that is kept; the same on every call."""
    seen: Counter[tuple[float, str]] = Counter()
    files = []
    for index, (probability, kind) in enumerate(zip(probabilities.tolist(), kinds.tolist(), strict=True)):
        if probability not in LABELS:
            continue
        split = "valid" if seen[probability, kind] % VALID_EVERY == 0 else "test"
        seen[probability, kind] += 1
        files.append((index, f"{split}/{LABELS[probability]}/img/{index + 1:04d}_{kind}.png"))
    return files


def convert(out: Path, cells: Cells | None = None) -> Path:
    """Write OUT/Solar_AD and return it; a finished one is kept, and told without the package."""
    folder = out / "Solar_AD"
    record = read_record(folder)
    if record and record["finished"]:
        print(f"{folder} is there already; remove it to make it anew")
    else:
        images, probabilities, kinds = cells or read_cells()
        chosen = plan(probabilities, kinds)
        make(folder, [File(name, f"cell {index}", partial(_write, images[index])) for index, name in chosen])
    print(summary(folder))
    return folder


def _write(cell: np.ndarray, path: Path) -> None:
    Image.fromarray(cell).save(path, compress_level=1)  # four times as fast, 16 % larger

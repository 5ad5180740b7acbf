"""Datasets: three doors that check a tree of images, count it, and hand out samples.

`open_few` for few-shot runs, `open_test` for zero-shot scoring, `open_transfer` for zero-shot training.
"""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from dataset import industrial, medical
from dataset.images import (
    Batches,
    ImageSet,
    Item,
    Sample,
    as_picture,
    load_image,
    load_mask,
    load_pixels,
    open_picture,
    read_mask,
    read_rgb,
    readable,
    readers,
    to_pixels,
    to_rgb,
    to_unit,
)
from dataset.layouts import layout_of
from dataset.registry import TRANSFER, ObjectInfo, barred, expand, find, locate, own_words, passed_over, words_note
from dataset.support import FewShotSet, Request, count, describe

__all__ = [
    "TRANSFER",
    "Batches",
    "FewShotSet",
    "ImageSet",
    "Item",
    "ObjectInfo",
    "Sample",
    "as_picture",
    "barred",
    "count",
    "describe",
    "expand",
    "find",
    "load_image",
    "load_mask",
    "load_pixels",
    "open_few",
    "open_picture",
    "open_test",
    "open_transfer",
    "own_words",
    "passed_over",
    "read_mask",
    "read_rgb",
    "readable",
    "readers",
    "to_pixels",
    "to_rgb",
    "to_unit",
    "words_note",
]


def open_few(
    obj: str,
    data_path: str | Path,
    shot: int,
    abnormal_shot: int | None = None,
    iterate: int = 0,
    seed: int = 111,
    classname: str | None = None,
    use_seed_files: bool = True,
) -> FewShotSet:
    """The few-shot set of one object: k normal and `abnormal_shot` (None: k) abnormal support images, and
    the test images.

    `iterate` >= 0 takes that line of `fewshot_seed/OBJ/K-shot.txt` where the file exists; otherwise names are
    drawn with `seed`. `use_seed_files` False says that the images only stand in for the benchmark's (the
    demo's), so its stored selections and published counts do not apply. Raises InputError naming the file of
    any fault ("Few-shot training").
    """
    request = Request(shot, abnormal_shot, iterate, seed, use_seed_files)
    info = find(obj, data_path, classname)
    if not use_seed_files:
        info = replace(info, test=None, valid=None)
    root = locate(info, data_path)
    return _reader(info, root).open_few(info, root, request)


def open_test(obj: str, data_path: str | Path, classname: str | None = None) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """One object's record (masks decided) and its test split; InputError naming the file of any fault."""
    info = find(obj, data_path, classname)
    root = locate(info, data_path)
    return _reader(info, root).open_test(info, root)


def open_transfer(
    obj: str, data_path: str | Path, required: bool = True
) -> list[tuple[ObjectInfo, tuple[Sample, ...]]]:
    """Records and test splits of the other medical objects found ("Zero-shot transfer"), if `required` at least one."""
    return medical.open_transfer(obj, Path(data_path), required)


def _reader(info: ObjectInfo, root: Path) -> ModuleType:
    """The module that reads this object's layout; own data shows its layout by its folders."""
    layout = layout_of(root) if info.layout == "own" else info.layout
    return medical if layout == "medical" else industrial

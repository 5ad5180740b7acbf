"""All files of an object's tree, whether or not a run could read it: what `dataset.check` looks at.

The readers stop at the first fault; this goes on, so that all faults can be named at once.
"""

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dataset.folders import GOOD, images_in, layout_of, match_masks, subfolder, subfolders
from dataset.images import Sample
from dataset.medical_few import MASK_FOLDERS
from dataset.registry import ObjectInfo
from errors import InputError


@dataclass
class Listing:
    """Samples by split ("train", "valid", "test"), and the files that do not fit together."""

    layout: str
    splits: dict[str, list[Sample]] = field(default_factory=dict)
    bare: list[Path] = field(default_factory=list)  # abnormal images without a mask where others have one
    strays: list[Path] = field(default_factory=list)  # masks without an image
    doubled: list[Path] = field(default_factory=list)  # images with several masks
    missing: list[Path] = field(default_factory=list)  # named in a table, not there
    unnamed: list[Path] = field(default_factory=list)  # there, not named in the table

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Every sample with its split."""
        for split, samples in self.splits.items():
            for sample in samples:
                yield split, sample

    def add(self, split: str, images: list[Path], label: int, masks: list[Path] | None = None) -> None:
        """Note images of a split; `masks` None: these images need none."""
        rows = self.splits.setdefault(split, [])
        if masks is None:
            rows += [Sample(image, label) for image in images]
            return
        match = match_masks(images, masks)
        rows += [Sample(image, label, match.pairs.get(image)) for image in images]
        self.bare += match.bare
        self.strays += match.strays
        self.doubled += match.doubled


def list_tree(info: ObjectInfo, root: Path) -> Listing:
    """What is in the folder of an object; `info.masks` None: masks wherever there are some."""
    layout = (layout_of(root) if info.layout in ("own", "visa") else info.layout) or "mvtec"
    listing = Listing(layout)
    {"medical": _medical, "visa": _visa}.get(layout, _mvtec)(info, root, listing)
    return listing


def _files(folder: Path | None) -> list[Path]:
    """Images in a folder, none if there is no such folder or nothing in it."""
    with suppress(InputError):
        return images_in(folder) if folder else []
    return []


def _medical(info: ObjectInfo, root: Path, listing: Listing) -> None:
    ungood = {split: subfolder(subfolder(root, split) or root / split, "Ungood") for split in ("valid", "test")}
    drawn = {split: subfolder(folder, *MASK_FOLDERS) for split, folder in ungood.items() if folder}
    masks = any(drawn.values()) if info.masks is None else info.masks
    for split, folder in ungood.items():
        good = subfolder(subfolder(root, split) or root / split, "good")
        listing.add(split, _files(good), 0)
        listing.add(split, _files(folder), 1, _files(drawn.get(split)) if masks else None)


def _mvtec(info: ObjectInfo, root: Path, listing: Listing) -> None:
    train, test, truth = (subfolder(root, name) for name in ("train", "test", "ground_truth"))
    masks = truth is not None if info.masks is None else info.masks
    listing.add("train", _files(subfolder(train, *GOOD)) if train else [], 0)
    kinds = subfolders(test) if test else []
    for kind in kinds:
        good = kind.name.lower() in GOOD
        drawn = None if good or not masks else _files(truth and subfolder(truth, kind.name))
        listing.add("test", _files(kind), int(not good), drawn)
    known = {kind.name.lower() for kind in kinds}.union(GOOD)
    for folder in subfolders(truth) if truth and masks else []:
        listing.strays += [] if folder.name.lower() in known else _files(folder)


def _visa(info: ObjectInfo, root: Path, listing: Listing) -> None:
    root = root.resolve() if root.name in ("", "..") else root
    table, named = root.parent / "split_csv" / "1cls.csv", set()
    rows = []
    if table.is_file():
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.DictReader(file) if row.get("object") == root.name]
    for row in rows:
        image, mask = (table.parent.parent / row[name] if row.get(name) else None for name in ("image", "mask"))
        there = [path for path in (image, mask) if path and path.is_file()]
        listing.missing += [path for path in (image, mask) if path and path not in there]
        named.update(there)
        if image in there:
            abnormal = row.get("label") == "anomaly"
            kept = mask if abnormal and mask in there else None
            listing.splits.setdefault(row.get("split") or "test", []).append(Sample(image, int(abnormal), kept))
            if abnormal and not mask and info.masks is not False:
                listing.bare.append(image)
    pictures = subfolder(root / "Data", "Images")
    for kind in subfolders(pictures) if pictures else []:
        listing.unnamed += [path for path in _files(kind) if path not in named]
    masks = subfolder(root / "Data" / "Masks", "Anomaly")
    listing.strays += [path for path in _files(masks) if path not in named]

"""Folders of images: found whatever their case, listed, and masks paired with images by name."""

import os
from dataclasses import dataclass
from pathlib import Path

from errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
GOOD = ("good", "ok")
EXPECTED = (
    "test/good and test/Ungood with valid/good (medical), train/good and test/DEFECT (MVTec AD), "
    "or Data/Images with ../split_csv/1cls.csv (VisA)"
)


def subfolder(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is a folder in `folder`, whatever its case; None if there is none.

    Raises InputError when two folders differ only by case, since reading one would hide the other.
    """
    if not folder.is_dir():
        return None
    present = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    for name in names:
        hits = sorted(found for found in present if found.lower() == name.lower())
        if len(hits) > 1:
            raise InputError(f"{folder} holds both {hits[0]} and {hits[1]}: put their images into one of them")
        if hits:
            return folder / hits[0]
    return None


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, hidden ones left out, sorted by name."""
    return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and _visible(entry.name))


def layout_of(folder: Path) -> str | None:
    """Which layout a folder has: "medical", "mvtec", "visa", or None."""
    data = subfolder(folder, "Data")
    if data and subfolder(data, "Images"):
        return "visa"
    test = subfolder(folder, "test")
    if test is None:
        return None
    ungood = subfolder(test, "Ungood")
    kinds = {kind.name.lower() for kind in subfolders(test)}
    if subfolder(folder, "train") and kinds.difference(GOOD, ["ungood"]):
        return "mvtec"  # its own `valid`, if there is one, is of no use here
    # Ungood/img is medical even without `valid`, so that its masks are not passed over as MVTec's would be.
    if subfolder(folder, "valid") or (ungood and subfolder(ungood, "img")):
        return "medical"
    if subfolder(folder, "train") or subfolder(folder, "ground_truth"):
        return "mvtec"
    # Only a test split: enough for scoring.
    if ungood:
        return "medical"
    return "mvtec" if kinds else None


def images_in(folder: Path) -> list[Path]:
    """The image files of `folder` (of `folder/img` where that exists), sorted by name.

    Suffixes in any case; hidden files, Thumbs.db and other kinds are passed over. Raises InputError if none
    is left.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: put images there (tree: data/readme.md)")
    folder = subfolder(folder, "img") or folder
    files = sorted(entry.name for entry in os.scandir(folder) if _visible(entry.name) and not entry.is_dir())
    images = [folder / name for name in files if name.lower().endswith(SUFFIXES)]
    if not images:
        kinds = " ".join(suffix[1:] for suffix in SUFFIXES)
        others = f" (only other files, such as {files[0]})" if files else ""
        raise InputError(f"{folder} has no images{others}: put images there ({kinds}) or remove the folder")
    return images


@dataclass(frozen=True)
class Match:
    """Which mask is whose: pairs by image; images without a mask or with several; masks without an image."""

    pairs: dict[Path, Path]
    bare: list[Path]
    doubled: dict[Path, list[Path]]
    strays: list[Path]


def match_masks(images: list[Path], masks: list[Path]) -> Match:
    """Find every image's mask by name: the image's own, or its stem with another suffix, or its stem and `_mask`."""
    left = {mask.name: mask for mask in masks}
    pairs = {image: left.pop(image.name) for image in images if image.name in left}
    by_stem: dict[str, list[Path]] = {}
    for mask in left.values():
        by_stem.setdefault(mask.stem, []).append(mask)
    doubled = {}
    for image in images:
        if image in pairs:
            continue
        hits = by_stem.pop(image.stem, []) or by_stem.pop(f"{image.stem}_mask", [])
        for hit in hits:
            del left[hit.name]
        if len(hits) > 1:
            doubled[image] = hits
        elif hits:
            pairs[image] = hits[0]
    bare = [image for image in images if image not in pairs and image not in doubled]
    return Match(pairs, bare, doubled, sorted(left.values()))


def pair_masks(images: list[Path], folder: Path) -> list[Path]:
    """The mask of every image, in the images' order, found by name in `folder` (`match_masks`).

    Raises InputError naming an image without a mask, a mask without an image, or two masks for one image.
    """
    match = match_masks(images, images_in(folder))
    for image, hits in match.doubled.items():
        raise InputError(f"{image} has two masks, {hits[0].name} and {hits[1].name} in {folder}: remove one")
    if bare := match.bare:
        raise InputError(
            f"{bare[0]} has no mask in {folder}{_more(bare)}: add {bare[0].stem}.png there, or take the image away"
        )
    if strays := match.strays:
        raise InputError(f"{strays[0]} is a mask without an image{_more(strays)}: add the image or remove the mask")
    return [match.pairs[image] for image in images]


def _more(files: list[Path]) -> str:
    return f" ({len(files)} such files)" if len(files) > 1 else ""


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() != "thumbs.db"

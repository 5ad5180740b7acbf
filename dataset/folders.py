"""Folders of images: found whatever their case, listed, and masks paired with images by name."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
GOOD = ("good", "ok")
BARE, STRAY = "abnormal image without a mask", "mask without an image"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file or folder, as the one line that a run ends with.

    `what` is the same for all files that it is true of; "": about a whole folder.
    """

    file: Path
    line: str
    what: str = ""


# Takes each fault that a reader meets. A run's is `stop`; one that returns has the reader go on without the file.
FaultHandler = Callable[[Fault], None]


def stop(fault: Fault) -> None:
    """End a run at its first fault, as InputError."""
    raise InputError(fault.line)


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


def descend(folder: Path, *paths: str) -> Path | None:
    """The first of `paths` ("label/Ungood") that is a folder below `folder`, whatever the case of its parts; or None.

    Raises InputError as `subfolder`.
    """
    for path in paths:
        place: Path | None = folder
        for part in path.split("/"):
            place = place and subfolder(place, part)
        if place:
            return place
    return None


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, hidden ones left out, sorted by name."""
    return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and _visible(entry.name))


def images_in(folder: Path, report: FaultHandler = stop) -> list[Path]:
    """The image files of `folder` (of `folder/img` where that exists), sorted by name.

    Suffixes in any case; hidden files, Thumbs.db and other kinds are passed over. Reports a folder that is missing
    or has no image; raises InputError for two folders `img` that differ by case.
    """
    if not folder.is_dir():
        report(Fault(folder, f"no folder {folder}: put images there (tree: data/readme.md)"))
        return []
    folder = subfolder(folder, "img") or folder
    files = sorted(entry.name for entry in os.scandir(folder) if _visible(entry.name) and not entry.is_dir())
    images = [folder / name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        kinds = " ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        others = f" (only other files, such as {files[0]})" if files else ""
        report(Fault(folder, f"{folder} has no images{others}: put images there ({kinds}) or remove the folder"))
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


def pair_masks(images: list[Path], folder: Path, report: FaultHandler = stop) -> list[Path | None]:
    """The mask of every image, in the images' order, found by name in `folder` (`match_masks`).

    Reports images without a mask (None in the list), masks without an image, and images with two masks.
    """
    match = match_masks(images, images_in(folder, report))
    for image, hits in match.doubled.items():
        line = f"{image} has two masks, {hits[0].name} and {hits[1].name} in {folder}: remove one"
        report(Fault(image, line, "image with several masks"))
    for image in match.bare:
        line = f"{image} has no mask in {folder}{_more(match.bare)}"
        report(Fault(image, f"{line}: add {image.stem}.png there, or take the image away", BARE))
    for mask in match.strays:
        line = f"{mask} is a mask without an image{_more(match.strays)}: add the image or remove the mask"
        report(Fault(mask, line, STRAY))
    return [match.pairs.get(image) for image in images]


def _more(files: list[Path]) -> str:
    return f" ({len(files)} such files)" if len(files) > 1 else ""


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() != "thumbs.db"

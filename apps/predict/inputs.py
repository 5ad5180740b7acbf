"""What predict.py reads: files found by name, folder or pattern, and each opened as pictures of whatever kind it is."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from apps.predict import dicom, volumes
from apps.predict.roi import RegionMasks
from apps.predict.volumes import Stack
from dataset import open_picture, read_mask, readable
from dataset.folders import IMAGE_SUFFIXES
from runtime.errors import InputError
from runtime.files import suffix_of

VOLUMES = (*volumes.NIFTI, *volumes.NRRD)
KINDS = "png jpg bmp tif webp, dcm, nii nii.gz, nrrd"
WRITTEN = ("maps", "overlays", "masks", "images", "charts", "volumes", "segmentations")  # folders in --output
MASK_FOLDERS = ("anomaly_mask", "label", "ground_truth", "masks")


def kind_of(path: Path) -> str | None:
    """ "image", "dicom" or "volume"; None for a file of another kind."""
    suffix = suffix_of(path).lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VOLUMES:
        return "volume"
    return "dicom" if dicom.is_dicom(path) else None


def real(path: Path) -> Path:
    """Where a path really leads; one that leads back to itself stays as it is."""
    return Path(os.path.realpath(path))


def find(inputs: Sequence[str], output: Path | None = None, option: str = "--input") -> list[Path]:
    """The files that names, folders (with all below them) and patterns stand for, each once, sorted within each.

    In folders, hidden files, folders of masks and all that lies in `output` are passed over, in patterns what a run
    wrote to `output`. How many files are left out for what reason is printed. Raises InputError for a name that is not
    there or of no kind that is read, for an `output` that is the input, and when nothing is left; `option` is where it
    was given.
    """
    found: dict[Path, Path] = {}  # by where a file really is, whatever links lead there
    passed: Counter[str] = Counter()
    barred = set() if output is None else {real(output) / name for name in WRITTEN}
    seen = barred if output is None else barred | {real(output)}
    for name in inputs:
        for file in _named(name, output, option, barred, seen):
            if not file.is_file():
                passed["that are pipes or devices, or links to nothing"] += 1
            elif kind_of(file) is None:
                passed[f"of no kind that is read ({KINDS})"] += 1
            elif found.setdefault(real(file), file) != file:
                passed["that are there under another name"] += 1
    for reason, count in passed.items():
        print(f"{option}: {count} files passed over {reason}")
    if not found:
        raise InputError(f"{option} {' '.join(inputs)} has no images ({KINDS})")
    return list(found.values())


def _named(name: str, output: Path | None, option: str, barred: set[Path], seen: set[Path]) -> Iterator[Path]:
    """The files, of whatever kind, that one name stands for.

    barred: folders that a run writes to; seen: those not to go into, and grows.
    """
    path = Path(name)
    if path.is_dir():
        if output is not None and real(path) == real(output):
            raise InputError(f"--output {output} is the input folder: name another, or one below it")
        yield from _inside(path, seen)
    elif path.is_file():
        if kind_of(path) is None:
            raise InputError(f"{option} {path} is of no kind that is read ({KINDS})")
        yield path
    else:
        hits = sorted(map(Path, glob.glob(name, recursive=True)))  # noqa: PTH207  (absolute patterns too)
        if not hits:
            raise InputError(f"{option} {name} is not there: give a file, a folder, or a pattern in quotes")
        yield from _below((hit for hit in hits if barred.isdisjoint(real(hit).parents)), seen)


def _inside(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files of a folder and all folders in it, but for those passed over."""
    seen.add(real(folder))
    yield from _below((path for path in sorted(folder.iterdir()) if not path.name.startswith(".")), seen)


def _below(paths: Iterable[Path], seen: set[Path]) -> Iterator[Path]:
    """Those of the paths that are no folders, and what is in those that are, each folder once."""
    for path in paths:
        if not path.is_dir():
            yield path
        elif path.name.lower() not in MASK_FOLDERS and real(path) not in seen:
            yield from _inside(path, seen)


def same_files(files: Iterable[Path], others: Iterable[Path]) -> list[Path]:
    """Those of the files that are among the others too, whatever they are called there."""
    known = {real(other) for other in others}
    return [file for file in files if real(file) in known]


def check_packages(files: Sequence[Path]) -> None:
    """Raise InputError, with the line that installs it, for a package that one of the files needs and is not there."""
    for suffix in sorted({suffix_of(file).lower() for file in files if kind_of(file) == "volume"}):
        volumes.package("nrrd" if suffix in volumes.NRRD else "nibabel")
    if any(kind_of(file) == "dicom" for file in files):
        volumes.package("pydicom")


def of_image(picture: Image.Image) -> Stack:
    """An image file's picture."""
    return Stack([picture], shown=volumes.DEEP if picture.mode == "F" else volumes.AS_STORED)


@dataclass(frozen=True)
class Reader:
    """How files are opened: the volumes' axis, the window of DICOM files and volumes, where masks of regions lie."""

    axis: int = 2
    window: tuple[float, float] | None = None
    masks: RegionMasks | None = None

    def open(self, path: Path) -> Stack:
        """The pictures of a file. Raises InputError, in one line that names it, if it can't be read."""
        kind = kind_of(path)
        if kind == "image":
            return of_image(open_picture(path))
        with readable(path):
            if kind == "dicom":
                return dicom.open_stack(path, self.window)
            return volumes.open_stack(path, self.axis, self.window)

    def region(self, path: Path, stack: Stack) -> np.ndarray | None:
        """What counts of a file's pictures, bool (N, H, W); None: everything.

        Raises InputError if its mask is missing, another input's too, of another size, or empty.
        """
        if self.masks is None:
            return None
        file = self.masks.of(path)
        shape = (len(stack.pictures), *stack.pictures[0].size[::-1])
        with readable(file):
            if kind_of(file) == "volume":
                marked = volumes.open_labels(file, path if kind_of(path) == "volume" else file, self.axis)
            else:
                flat = read_mask(file)
                marked = np.broadcast_to(flat, (shape[0], *flat.shape))
        if marked.shape != shape:
            sizes = ["x".join(map(str, one)) for one in (marked.shape, shape)]
            raise InputError(f"{path}: its mask {file} is {sizes[0]}, it is {sizes[1]} (slices x height x width)")
        if not marked.any():
            raise InputError(f"{path}: its mask {file} marks nothing: mark what is to be looked at")
        return marked

"""What predict.py reads: files found by name, folder or pattern, and each opened as pictures of whatever kind it is."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset import open_picture, read_mask, readable
from dataset.folders import SUFFIXES
from errors import InputError
from files import suffix_of
from verdict import dicom, volumes
from verdict.volumes import Stack

VOLUMES = (*volumes.NIFTI, *volumes.NRRD)
KINDS = "png jpg bmp tif webp, dcm, nii nii.gz, nrrd"
MASK_FOLDERS = ("anomaly_mask", "label", "ground_truth", "masks")


def kind_of(path: Path) -> str | None:
    """ "image", "dicom" or "volume"; None for a file of another kind."""
    suffix = suffix_of(path).lower()
    if suffix in SUFFIXES:
        return "image"
    if suffix in VOLUMES:
        return "volume"
    return "dicom" if dicom.is_dicom(path) else None


def find(inputs: Sequence[str], output: Path | None = None, option: str = "--input") -> list[Path]:
    """The files that names, folders (with all below them) and patterns stand for, each once, sorted within each.

    In folders, hidden files, folders of masks and all that lies in `output` are passed over. Raises InputError for
    a name that is not there or of no kind that is read, and when nothing is left; `option` is where it was given.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = [file for file in _below(path, output) if kind_of(file)]
        elif path.is_file():
            if kind_of(path) is None:
                raise InputError(f"{option} {path} is of no kind that is read ({KINDS})")
            files = [path]
        else:
            hits = sorted(map(Path, glob.glob(name, recursive=True)))  # noqa: PTH207  (absolute patterns too)
            files = [file for file in hits if file.is_file() and kind_of(file)]
            if not hits:
                raise InputError(f"{option} {name} is not there: give a file, a folder, or a pattern in quotes")
        found |= dict.fromkeys(files)
    if not found:
        raise InputError(f"{option} {' '.join(inputs)} has no images ({KINDS})")
    return list(found)


def check_packages(files: Sequence[Path]) -> None:
    """Raise InputError, with the line that installs it, for a package that one of the files needs and is not there."""
    for suffix in sorted({suffix_of(file).lower() for file in files if kind_of(file) == "volume"}):
        volumes.package("nrrd" if suffix in volumes.NRRD else "nibabel")
    if any(kind_of(file) == "dicom" for file in files):
        volumes.package("pydicom")


def _below(folder: Path, output: Path | None) -> list[Path]:
    """Files of a folder and all folders in it, but for those passed over."""
    barred = None if output is None else output.resolve()
    files = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.resolve() == barred:
            continue
        if path.is_dir():
            files += [] if path.name.lower() in MASK_FOLDERS else _below(path, output)
        elif path.is_file():
            files.append(path)
    return files


@dataclass(frozen=True)
class Reader:
    """How files are opened: the volumes' axis, the window of DICOM files and volumes, where masks of regions lie."""

    axis: int = 2
    window: tuple[float, float] | None = None
    roi: Path | None = None

    @staticmethod
    def of(axis: int, window: Sequence[float] | None, roi: Path | None) -> "Reader":
        """A reader, or InputError when the folder of masks is not there."""
        if roi is not None and not roi.is_dir():
            raise InputError(f"--roi {roi} is no folder: give the one that holds the masks")
        return Reader(axis, None if window is None else tuple(window), roi)

    def open(self, path: Path) -> Stack:
        """The pictures of a file. Raises InputError, in one line that names it, if it can't be read."""
        kind = kind_of(path)
        if kind == "image":
            return Stack([open_picture(path)])
        with readable(path):
            if kind == "dicom":
                return dicom.open_stack(path, self.window)
            return volumes.open_stack(path, self.axis, self.window)

    def region(self, path: Path, stack: Stack) -> np.ndarray | None:
        """What counts of a file's pictures, bool (N, H, W); None: everything.

        Raises InputError if its mask is missing, of another size, or empty.
        """
        if self.roi is None:
            return None
        file = self._mask_file(path)
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

    def _mask_file(self, path: Path) -> Path:
        """The mask of the file's own name, or of its stem, alone or with _mask."""
        stem = path.name.removesuffix(suffix_of(path))
        same = self.roi / path.name
        if same.is_file() and kind_of(same) != "dicom":
            return same
        hits = [
            file
            for file in sorted(self.roi.iterdir())
            if file.name.removesuffix(suffix_of(file)) in (stem, f"{stem}_mask")
            and kind_of(file) in ("image", "volume")
        ]
        if len(hits) != 1:
            what = f"several masks in {self.roi}, such as {hits[0].name}" if hits else f"no mask in {self.roi}"
            raise InputError(f"{path} has {what}: put there one of its own name")
        return hits[0]

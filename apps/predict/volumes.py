"""Volumes as slices to score: NIfTI and NRRD read along an axis, and map volumes written with the same geometry."""

import gzip
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from runtime.errors import InputError
from runtime.files import atomic_write, suffix_of

NIFTI, NRRD = (".nii", ".nii.gz"), (".nrrd",)
PACKAGES = {"nibabel": "NIfTI", "nrrd": "NRRD", "pydicom": "DICOM", "highdicom": "DICOM SEG"}
RAS_SIGNS = {"l": -1, "r": 1, "p": -1, "a": 1, "i": -1, "s": 1}  # letters of an NRRD space, as signs of RAS
MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3, "meter": 1000.0, "micron": 1e-3}  # by a unit's name
SHOWN_TOWARDS = "LPI"  # columns and rows of a slice run towards the patient's left, back or feet


# How stored values became what is seen.
AS_STORED, DEEP = "8 bits as they are stored", "16 bits or floats over the whole range of their kind"
BY_WINDOW, BY_HEADER = "the intensities of --window", "the DICOM header's window"
BY_FILE = "each file from its lowest to its highest value"
PLANES = {"R": "sagittal", "A": "coronal", "S": "axial"}  # by where their normal leads, forth or back


class Frames(Sequence[Image.Image]):
    """Slices (N, H, W), float32 grey in [0, 1] or uint8, or (N, H, W, 3) uint8 RGB, made pictures when asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, number: int) -> Image.Image:
        picture = Image.fromarray(np.ascontiguousarray(self.values[number]))
        return picture.convert("RGB") if picture.mode == "L" else picture  # as an image file of the same pixels


@dataclass(frozen=True)
class Stack:
    """What a file holds: pictures as `dataset.open_picture` gives them.

    several: they are slices of a volume or frames. save: writes their maps (N, H, W) float32 as a volume of the same
    geometry, to a path without suffix, and gives the file; None where a file has no such geometry. segment: the same of
    what is marked in them, bool (N, H, W); InputError where that can't be. spacing: mm from row to row and from column
    to column, None where nobody knows. source: what the file is known by elsewhere. shown: how values became what is
    seen. plane: how slices lie, empty where nobody knows.
    """

    pictures: Sequence[Image.Image]
    several: bool = False
    save: Callable[[Path, np.ndarray], Path] | None = None
    segment: Callable[[Path, np.ndarray], Path] | None = None
    spacing: tuple[float, float] | None = None
    source: Mapping[str, str | None] = field(default_factory=dict)
    shown: str = AS_STORED
    plane: str = ""


@dataclass(frozen=True)
class View:
    """How slices of a stored array (three axes) are shown: the axis they are cut along, the axes that run down and
    across in a slice, and which of these two run backwards.
    """

    axes: tuple[int, int, int]
    turned: tuple[int, ...] = ()  # of 1 (down) and 2 (across)

    def show(self, stored: np.ndarray) -> np.ndarray:
        """The stored array -> slices (N, H, W)."""
        return np.flip(stored.transpose(self.axes), self.turned)

    def store(self, slices: np.ndarray) -> np.ndarray:
        """Slices (N, H, W) -> as the array is stored."""
        return np.flip(slices, self.turned).transpose(np.argsort(self.axes))


@dataclass(frozen=True)
class Volume:
    """A file's array as stored, with a way to write another one in its place."""

    stored: np.ndarray  # three axes, float32
    view: View
    write: Callable[[Path, np.ndarray], Path]  # float32 or uint8
    plane: str = ""  # of its slices
    eight_bits: bool = False  # whether values are bytes, and mean no more than that
    steps: np.ndarray | None = None  # (3,), mm along each axis; None where nobody knows

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Mm from row to row and from column to column of a slice."""
        if self.steps is None:
            return None
        return float(self.steps[self.view.axes[1]]), float(self.steps[self.view.axes[2]])


def view_of(axis: int, directions: np.ndarray | None) -> View:
    """The view along `axis` that radiologists know: patient's right on the left, front up, or head up.

    directions: (3, 3), by column where an axis of the array leads in right-anterior-superior space. Without it, or if
    the axes can't be told apart, the first of the other two axes runs across, the second down.
    """
    across, down = (other for other in range(3) if other != axis)
    codes = None if directions is None else _codes(directions)
    if codes is None:
        return View((axis, down, across))
    order = "LRPAIS".index
    if order(codes[across]) > order(codes[down]):
        across, down = down, across
    turned = tuple(place for place, stored in ((1, down), (2, across)) if codes[stored] not in SHOWN_TOWARDS)
    return View((axis, down, across), turned)


def plane_of(axis: int, directions: np.ndarray | None) -> str:
    """The plane of slices along `axis` in the patient; directions as in `view_of`. By the axis where nobody knows."""
    codes = None if directions is None else _codes(directions)
    if codes is None:
        return f"along axis {axis}"
    return PLANES[codes[axis].translate(str.maketrans("LPI", "RAS"))]


def _codes(directions: np.ndarray) -> list[str] | None:
    """Where each axis mostly leads, as a letter of LRPAIS; None if two lead the same way."""
    if not np.isfinite(directions).all():
        return None
    world = np.abs(directions).argmax(axis=0)
    if len(set(world.tolist())) < 3:
        return None
    return [("LPI", "RAS")[int(directions[way, axis] > 0)][way] for axis, way in enumerate(world)]


def open_volume(path: Path, axis: int) -> Volume:
    """Read a NIfTI or NRRD file. Raises InputError for a file that holds no single grey volume."""
    return (_nrrd if suffix_of(path).lower() in NRRD else _nifti)(path, axis)


def open_stack(path: Path, axis: int, window: Sequence[float] | None) -> Stack:
    """The slices of a volume file, scaled over the volume (or by the window), and how to write their maps."""
    volume = open_volume(path, axis)
    if not np.isfinite(volume.stored).any():
        raise InputError(f"{path} holds no value that is a number: write it again")
    if window is None and volume.eight_bits:
        values, shown = volume.stored.astype(np.uint8), AS_STORED
    else:
        values, shown = unit_range(volume.stored, window), BY_FILE if window is None else BY_WINDOW
    return Stack(
        Frames(volume.view.show(bytes_of(values) if volume.eight_bits else values)),
        several=True,
        save=lambda to, maps: volume.write(to, volume.view.store(maps)),
        shown=shown,
        plane=volume.plane,
        segment=lambda to, marked: volume.write(to, volume.view.store(marked.astype(np.uint8))),
        spacing=volume.spacing,
    )


def open_labels(path: Path, like: Path, axis: int) -> np.ndarray:
    """A mask volume -> bool slices (N, H, W), shown as those of the volume file `like` are."""
    marked = open_volume(path, axis)
    return replace(marked, view=open_volume(like, axis).view).view.show(marked.stored > 0)


def unit_range(values: np.ndarray, window: Sequence[float] | None, counted: np.ndarray | None = None) -> np.ndarray:
    """Any values -> float32 in [0, 1]: the window (centre, width), or from the lowest to the highest finite one.

    counted: bool, which values the range is taken from. What is not a number becomes 0.
    """
    finite = np.isfinite(values)
    if window is None:
        known = values[finite if counted is None else finite & counted]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    else:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    if high <= low:
        return np.zeros(values.shape, np.float32)
    scaled = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1, dtype=np.float32)
    return scaled if finite.all() else np.where(finite, scaled, np.float32(0))


def bytes_of(values: np.ndarray) -> np.ndarray:
    """What is shown of bytes, in [0, 1] or as uint8 -> uint8, so that it is as an image file would hold it."""
    return values if values.dtype == np.uint8 else np.round(255 * values).astype(np.uint8)


def package(name: str) -> ModuleType:
    """An optional package; InputError with the line that installs it."""
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong with a file is said once, by us
    try:
        return importlib.import_module(name)
    except ImportError as fault:
        raise InputError(
            f"{PACKAGES[name]} files need the package {name}, which is not installed: "
            "pip install -r requirements/medical.txt"
        ) from fault


def _three_axes(shape: Sequence[int], path: Path) -> tuple[int, int, int]:
    """A shape without axes of length 1 beyond the third, and with them up to there."""
    kept = (*shape, 1, 1)[: max(3, len(shape))]
    if any(length != 1 for length in kept[3:]) or 0 in shape:
        raise InputError(f"{path} has the shape {'x'.join(map(str, shape))}, not one volume of three axes: split it")
    return kept[:3]


def _nifti(path: Path, axis: int) -> Volume:
    nibabel = package("nibabel")
    image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):  # Nifti2Image is one
        raise InputError(f"{path} is no NIfTI file of one piece: save it as .nii or .nii.gz")
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"{path} holds colours or complex numbers, not grey values: convert it")
    shape, header, affine = image.shape, image.header.copy(), image.affine
    if not np.isfinite(affine).all():
        raise InputError(f"{path} has an affine that is not finite: write its geometry again")
    with np.errstate(over="raise"):  # what float32 can't hold would become infinite, and so dark
        values = np.asarray(image.dataobj, np.float32)
    stored = values.reshape(_three_axes(shape, path), order="F")
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0

    def write(to: Path, maps: np.ndarray) -> Path:
        written = type(image)(maps.reshape(shape, order="F"), affine, header)
        written.set_data_dtype(maps.dtype)
        written.header["cal_min"] = written.header["cal_max"] = 0  # viewers then choose a window of their own
        content, suffix = written.to_bytes(), suffix_of(path).lower()
        to = to.with_name(to.name + suffix)
        with atomic_write(to) as draft:
            draft.write_bytes(gzip.compress(content, mtime=0) if suffix == ".nii.gz" else content)
        return to

    steps = np.ones(3) * MM.get(header.get_xyzt_units()[0], 1.0 if known else np.nan)
    zooms = header.get_zooms()[:3]
    steps[: len(zooms)] *= zooms
    directions, proxy = affine[:3, :3] if known else None, image.dataobj
    eight_bits = image.get_data_dtype() == np.uint8 and (proxy.slope, proxy.inter) == (1, 0)
    plane, lengths = plane_of(axis, directions), _lengths(steps)
    return Volume(stored, view_of(axis, directions), write, plane, eight_bits, lengths)


def _lengths(steps: np.ndarray) -> np.ndarray | None:
    """Steps (3,) in mm, None unless all are lengths."""
    return steps if np.isfinite(steps).all() and (steps > 0).all() else None


def _nrrd(path: Path, axis: int) -> Volume:
    nrrd = package("nrrd")
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        _check_place(header, path)
        array = nrrd.read_data(header, file, str(path))
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path} holds no grey values: convert it")
    with np.errstate(over="raise"):
        values = array.astype(np.float32)
    stored = values.reshape(_three_axes(array.shape, path), order="F")
    kept = {key: value for key, value in header.items() if key not in ("type", "encoding", "endian", "sizes")}

    def write(to: Path, maps: np.ndarray) -> Path:
        to = to.with_name(f"{to.name}.nrrd")
        with atomic_write(to) as draft:
            nrrd.write(str(draft), maps.reshape(array.shape, order="F"), kept)
        return to

    directions = _nrrd_directions(header)
    plane, eight_bits = plane_of(axis, directions), array.dtype == np.uint8
    return Volume(stored, view_of(axis, directions), write, plane, eight_bits, _nrrd_steps(header))


def _nrrd_steps(header: dict) -> np.ndarray | None:
    """(3,), mm along each axis: by the directions in a space, or by the spacings of axes that are given in units."""
    units = list(header.get("space units", header.get("units", ())))
    vectors = np.asarray(header.get("space directions", ()), float)
    if vectors.shape == (3, 3) and "space" in header:  # a named space is in mm unless it says otherwise
        scale = [MM.get(unit, np.nan) for unit in units] if len(units) == 3 else np.ones(3)
        return _lengths(np.linalg.norm(vectors * scale, axis=1))
    spacings = np.asarray(header.get("spacings", ()), float)
    if spacings.shape == (3,) and len(units) == 3:
        return _lengths(spacings * [MM.get(unit, np.nan) for unit in units])
    return None


def _check_place(header: dict, path: Path) -> None:
    """Raise InputError for a header that leads elsewhere than to itself or a file beside it, or past its end."""
    name = header.get("datafile", header.get("data file"))
    data = path if name is None else path.with_name(name) if Path(name).name == name else None
    if data is None or not data.is_file():
        raise InputError(f"{path} names the data file {name}, which is no file beside it: put that there, in one piece")
    lines, skipped = (header.get(f"{kind}skip", header.get(f"{kind} skip", 0)) for kind in ("line", "byte"))
    if lines > data.stat().st_size or (skipped < 0 and name is not None):
        raise InputError(f"{path} skips {lines} lines and {skipped} bytes of {data.name}: mend line skip and byte skip")


def _nrrd_directions(header: dict) -> np.ndarray | None:
    """(3, 3) in right-anterior-superior space, by column of an axis; None where the header does not say."""
    vectors = np.asarray(header.get("space directions", ()), float)
    space = str(header.get("space", "")).lower()
    letters = [word[:1] for word in space.split("-")] if "-" in space else list(space)
    if vectors.shape != (3, 3) or len(letters) != 3 or not set(letters) <= RAS_SIGNS.keys():
        return None
    if ["lr".find(letters[0]) >= 0, "pa".find(letters[1]) >= 0, "is".find(letters[2]) >= 0] != [True] * 3:
        return None
    return vectors.T * np.array([[RAS_SIGNS[letter]] for letter in letters])

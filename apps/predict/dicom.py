"""DICOM files as pictures: values rescaled, then windowed as the header or the user says; bright is high."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from apps.predict.segmentation import write_dicom
from apps.predict.volumes import (
    AS_STORED,
    BY_FILE,
    BY_HEADER,
    BY_WINDOW,
    Frames,
    Stack,
    bytes_of,
    package,
    plane_of,
    unit_range,
)
from runtime.errors import InputError

SUFFIX, MAGIC = ".dcm", b"DICM"  # the magic lies behind a preamble of 128 bytes

UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its suffix, or with another (1.2.840.10008, .ima) or none by its first bytes."""
    if path.suffix.lower() == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == MAGIC
    except OSError:
        return False


def open_stack(path: Path, window: Sequence[float] | None) -> Stack:
    """The frames of a DICOM file; `window` (centre, width), after rescaling, goes before the header's.

    Without either, grey values are scaled over the file. Raises InputError for a file without pixels.
    """
    pydicom = package("pydicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that break the standard and don't matter here
        dataset = pydicom.dcmread(path)
        if not dataset.get("PixelData") and not dataset.get("FloatPixelData"):
            raise InputError(f"{path} is a DICOM file without an image: leave it out")
        pixels = pydicom.pixels.pixel_array(dataset)
        count = int(dataset.get("NumberOfFrames") or 1)
        told = {"segment": partial(write_dicom, path), "spacing": _spacing(dataset, count), "source": _source(dataset)}
        several, colour = count > 1, int(dataset.get("SamplesPerPixel") or 1) > 1
        if pixels.ndim != 2 + several + colour or (several and len(pixels) != count):
            raise InputError(f"{path} holds more pixels than its header says: write it again")
        kind = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
        if kind == "PALETTE COLOR":
            pixels = pydicom.pixels.apply_color_lut(pixels, dataset)
        elif not colour:
            frames = pixels if several else pixels[None]
            values, shown = _grey(pydicom, dataset, frames, kind, window)
            return Stack(Frames(values), several, shown=shown, plane=_plane(dataset), **told)
    colours = (pixels if several else pixels[None])[..., :3]  # (N, H, W, 3), uint8, or uint16 over its whole range
    values = colours if colours.dtype == np.uint8 else (colours / 257).round().astype(np.uint8)
    return Stack(Frames(values), several, **told)


def _source(dataset: Any) -> dict[str, str | None]:
    """The UIDs that the file is known by."""
    return {name: str(dataset.get(name) or "") or None for name in UIDS}


def _spacing(dataset: Any, count: int) -> tuple[float, float] | None:
    """Mm from row to row and from column to column, in the patient or else at the detector; None without two lengths
    that all frames share."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = {_lengths(_of_frame(dataset, "PixelMeasuresSequence", name, number)) for number in range(count)}
        if found != {None}:
            return found.pop() if len(found) == 1 else None
    return None


def _lengths(value: Any) -> tuple[float, float] | None:
    try:
        down, across = map(float, value)
    except (TypeError, ValueError):
        return None
    return (down, across) if min(down, across) > 0 and max(down, across) < np.inf else None


def _grey(
    pydicom: Any, dataset: Any, frames: np.ndarray, kind: str, window: Sequence[float] | None
) -> tuple[np.ndarray, str]:
    """Stored values (N, H, W) -> float32 (N, H, W) in [0, 1], or uint8 of what is stored as bytes; and how."""
    shown, how = _brightness(pydicom, dataset, frames, window)
    if frames.dtype == np.uint8 and dataset.get("RescaleSlope", 1) == 1 and dataset.get("RescaleIntercept", 0) == 0:
        shown = bytes_of(shown)
        how = AS_STORED if np.array_equal(shown, frames) else how
        return 255 - shown if kind == "MONOCHROME1" else shown, how
    return 1 - shown if kind == "MONOCHROME1" else shown, how


def _brightness(
    pydicom: Any, dataset: Any, frames: np.ndarray, window: Sequence[float] | None
) -> tuple[np.ndarray, str]:
    """Stored values (N, H, W) -> (N, H, W) as windowed, and by what."""
    values = np.stack([_rescaled(pydicom, dataset, frame, number) for number, frame in enumerate(frames)])
    windows = [_window(dataset, number) for number in range(len(values))]
    if window is not None:
        return unit_range(values, window), BY_WINDOW
    if "VOILUTSequence" in dataset:
        table = dataset.VOILUTSequence[0]
        looked_up = pydicom.pixels.apply_voi(values.astype(np.int64), dataset)
        return (looked_up / (2 ** int(table.LUTDescriptor[2]) - 1)).astype(np.float32).clip(0, 1), BY_HEADER
    if None not in windows:
        return np.stack([_windowed(frame, *own) for frame, own in zip(values, windows, strict=True)]), BY_HEADER
    if frames.dtype == np.uint8 and np.array_equal(values, frames):
        return frames, AS_STORED
    padding = dataset.get("PixelPaddingValue")
    return unit_range(values, None, None if padding is None else frames != int(padding)), BY_FILE


def _plane(dataset: Any) -> str:
    """The plane of the image in the patient; empty where the header does not say."""
    try:
        ways = np.array(dataset.get("ImageOrientationPatient"), float).reshape(2, 3)  # of rows and columns, in LPS
    except (TypeError, ValueError):
        return ""
    found = plane_of(2, np.column_stack([*ways, np.cross(*ways)]))
    return "" if found.startswith("along") else found


def _window(dataset: Any, number: int) -> tuple[float, float, str | None] | None:
    """A frame's window in the header, centre, width and function; None without one of a width above 0."""
    centre, width = (_number(dataset, "FrameVOILUTSequence", name, number) for name in ("WindowCenter", "WindowWidth"))
    function = _of_frame(dataset, "FrameVOILUTSequence", "VOILUTFunction", number)
    return None if centre is None or width is None or width <= 0 else (centre, width, function)


def _rescaled(pydicom: Any, dataset: Any, frame: np.ndarray, number: int) -> np.ndarray:
    """One frame's stored values -> what they stand for (Hounsfield units, ...), float32."""
    if "ModalityLUTSequence" in dataset:
        return pydicom.pixels.apply_modality_lut(frame, dataset).astype(np.float32)
    slope, intercept = (
        _number(dataset, "PixelValueTransformationSequence", name, number)
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    if slope == 0:
        raise ValueError("its RescaleSlope is 0")
    values = frame.astype(np.float32)
    return values if slope is None else values * np.float32(slope) + np.float32(intercept or 0)


def _windowed(values: np.ndarray, centre: float, width: float, function: str | None) -> np.ndarray:
    """One frame's values -> [0, 1] by its window (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    centre, width = np.float32(centre), np.float32(width)
    if function == "SIGMOID":
        return (1 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32)
    if function != "LINEAR_EXACT":
        centre, width = centre - np.float32(0.5), max(width - 1, np.finfo(np.float32).tiny)
    return np.clip((values - centre) / width + np.float32(0.5), 0, 1)


def _of_frame(dataset: Any, group: str, name: str, number: int) -> Any:
    """An attribute of the file, or of one of its frames by the functional groups; None if it has none."""
    if name in dataset:
        return dataset[name].value
    own, shared = (dataset.get(f"{kind}FunctionalGroupsSequence") for kind in ("PerFrame", "Shared"))
    for groups in ([own[number]] if own and number < len(own) else []) + list(shared or []):
        if group in groups and groups[group][0].get(name) is not None:
            return groups[group][0].get(name)
    return None


def _number(dataset: Any, group: str, name: str, number: int) -> float | None:
    """A number as `_of_frame` finds it, the first of several; ValueError for one that float32 does not hold."""
    value = _of_frame(dataset, group, name, number)
    if value is None or value == "":
        return None
    found = float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
    if not abs(found) <= np.finfo(np.float32).max:
        raise ValueError(f"its {name} is {found:g}")
    return found

"""What abnormal regions are handed on as: a DICOM SEG or a mask volume of the input's geometry, and a JSON beside it.

A viewer shows a SEG over the image that it refers to. It holds one segment, made by an algorithm: the regions at or
above the pixel threshold of the images called abnormal, of whatever kind, and so no diagnosis.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.predict.volumes import Stack, package
from engine.findings import Finding, Resemblance, plain
from report.findings import NO_DIAGNOSIS
from runtime.environment import code_sha256
from runtime.errors import InputError
from runtime.files import atomic_write

FOLDER = "segmentations"  # in --output
MOST = 50  # regions of a picture in scores.csv; a file's JSON has all
LABEL, MAKER, SERIES = "anomaly region", "ClipMPCAD", 9900
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)


@dataclass(frozen=True)
class ScoredSlice:
    """A picture of a file as its JSON tells it: its place in the file, None for the only one; score; its regions, none
    of a normal one; marked: bool (H, W), their pixels."""

    slice: int | None
    score: float
    abnormal: bool
    findings: tuple[Finding, ...]
    marked: np.ndarray

    def cell(self) -> str:
        """The findings as a cell of scores.csv: a JSON list of at most `MOST`; empty of a normal picture."""
        return json.dumps(plain(self.findings[:MOST]), ensure_ascii=False) if self.abnormal else ""


def read_cell(text: str) -> list[dict[str, Any]]:
    """What `ScoredSlice.cell` wrote; nothing of an empty text.

    Raises KeyError, TypeError or ValueError for what it never wrote.
    """
    found = json.loads(text) if text else []
    for one in found:
        kept = {"box": tuple(one["box"]), "resembles": tuple(Resemblance(**part) for part in one["resembles"])}
        Finding(**{**one, **kept})
    return found


def save(folder: Path, name: str, file: Path, stack: Stack, slices: Sequence[ScoredSlice], thresholds: dict) -> str:
    """Write a file's segmentation, if something is marked or it is a volume, and its JSON; why there is no
    segmentation, in a sentence, where there should be one."""
    to, why, made = folder / FOLDER / name, "", None
    to.parent.mkdir(parents=True, exist_ok=True)
    marked = np.stack([one.marked for one in slices])
    if stack.several or marked.any():
        try:
            made = stack.segment(to, marked).name
        except InputError as fault:
            why = str(fault)
    written = {"segmentation": made, "no_segmentation_because": why or None}
    content = _content(file, stack, slices) | thresholds | written
    with atomic_write(to.with_name(f"{name}.json")) as draft:
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="replace")
    return why


def _content(file: Path, stack: Stack, slices: Sequence[ScoredSlice]) -> dict[str, Any]:
    return {
        "file": str(file),
        "note": f"regions of an anomaly map at or above the pixel threshold; {NO_DIAGNOSIS}",
        "source": stack.source,
        "rows": slices[0].marked.shape[0],
        "columns": slices[0].marked.shape[1],
        "spacing_mm": stack.spacing,
        "images": [
            {"slice": one.slice, "score": one.score, "verdict": "abnormal" if one.abnormal else "normal"}
            | {"regions": plain(one.findings)}
            for one in slices
        ],
    }


def write_dicom(source: Path, to: Path, marked: np.ndarray) -> Path:
    """Write what is marked, bool (N, H, W), in a DICOM file's frames as a DICOM SEG beside `to`, and give its path.

    Raises InputError, in one line, without highdicom and for a file that lacks what a SEG must say.
    """
    highdicom, pydicom = package("highdicom"), package("pydicom")
    to = to.with_name(f"{to.name}.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that break the standard and don't matter here
        found = pydicom.dcmread(source, stop_before_pixels=True)
        _check(found, source)
        try:
            made = _segmentation(highdicom, pydicom, found, marked)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as fault:
            raise InputError(f"{source}: no DICOM SEG can be made of it ({_reason(fault)})") from fault
        with atomic_write(to) as draft:
            made.save_as(draft)
    return to


def _check(found: Any, source: Path) -> None:
    """Raise InputError for what is missing; what may be empty and is missing becomes empty."""
    needed = (*NEEDED, "ImagePositionPatient") if "ImageOrientationPatient" in found else NEEDED
    if missing := [name for name in needed if not found.get(name)]:
        raise InputError(f"{source}: no DICOM SEG can be made of it (it has no {', '.join(missing)})")
    for name in MAY_BE_EMPTY:
        if name not in found:
            setattr(found, name, "")


def _reason(fault: Exception) -> str:
    """A fault in words; of an attribute that is missing its name."""
    name = getattr(fault, "name", None)
    missing = isinstance(fault, AttributeError) and name
    return f"it has no {name}" if missing else " ".join(str(fault).split()).rstrip(".")


def _segmentation(highdicom: Any, pydicom: Any, found: Any, marked: np.ndarray) -> Any:
    """The SEG. Its UIDs depend on the image and on what is marked: the same again has the same ones."""
    codes, seg, version = pydicom.sr.codedict.codes, highdicom.seg, code_sha256()[:12]
    by = highdicom.AlgorithmIdentificationSequence(MAKER, codes.DCM.ArtificialIntelligence, version)
    kind = codes.SCT.MorphologicallyAbnormalStructure
    segment = seg.SegmentDescription(1, LABEL, kind, kind, seg.SegmentAlgorithmTypeValues.AUTOMATIC, by)
    content = hashlib.sha256(np.packbits(marked).tobytes()).hexdigest()
    made = seg.Segmentation(
        source_images=[found],
        pixel_array=marked.astype(np.uint8),
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=[found.SeriesInstanceUID, MAKER, version]),
        series_number=SERIES,
        sop_instance_uid=pydicom.uid.generate_uid(entropy_srcs=[found.SOPInstanceUID, MAKER, version, content]),
        instance_number=max(1, int(found.get("InstanceNumber") or 1)),
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version,
        device_serial_number="none",
        content_label="ANOMALY",
        content_description="regions at or above a threshold, no diagnosis",
        series_description="anomaly regions (research, no diagnosis)",
    )
    _forget_invented_spacing(made, found)
    return made


def _forget_invented_spacing(made: Any, found: Any) -> None:
    """Of one plane, highdicom says that the next one lies 1 mm away: take that back."""
    shared = made.SharedFunctionalGroupsSequence[0]
    single = int(found.get("NumberOfFrames") or 1) == 1 and "SpacingBetweenSlices" not in found
    if single and "PixelMeasuresSequence" in shared:
        shared.PixelMeasuresSequence[0].pop("SpacingBetweenSlices", None)

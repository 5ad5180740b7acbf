"""What predict.py writes: a row of scores.csv for every image or slice, its map, overlay and mask, on one scale."""

import csv
import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from apps.predict import segmentation
from apps.predict.inputs import WRITTEN
from apps.predict.segmentation import ScoredSlice, read_cell
from apps.predict.volumes import Stack
from dataset import to_rgb
from engine.findings import Finding
from engine.predictor import Predictor
from report import html_report
from report.colours import ColourScale, overlay
from runtime.files import atomic_write, check_writable, no_formula, remove_drafts
from scoring.reliability import Verdict

COLUMNS = (
    *("file", "slice", "score", "threshold", "verdict", "confidence", "p_value", "uncertain", "seconds", "note"),
    "findings",
)
TABLE, RECORD, PAGE, PROGRESS = "scores.csv", "settings.json", "report.html", "progress.jsonl"
UNREADABLE = "unreadable"
FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\":]+[/\\])+")  # of an absolute path in a fault's words
MAP_TOP = 4.0  # on the calibrated scale, what 65535 stands for in a map: far above what normal images reach
SHOWN_BY_BROWSERS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True)
class ScoredPicture:
    """One image or slice. Of an unreadable file score, threshold and seconds are None, and `note` says what is wrong.

    image: a file that browsers show; map, overlay, mask: files in the output folder. All relative to that folder, or
    absolute outside it; None of an unreadable file. findings: of an abnormal one, as JSON (`segmentation.cell`). shown,
    plane: as of a `Stack`. confidence, p_value, uncertain: as of a `Verdict`.
    """

    file: str
    slice: int | None
    score: float | None
    threshold: float | None
    verdict: str  # "abnormal", "normal" or UNREADABLE
    seconds: float | None
    note: str = ""
    image: str | None = None
    map: str | None = None
    overlay: str | None = None
    mask: str | None = None
    findings: str = ""
    shown: str = ""
    plane: str = ""
    confidence: float | None = None
    p_value: float | None = None
    uncertain: bool = False


class Outputs:
    """The output folder, and what all its pictures share."""

    def __init__(
        self,
        folder: Path,
        predictor: Predictor,
        threshold_given: bool = False,
        hidden: Sequence[str] = (),
    ) -> None:
        """hidden: folders that the page leaves out where it names files, the inputs' own first."""
        thresholds = predictor.calibration
        self.source, self.threshold_given = predictor.source, threshold_given
        self.folder, self.calibrated = folder, predictor.calibrated
        self.threshold, self.pixel_threshold = thresholds.image[predictor.branch], thresholds.pixel[predictor.branch]
        self.evidence, self.reliability = (
            thresholds.evidence.get(predictor.branch),
            thresholds.sentences(predictor.branch),
        )
        dark = thresholds.dark.get(predictor.branch, 0.0)
        self.scale = ColourScale(dark, predictor.top, self.pixel_threshold, self.threshold)
        self.map_top = MAP_TOP if predictor.calibrated else 1.0  # of probabilities
        self.hidden = hidden
        self.unsegmented: list[str] = []  # why files have regions and no segmentation
        self.taken: set[str] = set()  # names of pictures, in lower case: some file systems fold it

    def begin(self, rows: Sequence[ScoredPicture]) -> None:
        """Start scores.csv with the rows of files that are finished, and take away what tells of an earlier run or was
        left half-written by it.
        """
        for folder in (self.folder, *(self.folder / kind for kind in WRITTEN)):
            remove_drafts(folder)
        for name in (RECORD, PAGE):
            (self.folder / name).unlink(missing_ok=True)
        self.taken = {Path(row.map).stem.lower() for row in rows}
        self.table(rows)

    def settings(self) -> dict:
        """The scale and the thresholds, as settings.json holds them."""
        return {
            "calibrated": self.calibrated,
            "threshold": self.threshold,
            "pixel_threshold": self.pixel_threshold,
            "reliability": self.reliability,
            "colours": {"from": self.scale.low, "to": self.scale.high},
            "maps": {"0": 0.0, "65535": self.map_top},
        }

    def write(
        self,
        name: str,
        file: Path,
        number: int | None,
        picture: Image.Image,
        full: np.ndarray,
        score: float,
        seconds: float,
        findings: str = "",
    ) -> ScoredPicture:
        """Write a picture's map, overlay, mask, and where browsers can't show the file what was seen; give its row.

        name: of the files, without ".png"; it gets a number where an earlier picture has it. full: the map (H, W).
        """
        own = self._own(name)
        rgb, called = to_rgb(picture), full >= self.pixel_threshold
        made = {
            "map": self.deep(full),
            "overlay": (overlay(rgb, full, called, self.scale), None),
            "mask": (called.astype(np.uint8) * 255, None),
        }
        if number is not None or file.suffix.lower() not in SHOWN_BY_BROWSERS:
            made["image"] = (rgb, None)
        paths = {"image": str(file.resolve())}
        for kind, (pixels, text) in made.items():
            paths[kind] = f"{kind}s/{own}.png"
            with atomic_write(self.folder / paths[kind]) as draft:
                save_png(draft, pixels, text)
        return self.row(file, number, score, seconds, findings=findings, **paths)

    def slice(self, place: int | None, full: np.ndarray, score: float, findings: Sequence[Finding]) -> ScoredSlice:
        """A picture as files of segmentations hold it: of a normal one, nothing is marked."""
        if score < self.threshold:
            return ScoredSlice(place, score, False, (), np.zeros(full.shape, bool))
        return ScoredSlice(place, score, True, tuple(findings), full >= self.pixel_threshold)

    def segment(self, name: str, file: Path, stack: Stack, slices: Sequence[ScoredSlice]) -> None:
        """Write the segmentation of a DICOM file or a volume, and its JSON."""
        known = {"threshold": self.threshold, "pixel_threshold": self.pixel_threshold}
        if why := segmentation.save(self.folder, name, file, stack, slices, known):
            self.unsegmented.append(why)

    def say_unsegmented(self) -> None:
        """One line on files that have regions and no segmentation, if there are any."""
        if self.unsegmented:
            more = f"; and {len(self.unsegmented) - 1} more" if len(self.unsegmented) > 1 else ""
            print(f"regions in JSON alone: {self.unsegmented[0]}{more}")

    def deep(self, full: np.ndarray) -> tuple[np.ndarray, PngInfo]:
        """A map (H, W) as 16-bit grey, and the text that says what its values stand for."""
        note = PngInfo()
        note.add_text("Scale", f"0 to 65535 stand for 0 to {self.map_top:g} on the calibrated scale")
        return np.round(np.clip(full / self.map_top, 0, 1) * 65535).astype(np.uint16), note

    def row(self, file: Path, number: int | None, score: float, seconds: float, **paths: str) -> ScoredPicture:
        """The row of a picture that was scored; paths: of what is written of it, by kind; and its findings."""
        found = Verdict.of(score, self.threshold, self.evidence)
        verdict, certain = "abnormal" if found.abnormal else "normal", "" if self.calibrated else "uncalibrated"
        told = {"confidence": found.confidence, "p_value": found.p_value, "uncertain": found.uncertain, **paths}
        return ScoredPicture(str(file), number, score, self.threshold, verdict, seconds, certain, **told)

    def _own(self, name: str) -> str:
        """The name, or the first of name_2, name_3, ... that no picture of this run has."""
        own = next(one for one in chain([name], (f"{name}_{n}" for n in count(2))) if one.lower() not in self.taken)
        self.taken.add(own.lower())
        return own

    def table(self, rows: Sequence[ScoredPicture]) -> Path:
        """Write scores.csv with these rows."""
        path = self.folder / TABLE
        with atomic_write(path) as draft, open_table(draft, "w") as file:
            csv.writer(file).writerows([COLUMNS, *map(cells, rows)])
        return path

    def append(self, rows: Sequence[ScoredPicture]) -> None:
        """Add rows to scores.csv."""
        with open_table(self.folder / TABLE, "a") as file:
            csv.writer(file).writerows(map(cells, rows))

    def say(self, counts: Mapping[str, int]) -> None:
        """Print how many pictures got which verdict, and on what scale."""
        certain = ("" if self.calibrated else ", uncalibrated") + (", by --threshold" if self.threshold_given else "")
        print(
            f"scored {counts['normal'] + counts['abnormal']}: {counts['abnormal']} abnormal, {counts['normal']} normal "
            f"(abnormal from {self.threshold:.4g}{certain})"
        )
        colours = f"{self.scale.low:.3g} to {self.scale.high:g}"
        print(*self.reliability, sep="\n", end="\n" * bool(self.reliability))
        print(f"maps: 0 to 65535 stand for 0 to {self.map_top:g}; colours go from {colours}")

    def write_page(self, rows: Sequence[ScoredPicture], settings: dict, title: str, notes: Sequence[str] = ()) -> Path:
        """Write report.html; notes: sentences at its top."""
        path = self.folder / PAGE
        origin = (
            f"The threshold is that of --threshold; scores come from {self.source}."
            if self.threshold_given
            else f"Scores and threshold come from {self.source}, never from the images scored here."
        )
        page_rows = [self._page_row(row) for row in rows]
        told = {"notes": notes, "origin": origin, "beside": [TABLE], "reliability": self.reliability}
        html_report.write(path, html_report.Report(title, settings, page_rows, self.scale, **told))
        return path

    def _page_row(self, row: ScoredPicture) -> html_report.Row:
        file = os.path.relpath(row.file, self.hidden[0]) if self.hidden else Path(row.file).name
        name, reason = file if row.slice is None else f"{file}, slice {row.slice}", row.note.replace(row.file, file)
        for folder in self.hidden:
            reason = reason.replace(f"{folder}{os.sep}", "").replace(folder, Path(folder).name or folder)
        pictures = {} if row.map is None else {"image": self.folder / row.image, "map": partial(self._map, row.map)}
        pictures |= {"findings": read_cell(row.findings), "confidence": row.confidence, "uncertain": row.uncertain}
        return html_report.Row(name, row.score, reason=FOLDERS.sub("", reason), **pictures)

    def _map(self, path: str) -> np.ndarray:
        """A written map (H, W) float32, on the calibrated scale again."""
        with Image.open(self.folder / path) as image:
            return np.asarray(image).astype(np.float32) * np.float32(self.map_top / 65535)

    def record(self, content: dict) -> None:
        """Write settings.json."""
        with atomic_write(self.folder / RECORD) as draft:
            draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_png(to: Path | BinaryIO, pixels: np.ndarray, text: PngInfo | None = None) -> None:
    """Write pixels (H, W) or (H, W, 3) as a PNG, with a text in it."""
    Image.fromarray(pixels).save(to, format="PNG", compress_level=3, pnginfo=text)


def open_table(path: Path, mode: str) -> TextIO:
    """A table opened for writing; what a file's name has that is no UTF-8 is written as its code."""
    return path.open(mode, newline="", encoding="utf-8", errors="backslashreplace")


def cells(row: ScoredPicture) -> list:
    """A row of scores.csv."""
    values = (getattr(row, name) for name in COLUMNS)
    plain = (int(value) if isinstance(value, bool) else value for value in values)
    return ["" if value is None else no_formula(value) for value in plain]


def check_outputs(folder: Path) -> None:
    """Make the output folder; raise OSError, before long work, for what of it can't be written."""
    check_writable(folder)
    for kind in WRITTEN:
        if (folder / kind).exists():
            check_writable(folder / kind)
    for name in (TABLE, RECORD, PAGE, PROGRESS):
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, "", str(folder / name))


def is_of_output(fault: Exception, folder: Path) -> bool:
    """Whether the fault is that of a full disk or an output that can't be written, not of what is read."""
    if not isinstance(fault, OSError):
        return False
    where = Path(str(fault.filename))
    return fault.errno in (errno.ENOSPC, errno.EDQUOT) or any(where.is_relative_to(folder / kind) for kind in WRITTEN)

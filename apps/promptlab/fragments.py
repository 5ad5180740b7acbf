"""What the prompt lab shows, as pieces of HTML: figures, the table of images, the verdict on one image, messages."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import isfinite
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from apps.promptlab.held import PromptResult, Pull
from dataset import Sample, read_rgb
from engine.findings import plain
from report.colours import ColourScale, heat, overlay, truth
from report.findings import NO_DIAGNOSIS, listed
from runtime.errors import InputError

THUMB, LARGE = 176, 420  # pixels a side, at most
ROWS = 60  # images shown; figures are of all that were chosen
SCALE = ColourScale(0.0, 1.0)
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)
NAMES = (
    ("image_auroc", "image AUROC"),
    ("image_ap", "AP"),
    ("image_f1_max", "F1-max"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("pixel_auroc", "pixel AUROC"),
    ("pixel_aupro", "AUPRO"),
)
ORDERS = ("score of A", "A less B", "name")


@dataclass(frozen=True)
class Side:
    """One set of prompts, what it makes of the images, and the sentences that pull each of them most."""

    name: str
    result: PromptResult
    pulls: list[tuple[Pull | None, Pull | None]]


def figures_table(sides: Sequence[Side]) -> str:
    """Figures of every set by branch, of those that there are."""
    found = {name for side in sides for row in side.result.figures.values() for name in row}
    names = [pair for pair in NAMES if pair[0] in found]
    return _piece("figures", [_summary(side) for side in sides], names)


def _summary(side: Side) -> dict:
    result = side.result
    order = sorted(result.figures, key=lambda branch: branch != result.branch)
    counts = f"{len(result.words.normal)} + {len(result.words.abnormal)}"
    figures = {branch: result.figures[branch] for branch in order}
    return {"name": side.name, "branch": result.branch, "counts": counts, "figures": figures}


def images_table(sides: Sequence[Side], order: str) -> str:
    """A row an image: input with the truth's outline, each set's overlay and score, the sentences that pull most."""
    samples = sides[0].result.samples
    rows = _order(sides, order)[:ROWS]
    maps = [list(side.result.maps()) for side in sides]
    cells = [_row(samples[row], row, [(side, own[row]) for side, own in zip(sides, maps, strict=True)]) for row in rows]
    scale = (
        "the range of maps over the support, under each set"
        if sides[0].result.calibration.image
        else "the probability of “abnormal”, mean over taps, the same in every picture"
    )
    return _piece("images", cells, sides, _colour_bar(), scale, len(samples) - len(rows))


def _order(sides: Sequence[Side], order: str) -> list[int]:
    """Rows of images, the highest first of what `order` names."""
    scores = [side.result.scores[side.result.branch].numpy() for side in sides]
    rows = range(len(scores[0]))
    if order == ORDERS[0]:
        return sorted(rows, key=lambda row: -scores[0][row])
    if order == ORDERS[1]:
        return sorted(rows, key=lambda row: -abs(scores[0][row] - scores[-1][row]))
    return sorted(rows, key=lambda row: sides[0].result.samples[row].image)


def _row(sample: Sample, row: int, parts: Sequence[tuple[Side, np.ndarray]]) -> dict:
    picture, marked = thumbnail(sample)
    bare = overlay(picture, np.zeros(picture.shape[:2], np.float32), marked, SCALE)
    return {
        "name": sample.image.name,
        "label": "abnormal" if sample.label else "normal",
        "input": _address(bare),
        "sides": [
            _score(side.result, row)
            | {"name": side.name, "pulls": side.pulls[row], "overlay": _address(_over(picture, anomaly_map, None))}
            for side, anomaly_map in parts
        ],
    }


def _score(result: PromptResult, row: int) -> dict:
    """The score that is shown of an image, and what is made of it."""
    score = float(result.scores[result.branch][row])
    called = ("abnormal" if score >= result.threshold else "normal") if isfinite(result.threshold) else ""
    return {"score": score, "verdict": called}


def judged(result: PromptResult, notes: Sequence[str]) -> str:
    """The verdict on an image that was uploaded, and the lab's notes; the first says why there is no threshold."""
    (anomaly_map,), path = tuple(result.maps()), result.samples[0].image
    picture = shrunk(read_rgb(path), LARGE)
    full = _fitted(anomaly_map, picture)
    called = full >= result.pixel_threshold if isfinite(result.pixel_threshold) else None
    why, rest = ("", notes) if isfinite(result.threshold) else (" ".join(notes[:1]), notes[1:])
    one = _score(result, 0) | {
        "branch": result.branch,
        "threshold": result.threshold if isfinite(result.threshold) else None,
        "why": why,
        "parts": result.parts(0),
        "one_place": result.seen.mean_patches is None,
        "outlined": None if called is None else result.pixel_threshold,
        "input": _address(picture),
        "overlay": _address(_over(picture, anomaly_map, called)),
        "map": _address(heat(full, SCALE)),
        "findings": listed(plain(result.findings)),
        "no_diagnosis": NO_DIAGNOSIS,
    }
    return _piece("judged", one, _colour_bar()) + message("note", *rest)


def message(kind: str, *lines: str) -> str:
    """Lines for the user; kind "fault" or "note". Nothing of no lines."""
    return _piece("message", kind, lines)


def heading() -> str:
    """The page's title."""
    return _piece("heading")


def waiting(words: str) -> str:
    """What is being done, beside something that turns."""
    return _piece("waiting", words)


@lru_cache(maxsize=512)
def thumbnail(sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
    """An image shrunk to THUMB, uint8 (h, w, 3), and what is abnormal in it, bool (h, w); None: nobody marked it."""
    picture = shrunk(read_rgb(sample.image), THUMB)
    return picture, truth(sample.mask, sample.label, picture.shape[:2])


def shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture (H, W, 3) whose longer side is `side` pixels."""
    height, width = picture.shape[:2]
    share = side / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR)


def _fitted(anomaly_map: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return cv2.resize(anomaly_map, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _over(picture: np.ndarray, anomaly_map: np.ndarray, called: np.ndarray | None) -> np.ndarray:
    return overlay(picture, _fitted(anomaly_map, picture), called, SCALE)


def _address(picture: np.ndarray) -> str:
    """A picture as a data address."""
    done, content = cv2.imencode(".jpg", picture[..., ::-1], JPEG)
    if not done:
        raise InputError(f"a picture of {picture.shape[1]}x{picture.shape[0]} can't be shown")
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


@cache
def _colour_bar() -> str:
    return _address(heat(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (12, 1)), SCALE))


@cache
def _templates() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _piece(name: str, *values: object) -> str:
    return str(getattr(_templates().get_template("lab.html").module, name)(*values))

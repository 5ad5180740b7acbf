"""Small pictures of images, masks and maps for a page, within a number of bytes.

A picture is given as a file, as an array, or as a function that makes the array when it is asked for, so that the
maps of 5,000 images need not be in memory together.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataset.images import read_mask, read_rgb
from report.colours import ColourScale, heat
from runtime.bars import Bar

Pixels = str | Path | np.ndarray | Callable[[], np.ndarray] | None
# Pixels of the longer side, and WebP's quality; the first with which all images fit is taken.
SIZES = ((480, 78), (384, 78), (320, 78), (256, 78), (192, 78), (160, 78), (128, 78), (128, 60), (96, 60), (96, 45))
EFFORT = 2  # WebP's: more saves 5 % of the bytes and doubles the time
TRIED = 16  # pictures that the edge is chosen by
SPARE = 1.15  # what the others may take on average, if those tried take 1
OUTLINE_SLACK = 0.6  # pixels that an outline may be off to have fewer corners
BAR_AFTER = 2.0  # seconds before a progress bar shows


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One image's pictures. image: file or uint8 (H, W, 3) or (H, W); truth: file or bool (H, W); map: (H, W) float,
    on the scale that the page's colours have, of any size. Each may also be a function that gives the array."""

    image: Pixels = None
    truth: Pixels = None
    map: Pixels = None


def within(wanted: Sequence[Pictures], scale: ColourScale, budget: int) -> tuple[dict[int, dict], int]:
    """The thumbnails of as many as `budget` bytes hold, first things first, by place; and their longer side in pixels.

    All have one size, the first of SIZES at which all are expected to fit. Raises InputError for unreadable files.
    """
    edge, quality = _size(wanted, scale, budget)
    made, spent = {}, 0
    for place, pictures in enumerate(Bar(wanted, desc="report", unit="image", leave=False, delay=BAR_AFTER)):
        made[place] = thumbnail(pictures, scale, edge, quality)
        spent += weight(made[place])
        if spent > budget:
            del made[place]
            break
    return made, edge


def thumbnail(pictures: Pictures, scale: ColourScale, edge: int, quality: int = SIZES[0][1]) -> dict:
    """Width and height, and those of image, map (coloured), truth that there are, as data URIs without "data:image/".

    outline: the predicted mask's border as the path of an SVG, in pixels, where the scale knows a threshold.
    """
    image, anomaly_map = _array(pictures.image, read_rgb), _array(pictures.map, None)
    known = image if image is not None else anomaly_map
    if known is None:
        return {}
    width, height = _fitted(known.shape, edge)
    made = {"width": width, "height": height}
    if image is not None:
        made["image"] = webp(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), quality)
    if anomaly_map is not None:
        small = _resized(np.asarray(anomaly_map, np.float32), width, height)
        made["map"] = webp(heat(small, scale), quality)
        if isfinite(scale.pixel_threshold):
            made["outline"] = outline(small >= scale.pixel_threshold)
    truth = _array(pictures.truth, read_mask)
    if truth is not None:
        made["truth"] = _png(cv2.resize((truth != 0).astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA))
    return made


def outline(mask: np.ndarray) -> str:
    """The borders of a mask, bool (H, W), as an SVG path; pixel (0, 0) is the square from (0, 0) to (1, 1)."""
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    corners = [cv2.approxPolyDP(line, OUTLINE_SLACK, closed=True)[:, 0] for line in lines]
    return "".join("M" + " ".join(f"{x}.5 {y}.5" for x, y in line) + "Z" for line in corners)


def webp(picture: np.ndarray, quality: int = SIZES[0][1]) -> str:
    """A picture, uint8 (H, W, 3), as a data URI without "data:image/"."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "WEBP", quality=quality, method=EFFORT)
    return "webp;base64," + base64.b64encode(file.getbuffer()).decode()


def weight(made: dict) -> int:
    """The bytes that a thumbnail takes in a page."""
    return sum(len(str(value)) + len(name) + 6 for name, value in made.items()) + 16


def _size(wanted: Sequence[Pictures], scale: ColourScale, budget: int) -> tuple[int, int]:
    """The first of SIZES at which all thumbnails should fit, judged by a few of them; else the last."""
    step = max(1, len(wanted) // TRIED)
    tried = [_opened(pictures) for pictures in wanted[::step][:TRIED]]
    for size in SIZES:
        total = sum(weight(thumbnail(pictures, scale, *size)) for pictures in tried)
        if total * len(wanted) * SPARE <= budget * len(tried):
            return size
    return SIZES[-1]


def _opened(pictures: Pictures) -> Pictures:
    """The same with arrays no larger than thumbnails need, so that files are read once."""
    image, truth, values = (
        _array(pixels, reader)
        for pixels, reader in ((pictures.image, read_rgb), (pictures.truth, read_mask), (pictures.map, None))
    )
    edge = SIZES[0][0]
    if image is not None:
        image = cv2.resize(image, _fitted(image.shape, edge), interpolation=cv2.INTER_AREA)
    if truth is not None:
        truth = cv2.resize((truth != 0).astype(np.uint8), _fitted(truth.shape, edge), interpolation=cv2.INTER_AREA)
    if values is not None:
        values = _resized(np.asarray(values, np.float32), *_fitted(values.shape, edge))
    return Pictures(image=image, truth=truth, map=values)


def _array(pixels: Pixels, reader: Callable | None) -> np.ndarray | None:
    """The array, from wherever it comes; grey images get three channels where a reader of colours is given."""
    if pixels is None or isinstance(pixels, np.ndarray):
        found = pixels
    elif callable(pixels):
        found = np.asarray(pixels())
    else:
        found = reader(pixels)
    return np.repeat(found[..., None], 3, axis=2) if reader is read_rgb and np.ndim(found) == 2 else found


def _fitted(shape: tuple[int, ...], edge: int) -> tuple[int, int]:
    """Width and height in the shape's proportions, the longer one `edge` at most."""
    height, width = shape[:2]
    share = min(1.0, edge / max(height, width))
    return max(1, round(width * share)), max(1, round(height * share))


def _resized(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Larger by interpolation, smaller by means over areas."""
    shrinks = width * height < values.size
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _png(mask: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).convert("1").save(file, "PNG", optimize=True)
    return "png;base64," + base64.b64encode(file.getbuffer()).decode()

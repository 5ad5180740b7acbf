"""A run's most telling maps, small: kept beside its results, shown side by side on the study's page."""

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from report.colours import ColourScale
from report.thumbnails import Pictures, Pixels, thumbnail
from runtime.errors import InputError
from runtime.files import atomic_write

FILE = "maps.json"
KEPT = 4  # images with the largest errors, and as many with the smallest
EDGE, QUALITY = 112, 70  # of the pictures: pixels of the longer side, WebP's quality
HALF = 0.5  # the score from which an image is called abnormal where no threshold is known
SCALE = ColourScale(0.0, 1.0)
LARGEST = 60_000  # characters of one picture
WEBP = re.compile(r"webp;base64,([A-Za-z0-9+/]+=*)")


@dataclass(frozen=True)
class KeptMap:
    """One test image of a run. image, map: data URIs without "data:image/". error: how far the score lies on the wrong
    side of the threshold, negative on the right side."""

    name: str
    label: int
    score: float
    error: float
    image: str
    map: str


def keep_maps(
    path: Path,
    names: Sequence[str],
    labels: Sequence[int],
    scores: Sequence[float],
    images: Sequence[Pixels],
    maps: Sequence[Pixels],
    threshold: float = HALF,
) -> None:
    """Write the images with the KEPT largest and the KEPT smallest errors, all if they are no more than that.

    names: as in scores.csv. labels: 0 normal, 1 abnormal. scores and maps are on one scale, 0 to 1; maps (H, W). Images
    and maps may be functions that make the array, called for those kept alone. Raises InputError for an image that
    can't be read.
    """
    errors = [threshold - score if label else score - threshold for label, score in zip(labels, scores, strict=True)]
    order = sorted(range(len(errors)), key=lambda place: -errors[place])
    chosen = order if len(order) <= 2 * KEPT else order[:KEPT] + order[-KEPT:]
    kept = []
    for place in chosen:
        made = thumbnail(Pictures(image=images[place], map=maps[place]), SCALE, EDGE, QUALITY)
        about = (str(names[place]), int(labels[place]), float(scores[place]), float(errors[place]))
        kept.append(asdict(KeptMap(*about, made["image"], made["map"])))
    with atomic_write(path) as draft:
        draft.write_text(json.dumps({"kept": kept}, allow_nan=False) + "\n", encoding="utf-8")


def read_maps(path: Path) -> list[KeptMap]:
    """What `keep_maps` wrote, the largest error first. Raises InputError for a file that is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["kept"]
        if not isinstance(found, list) or len(found) > 2 * KEPT:
            raise ValueError("not a list of the right length")
        return sorted(map(_checked, found), key=lambda one: -one.error)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as fault:
        raise InputError(f"{path} is missing or damaged ({fault}); run the study's job again") from fault


def _checked(entry: dict[str, Any]) -> KeptMap:
    """An entry of a file, with pictures that are pictures."""
    one = KeptMap(**entry)
    if not isinstance(one.name, str) or one.label not in (0, 1) or isinstance(one.label, bool):
        raise ValueError("a name or a label is not one")
    numbers = (one.score, one.error)
    if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
        raise ValueError("a score is no number")
    for picture in (one.image, one.map):
        _check_picture(picture)
    return one


def _check_picture(text: str) -> None:
    found = WEBP.fullmatch(text) if isinstance(text, str) and len(text) <= LARGEST else None
    if found is None:
        raise ValueError("a picture is not a small WebP")
    try:
        content = base64.b64decode(found[1], validate=True)
    except binascii.Error as fault:
        raise ValueError("a picture is no base64") from fault
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        raise ValueError("a picture is no WebP")

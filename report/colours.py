"""One colour scale for all pictures of a run."""

from dataclasses import dataclass
from math import nan
from pathlib import Path

import cv2
import numpy as np

from dataset.images import read_mask

OUTLINE = (90, 255, 130)  # of predicted regions
OPACITY = 0.65  # opacity of the overlay where the map is at the top of the scale
COLOURS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]  # RGB
BAND = 256  # rows that are mixed at a time, so that a large picture takes no more memory than it must


@dataclass(frozen=True)
class ColourScale:
    """What all panels of a run share: the ends of the colour scale and two thresholds, nan where not known.

    `low`, `high` and `pixel_threshold` are on the maps' scale, `score_threshold` on the image scores'.
    """

    low: float
    high: float
    pixel_threshold: float = nan
    score_threshold: float = nan


def heat(anomaly_map: np.ndarray, scale: ColourScale) -> np.ndarray:
    """(H, W) float32 -> (H, W, 3) uint8 RGB; what lies outside the scale takes the colour of its end."""
    return COLOURS[np.round(255 * share(anomaly_map, scale)).astype(np.uint8)]


def truth(mask: str | Path | None, label: int | None, size: tuple[int, int]) -> np.ndarray | None:
    """What is abnormal by a mask's file, bool (H, W) of `size`; a normal image needs no file, None: nobody knows."""
    if mask is not None:
        return cv2.resize(read_mask(mask).astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.zeros(size, bool) if label == 0 else None


def share(anomaly_map: np.ndarray, scale: ColourScale) -> np.ndarray:
    """Where each value lies between the ends of the scale, in [0, 1]."""
    reach = max(scale.high - scale.low, np.finfo(np.float32).tiny)
    return np.clip((anomaly_map - scale.low) / reach, 0, 1)


def overlay(picture: np.ndarray, full: np.ndarray, called: np.ndarray | None, scale: ColourScale) -> np.ndarray:
    """The heat over the input, the more opaque the hotter, with the predicted mask's outline: (H, W, 3) uint8 RGB.

    picture: (H, W, 3) uint8. full: the map (H, W) float32. called: the mask (H, W) bool, None for no outline.
    """
    mixed = np.empty_like(picture)
    for top in range(0, len(picture), BAND):
        rows = slice(top, top + BAND)
        opacity = OPACITY * share(full[rows], scale)[..., None]
        mixed[rows] = np.round(picture[rows] * (1 - opacity) + heat(full[rows], scale) * opacity).astype(np.uint8)
    if called is not None:
        lines, _ = cv2.findContours(called.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mixed, lines, -1, OUTLINE, thickness=max(1, picture.shape[1] // 300))
    return mixed

"""Calibration on images of known label: the range of each branch's scores, and thresholds of images and pixels."""

import numpy as np

from scoring import metrics
from scoring.maps import Calibration
from scoring.raw_scores import Masks, RawScores, full_maps, measure

CALIBRATION_IMAGES = 64  # normal support images, or images of an object trained on, that are looked at; at most
DARK_QUANTILE = 0.98  # of the normal support's pixels that have no colour in pictures
NORMAL_QUANTILE = 0.995  # of the normal support's pixels below the threshold, where no mask says better


def calibrate(raw: RawScores, labels: np.ndarray, masks: Masks | None, size: int, pixels: bool = True) -> Calibration:
    """Scales and thresholds from the support: labels (V,) in {0, 1}, masks bool (V, S, S) or None.

    pixels: what is of pixels too, which takes most of the time; else `Calibration.pixel` and `dark` stay empty.
    """
    found = Calibration(*raw.scales(size), {}, {})
    for branch, scores in raw.image_scores(size, found).items():
        found.image[branch] = image_threshold(scores.numpy(), labels)
        if pixels:
            maps = full_maps(raw.map_patches, found.maps, size, branch)
            found.pixel[branch] = pixel_threshold(maps, labels, masks)
            found.dark[branch] = dark_end(maps, labels, masks)
    return found


def image_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Half-way between the F1-max score and the next lower one; without either label just above the highest."""
    if not labels.any() or labels.all():
        return float(np.nextafter(scores.max(), np.float32(np.inf)))
    best = measure(metrics.image_metrics, scores, labels)["threshold"]
    lower = scores[scores < best]
    return float((best + lower.max()) / 2) if lower.size else float(best)


def dark_end(maps: np.ndarray, labels: np.ndarray, masks: np.ndarray | None) -> float:
    """Where colours begin: what nearly all pixels of normal images' maps, of (V, S, S), stay below; 0 without any.

    With masks, normal is where nothing is marked: the labels may then be those of more images than the maps.
    """
    normal = maps[labels == 0 if masks is None else ~masks.any(axis=(1, 2))]
    return float(np.quantile(normal, DARK_QUANTILE)) if normal.size else 0.0


def pixel_threshold(maps: np.ndarray, labels: np.ndarray, masks: np.ndarray | None) -> float:
    """F1-max over the support's pixels, or a high quantile of its normal images' pixels where no mask is.

    Without normal images either, just above the highest value: then no pixel is known to be abnormal.
    """
    if masks is not None and masks.any():
        return float(measure(metrics.pixel_metrics, maps, masks)["threshold"])
    normal = maps[labels == 0]
    return float(np.quantile(normal, NORMAL_QUANTILE) if normal.size else np.nextafter(maps.max(), np.float32(np.inf)))

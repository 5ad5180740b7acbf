"""What the support says of scores: the range of each branch, and the thresholds from which an image or a pixel is abnormal."""

from dataclasses import dataclass

import numpy as np

from scoring import metrics
from scoring.calibration import Calibration
from scoring.maps import Scale, map_scale, mean_scale
from scoring.predictions import Masks, Views, _finite, full_maps


@dataclass(frozen=True)
class Calibration:
    """What the support says of the scale of scores, so that an image can be judged alone.

    maps, means: the branches' ranges over the support. image, pixel: by branch, the threshold at which a scaled
    score counts as abnormal: largest F1 on the support, or without abnormal support above all normal scores.
    """

    maps: Scale
    means: Scale
    image: dict[str, float]
    pixel: dict[str, float]

    @staticmethod
    def from_plain(content: dict) -> "Calibration":
        """Back from `dataclasses.asdict`."""
        maps, means = (Scale(**content[name]) for name in ("maps", "means"))
        return Calibration(maps, means, dict(content["image"]), dict(content["pixel"]))


NORMAL_QUANTILE = 0.995  # of the normal support's pixels below the threshold, where no mask says better


def calibrate(seen: Views, labels: np.ndarray, masks: Masks | None, size: int, pixels: bool = True) -> Calibration:
    """Scales and thresholds from the support: labels (V,) in {0, 1}, masks bool (V, S, S) or None.

    pixels: pixel thresholds too, which take most of the time; otherwise `Calibration.pixel` stays empty.
    """
    maps = map_scale(seen.maps, size)
    means = maps if seen.scores is None else mean_scale(seen.scores, size)
    own = Calibration(maps, means, {}, {})
    image, pixel = {}, {}
    for branch, scores in seen.image_scores(size, own).items():
        image[branch] = image_threshold(scores.numpy(), labels)
        if pixels:
            pixel[branch] = pixel_threshold(full_maps(seen.maps, maps, size, branch), labels, masks)
    return Calibration(maps, means, image, pixel)


def image_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Half-way between the F1-max score and the next lower one; without abnormal scores just above the highest."""
    if not labels.any():
        return float(np.nextafter(scores.max(), np.float32(np.inf)))
    best = _finite(metrics.image_metrics, scores, labels)["threshold"]
    lower = scores[scores < best]
    return float((best + lower.max()) / 2) if lower.size else float(best)


def pixel_threshold(maps: np.ndarray, labels: np.ndarray, masks: np.ndarray | None) -> float:
    """F1-max over the support's pixels, or a high quantile of its normal images' pixels where no mask is."""
    if masks is not None and masks.any():
        return float(_finite(metrics.pixel_metrics, maps, masks)["threshold"])
    normal = maps[labels == 0]
    return float(np.quantile(normal, NORMAL_QUANTILE)) if normal.size else float("nan")

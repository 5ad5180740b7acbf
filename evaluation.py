"""Readings of a test set to figures, and readings of the support to the thresholds that figures are given at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

import metrics
from errors import InputError
from scoring import (
    Calibration,
    Readings,
    Scale,
    map_scale,
    max_scores,
    mean_scale,
    mean_scores,
    scaled_maps,
)

IN_MEMORY = 1 << 26  # pixels whose maps are kept for exact figures; those of more are counted in one pass
ABOVE_HALF = float(np.nextafter(np.float32(0.5), np.float32(1)))  # float32 scores from here on are above a half
NORMAL_QUANTILE = 0.995  # of the normal support's pixels below the threshold, where no mask says better


class Masks(Protocol):
    """What is abnormal, bool (N, S, S): an array, or something that reads the rows that are asked for."""

    def __getitem__(self, rows: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class Views:
    """Which tokens say what of an object's images.

    maps: readings whose full-size maps are the anomaly maps (seg tokens; det tokens of an object without masks).
    scores: readings whose mean is the image score; None where the map's maximum is it.
    """

    maps: Readings
    scores: Readings | None

    def image_scores(self, size: int, calibration: Calibration | None = None) -> dict[str, Tensor]:
        """Image scores (N,) by branch, scaled over these images, or as the calibration scales."""
        if self.scores is None:
            scale = map_scale(self.maps, size) if calibration is None else calibration.maps
            return max_scores(self.maps, scale, size)
        scale = mean_scale(self.scores, size) if calibration is None else calibration.means
        return mean_scores(self.scores, scale, size)


def views(readings: dict[str, Readings], masks: bool, transfer: bool = False) -> Views:
    """The views of few-shot scoring, or of zero-shot transfer, from readings by head ("seg", "det").

    With masks, few-shot scores are maxima of the seg maps; transfer scores are means of the det tokens. Without
    masks everything comes from the det tokens (the paper's "Scoring" and "Zero-shot transfer").
    """
    if not masks:
        return Views(readings["det"], readings["det"])
    return Views(readings["seg"], readings["det"] if transfer else None)


def heads(masks: bool, transfer: bool = False) -> tuple[str, ...]:
    """The heads whose readings `views` needs."""
    if not masks:
        return ("det",)
    return ("seg", "det") if transfer else ("seg",)


def evaluate(
    seen: Views, labels: np.ndarray, masks: Masks | None, size: int, calibration: Calibration | None
) -> dict[str, dict[str, float]]:
    """Figures by branch over a test set: labels (N,) in {0, 1}, masks bool (N, S, S) or None.

    Scores are min-max scaled over the test set as published; so are those of sensitivity and specificity "at half",
    which count an image as abnormal above 0.5, as the reproduction study does. The others are at the calibration's
    threshold, on scores scaled by the calibration. Raises InputError when a score is not a number.
    """
    figures = {}
    judged = {} if calibration is None else seen.image_scores(size, calibration)
    for branch, scores in seen.image_scores(size).items():
        found = _finite(metrics.image_metrics, scores.numpy(), labels)
        figures[branch] = {f"image_{name}": found[name] for name in ("auroc", "ap", "f1_max")}
        halved = _finite(metrics.at_threshold, scores.numpy(), labels, ABOVE_HALF)
        figures[branch] |= {f"{name}_at_half": value for name, value in halved.items()}
        if branch in judged:
            threshold = calibration.image[branch]
            figures[branch] |= _finite(metrics.at_threshold, judged[branch].numpy(), labels, threshold)
    if masks is not None:
        scale = map_scale(seen.maps, size)
        for branch in figures:  # one at a time: a branch's maps may fill much of the memory
            found = pixel_figures(seen.maps, scale, size, branch, masks)
            figures[branch] |= {f"pixel_{name}": found[name] for name in ("auroc", "ap", "f1_max", "aupro")}
    return figures


def pixel_figures(readings: Readings, scale: Scale, size: int, branch: str, masks: Masks) -> dict[str, float]:
    """`metrics.pixel_metrics` of a branch; of more pixels than IN_MEMORY in one pass, to about 1e-7."""
    if len(readings) * size**2 <= IN_MEMORY:
        return _finite(metrics.pixel_metrics, full_maps(readings, scale, size, branch), masks[:])

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = 0
        for part in scaled_maps(readings, scale, size, branch):
            yield part.numpy(), masks[first : first + len(part)]
            first += len(part)

    return _finite(metrics.binned_pixel_metrics, pieces())


def full_maps(readings: Readings, scale: Scale, size: int, branch: str) -> np.ndarray:
    """All maps (N, S, S) of a branch, float32, scaled by `scale`."""
    maps = np.empty((len(readings), size, size), np.float32)
    done = 0
    for part in scaled_maps(readings, scale, size, branch):
        maps[done : done + len(part)] = part
        done += len(part)
    return maps


def selection(seen: Views, labels: np.ndarray, masks: Masks | None, size: int) -> dict[str, float]:
    """The figures whose sum the published scripts choose the best epoch by: image AUROC, with masks pixel AUROC."""
    branch = main_branch(seen.maps)
    value = {"image_auroc": _finite(metrics.image_metrics, seen.image_scores(size)[branch].numpy(), labels)["auroc"]}
    if masks is not None:
        value["pixel_auroc"] = pixel_figures(seen.maps, map_scale(seen.maps, size), size, branch, masks)["auroc"]
    return value


def main_branch(readings: Readings) -> str:
    """The branch that stands for the run: the fusion, or the only one that is on."""
    if readings.zero is not None and readings.few is not None:
        return "fused"
    return "few" if readings.zero is None else "zero"


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


def _finite(metric: Callable[..., dict[str, float]], *arrays: object) -> dict[str, float]:
    """A metric of arrays, or InputError when a score is not a number."""
    try:
        return metric(*arrays)
    except ValueError as fault:
        raise InputError(f"the model's scores are not finite ({fault}); train with a lower --learning_rate") from fault

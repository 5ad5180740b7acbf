"""Which tokens say what of an object's images, and the scores that come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from runtime.errors import InputError
from scoring.calibration import Calibration
from scoring.maps import Scale, map_scale, max_scores, mean_scale, mean_scores, scaled_maps
from scoring.patch_scores import Readings


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


def full_maps(readings: Readings, scale: Scale, size: int, branch: str) -> np.ndarray:
    """All maps (N, S, S) of a branch, float32, scaled by `scale`."""
    maps = np.empty((len(readings), size, size), np.float32)
    done = 0
    for part in scaled_maps(readings, scale, size, branch):
        maps[done : done + len(part)] = part
        done += len(part)
    return maps


def main_branch(readings: Readings) -> str:
    """The branch that stands for the run: the fusion, or the only one that is on."""
    if readings.zero is not None and readings.few is not None:
        return "fused"
    return "few" if readings.zero is None else "zero"


def _finite(metric: Callable[..., dict[str, float]], *arrays: object) -> dict[str, float]:
    """A metric of arrays, or InputError when a score is not a number."""
    try:
        return metric(*arrays)
    except ValueError as fault:
        raise InputError(f"the model's scores are not finite ({fault}); train with a lower --learning_rate") from fault

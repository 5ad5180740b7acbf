"""Figures of more pixels than memory holds: one pass counts them in steps of [0, 1], finer towards its ends."""

from dataclasses import dataclass, field
from math import isfinite
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from scoring.metrics import FPR_LIMIT, Sweep, label_regions

BINS = 1 << 20
HALF = 0.5
SQUARES = 3  # scores are counted by the eighth root of how far they are from 0 or 1: 1e-12 is then told from 2e-12


@dataclass(frozen=True)
class Regions:
    """The abnormal pixels of masks (B, H, W), all counted in one row: where they are, and 1 / the pixels of the region
    that each lies in."""

    pixels: np.ndarray  # (P,) int64
    shares: np.ndarray  # (P,) float64
    count: int

    @staticmethod
    def of(masks: np.ndarray) -> "Regions":
        """Of masks that are non-zero where abnormal."""
        masks = np.asarray(masks) != 0
        shares, seen = [np.empty(0)], 0
        for mask in masks[masks.any(axis=(1, 2))]:
            regions, count = label_regions(mask)
            shares.append((1 / np.bincount(regions, minlength=count))[regions])
            seen += count
        return Regions(np.flatnonzero(masks), np.concatenate(shares), seen)


@dataclass
class PixelCounts:
    """How many pixels, how many abnormal ones, and how much of all regions lie in each of `bins` steps of [0, 1].

    Half of the steps are equal in the eighth roots of scores up to 1/2, half in those of what scores beyond are short
    of 1, since maps of saturated probabilities have nearly all their pixels close to an end. Scores in one step count
    as tied: AUROC and AUPRO move by some 1e-8, AP and F1-max by some 1e-6, in tests by 1e-6 and 3e-5 at most.
    """

    bins: int = BINS
    every: np.ndarray = field(init=False)
    positives: np.ndarray = field(init=False)
    overlap: np.ndarray = field(init=False)
    regions: int = field(default=0, init=False)
    lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.every, self.positives, self.overlap = (np.zeros(self.bins, kind) for kind in (np.int64, np.int64, float))

    def steps(self, maps: Tensor, out: Tensor | None = None) -> Tensor:
        """The step of every pixel of maps (B, H, W) in [0, 1], int32. Raises ValueError if a value is not a number."""
        out = torch.empty(maps.shape, dtype=torch.int32) if out is None else out
        if maps.numel() and not isfinite(sum(torch.stack(maps.aminmax()).tolist())):
            raise ValueError("an anomaly map holds a value that is not a finite number")
        roots = torch.minimum(maps, 1 - maps).clamp_(min=0)
        for _ in range(SQUARES):
            roots.sqrt_()
        roots.mul_(self._per_root)  # 0 to bins / 2 - 1
        return out.copy_(torch.where(maps > HALF, self.bins - 1 - roots, roots))  # rounds towards 0

    @property
    def _per_root(self) -> float:
        return (self.bins // 2 - 1) / HALF ** (1 / (1 << SQUARES))

    def least(self) -> np.ndarray:
        """The least score of every step, (bins,), but for rounding."""
        below = (np.arange(self.bins // 2) / self._per_root) ** (1 << SQUARES)
        return np.concatenate([below, 1 - below[::-1]])

    def count(self, steps: Tensor) -> None:
        """Add pixels, abnormal or not; from any thread, in any order."""
        found = torch.bincount(steps.flatten(), minlength=self.bins).numpy()
        with self.lock:
            self.every += found

    def mark(self, steps: Tensor, regions: Regions) -> None:
        """Say which of the pixels are abnormal, by the steps of those alone; sums take the order of the calls."""
        np.add.at(self.positives, steps.numpy(), 1)
        np.add.at(self.overlap, steps.numpy(), regions.shares)
        self.regions += regions.count

    def figures(self, fpr_limit: float = FPR_LIMIT) -> dict[str, float]:
        """As of `metrics.pixel_metrics`."""
        positives = int(self.positives.sum())
        sweep = Sweep(positives, int(self.every.sum()) - positives, fpr_limit)
        if sweep.positives and sweep.negatives:
            sweep.visit_bins(self.least(), self.positives, self.every - self.positives, self.overlap / self.regions)
        return sweep.figures() | {"aupro": sweep.aupro()}

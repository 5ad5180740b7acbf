"""Figures of more pixels than memory holds: one pass counts them in steps of [0, 1], finer towards 0."""

from dataclasses import dataclass, field
from math import isfinite
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from scoring.metrics import FPR_LIMIT, Sweep, label_regions

BINS = 1 << 20
SQUARES = 3  # scores are counted by their eighth roots: those of 1e-12 are then told apart as well


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

    Steps are equal in the scores' eighth roots, since maps of saturated probabilities have nearly all their pixels
    close to 0. Scores in one step count as tied: that moves AUROC and AUPRO by 1e-6 at most, AP and F1-max by 3e-5.
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
        low, high = torch.stack(maps.aminmax()).tolist() if maps.numel() else (0.0, 0.0)
        if not isfinite(low + high):
            raise ValueError("an anomaly map holds a value that is not a finite number")
        steps = (maps if low >= 0 else maps.clamp(min=0)).sqrt()
        for _ in range(SQUARES - 1):
            steps.sqrt_()
        return out.copy_(steps.mul_(self.bins).clamp_(max=self.bins - 1))  # rounds towards 0

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
            least = (np.arange(self.bins) / self.bins) ** (1 << SQUARES)
            sweep.visit_bins(least, self.positives, self.every - self.positives, self.overlap / self.regions)
        return sweep.figures() | {"aupro": sweep.aupro()}

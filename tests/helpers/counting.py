"""Pixel figures of maps in pieces, by the product's counts."""

from collections.abc import Iterable

import numpy as np
import torch

from scoring.metrics import FPR_LIMIT
from scoring.pixel_counts import BINS, PixelCounts, Regions


def binned_pixel_metrics(
    pieces: Iterable[tuple[np.ndarray, np.ndarray]], fpr_limit: float = FPR_LIMIT, bins: int = BINS
) -> dict[str, float]:
    """`metrics.pixel_metrics` by `PixelCounts`, of pieces: (maps (B, H, W) in [0, 1], masks (B, H, W)) in any number.

    Raises ValueError if a score is not finite.
    """
    counts = PixelCounts(bins)
    for maps, masks in pieces:
        steps, regions = counts.steps(torch.from_numpy(maps)), Regions.of(masks)
        counts.count(steps)
        counts.mark(steps.flatten()[torch.from_numpy(regions.pixels)], regions)
    return counts.figures(fpr_limit)

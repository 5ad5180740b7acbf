"""How good scores are: AUROC, average precision, F1-max and AUPRO, at image and at pixel level.

Everything here is a pure function of numpy arrays. Values are fractions in [0, 1]; one that is not defined,
because only one class is there, is nan. A larger score means more abnormal, and a score AT a threshold counts
as abnormal.

One sweep over the thresholds, from high to low, gives all figures exactly, ties as scikit-learn counts them.
Only the distinct scores of positives need a visit: a threshold between two of them adds false positives and
nothing else. Pixels are taken in bands of neighbouring scores, so that 214 million of them cost a few hundred
megabytes beside the maps themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import nan

import cv2
import numpy as np

FPR_LIMIT = 0.3
NEIGHBOURS = 8  # pixels that touch at a corner are one region

BAND = 1 << 24  # scores sorted at once
CHUNK = 1 << 22  # scores looked at at once
STEPS = 1 << 20  # distinct positive scores visited at once
SAMPLE = 1 << 16  # scores drawn to place the bands


def image_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """(N,) scores, (N,) labels in {0, 1} -> auroc, ap, f1_max and threshold: the score with the largest F1.

    All four are nan if only one class is there. Raises ValueError if a score is not finite or lengths differ.
    """
    scores, abnormal = _checked(scores, labels)
    sweep = Sweep(np.count_nonzero(abnormal), np.count_nonzero(~abnormal))
    if sweep.positives and sweep.negatives:
        sweep.visit(np.sort(scores[abnormal]), np.sort(scores[~abnormal]))
    return sweep.figures()


def at_threshold(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """Sensitivity and specificity of calling an image abnormal where `score >= threshold`.

    (N,) scores, (N,) labels in {0, 1}. nan for a class that is not there, for both if the threshold is nan.
    Raises ValueError as `image_metrics`.
    """
    scores, abnormal = _checked(scores, labels)
    called = scores >= float(threshold)

    def share(right: np.ndarray) -> float:
        return nan if np.isnan(threshold) or not right.size else float(np.mean(right))

    return {"sensitivity": share(called[abnormal]), "specificity": share(~called[~abnormal])}


def balanced_accuracy_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean of sensitivity and specificity at the threshold where it is largest: what no threshold of these scores
    can surpass, so what a threshold chosen elsewhere costs.

    (N,) scores, (N,) labels in {0, 1}. nan if only one class is there. Raises ValueError as `image_metrics`.
    """
    scores, abnormal = _checked(scores, labels)
    if abnormal.all() or not abnormal.any():
        return nan
    found, normal = np.sort(scores[abnormal]), np.sort(scores[~abnormal])
    sensitivity = 1 - np.arange(found.size) / found.size  # at each abnormal score, the least of equals first
    specificity = np.searchsorted(normal, found, side="left") / normal.size
    return float(np.max((sensitivity + specificity) / 2, initial=0.5))  # a half: nothing is called abnormal


def pixel_metrics(maps: np.ndarray, masks: np.ndarray, fpr_limit: float = FPR_LIMIT) -> dict[str, float]:
    """Anomaly maps and their masks -> auroc, ap, f1_max, threshold and aupro, over all pixels of all images.

    maps: (N, H, W) float32, may be memory-mapped, read several times and not changed. masks: (N, H, W), non-zero
    where abnormal.

    aupro is the per-region overlap, averaged over the 8-connected regions of the masks, against the false
    positive rate of all normal pixels: the area up to `fpr_limit` (trapezoids, interpolated at the limit)
    divided by `fpr_limit`, so that 1 is perfect. All figures are nan if no pixel is abnormal, or none normal.
    Raises ValueError if a score is not finite or shapes differ.
    """
    masks = np.asarray(masks)
    if maps.shape != masks.shape or maps.ndim != 3:
        raise ValueError(f"maps {maps.shape} and masks {masks.shape} must both be (N, H, W)")
    maps = maps.astype(np.float32, copy=False)
    scores, regions, weights = _positive_pixels(maps, masks)
    sweep = Sweep(scores.size, maps.size - scores.size, fpr_limit)
    if sweep.positives and sweep.negatives:
        for low, high in _bands(maps):
            inside = (scores >= low) & (scores < high)
            positives = scores[inside]
            order = np.argsort(positives)
            negatives, times = _negative_pixels(maps, masks, low, high)
            sweep.visit(positives[order], negatives, weights[regions[inside][order]], times)
    return sweep.figures() | {"aupro": sweep.aupro()}


@dataclass
class Sweep:
    """Sums over the thresholds passed so far: they come from high to low, all ties of a score together."""

    positives: int
    negatives: int
    fpr_limit: float = FPR_LIMIT
    positives_above: int = 0
    negatives_above: int = 0
    half_pairs: int = 0  # pairs in the right order count 2, ties 1: an exact integer
    precisions: float = 0.0  # each positive's precision at its own score, summed
    f1: float = -1.0
    threshold: float = nan
    area: float = 0.0  # under per-region overlap against false positives counted in pixels

    def visit(
        self, positives: np.ndarray, negatives: np.ndarray, weights: np.ndarray | None = None, times: int = 1
    ) -> None:
        """Pass one band: scores of both classes, each ascending; each negative stands for `times` of them.

        weights: float64, each positive's share of the mean overlap of regions, in the order of `positives`.
        """
        changes = np.flatnonzero(positives[1:] != positives[:-1]) + 1
        starts = np.concatenate([[0], changes]) if positives.size else changes
        counts = np.diff(starts, append=positives.size)
        for end in range(starts.size, 0, -STEPS):  # from high to low
            part = slice(max(0, end - STEPS), end)
            first, count = starts[part], counts[part]
            values = positives[first]
            below, upto = (times * rank for rank in _ranks(negatives, values))
            tied, above = upto - below, self.negatives_above + times * negatives.size - upto
            self._add(values, count, above, tied)
            if weights is not None:
                share = weights[first[0] : first[-1] + count[-1]]
                self._add_overlap(np.add.reduceat(share, first - first[0]), above, tied)
            self.positives_above += int(count.sum())
        self.negatives_above += times * negatives.size

    def visit_bins(self, least: np.ndarray, positives: np.ndarray, negatives: np.ndarray, overlap: np.ndarray) -> None:
        """Pass all bins, from low to high: the least score of each, how many scores of either class are in it, and the
        mean overlap found there."""
        above = self.negatives - np.cumsum(negatives)
        hit = np.flatnonzero(positives)
        self._add(least[hit], positives[hit], above[hit], negatives[hit])
        self._add_overlap(overlap[hit], above[hit], negatives[hit])

    def _add(self, values: np.ndarray, count: np.ndarray, above: np.ndarray, tied: np.ndarray) -> None:
        """Distinct positive scores, ascending; how many positives have each; negatives above and at each."""
        found = self.positives_above + np.cumsum(count[::-1])[::-1]
        called = found + above + tied
        self.half_pairs += int(np.sum(count * (2 * (self.negatives - above) - tied)))
        self.precisions += float(np.sum(count * (found / called)))
        f1 = 2 * found / (called + self.positives)
        best = int(np.argmax(f1))  # the first, so the lowest score
        if f1[best] >= self.f1:
            self.f1, self.threshold = float(f1[best]), float(values[best])

    def _add_overlap(self, rise: np.ndarray, above: np.ndarray, tied: np.ndarray) -> None:
        """Area that each rise of the mean overlap adds left of the limit.

        The curve climbs by `rise` while the false positives go from `above` to `above + tied`, then stays.
        """
        limit = self.fpr_limit * self.negatives
        room = np.maximum(limit - above, 0)
        climb = np.minimum(tied, room)
        reached = np.divide(climb, tied, out=np.ones(climb.shape), where=tied > 0)
        self.area += float(np.sum(rise * ((room - climb) + reached * climb / 2)))

    def figures(self) -> dict[str, float]:
        if not (self.positives and self.negatives):
            return dict.fromkeys(("auroc", "ap", "f1_max", "threshold"), nan)
        return {
            "auroc": self.half_pairs / (2 * self.positives * self.negatives),
            "ap": self.precisions / self.positives,
            "f1_max": self.f1,
            "threshold": self.threshold,
        }

    def aupro(self) -> float:
        if not (self.positives and self.negatives):
            return nan
        return self.area / (self.fpr_limit * self.negatives)


def _ranks(ascending: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of `ascending` lie below each value, and how many below or at it."""
    below = np.searchsorted(ascending, values, side="left")
    upto = below.copy()
    if ascending.size:  # ties are few: search a second time only for them
        tied = ascending[np.minimum(below, ascending.size - 1)] == values
        upto[tied] = np.searchsorted(ascending, values[tied], side="right")
    return below, upto


def label_regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The region of each abnormal pixel of a mask, bool (H, W), numbered from 0 and in the pixels' order; how many."""
    count, labelled = cv2.connectedComponents(mask.view(np.uint8), connectivity=NEIGHBOURS)
    return labelled[mask] - 1, count - 1  # 0 is what is normal


def finite(scores: np.ndarray) -> np.ndarray:
    """The scores; ValueError unless all are finite."""
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a finite number")
    return scores


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and `is abnormal`, both (N,)."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} must be of one length")
    return finite(scores), labels != 0


def _chunks(maps: np.ndarray) -> Iterator[slice]:
    """Runs of images with about CHUNK pixels."""
    step = max(1, CHUNK // max(1, maps[:1].size))
    for start in range(0, len(maps), step):
        yield slice(start, start + step)


def _positive_pixels(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of all abnormal pixels, the region each lies in, and every region's weight for a pixel.

    With R regions the weight is 1 / (R · pixels of the region): pixels found then sum to the mean overlap.
    """
    many = np.count_nonzero(masks)
    scores, regions = np.empty(many, np.float32), np.empty(many, np.int32)
    done = seen = 0
    for part in _chunks(maps):
        if not np.isfinite(maps[part]).all():
            raise ValueError("an anomaly map holds a value that is not a finite number")
        for values, mask in zip(maps[part], masks[part] != 0, strict=True):
            if mask.any():
                inside, count = label_regions(mask)
                here = slice(done, done + inside.size)
                scores[here], regions[here] = values[mask], inside + seen
                done, seen = here.stop, seen + count
    return scores, regions, 1 / (seen * np.bincount(regions, minlength=seen))


def _bands(maps: np.ndarray) -> list[tuple[np.float32, np.float32]]:
    """Half-open ranges of scores, from high to low, with about BAND pixels each.

    They are placed by a sample: that decides how long the work takes, never what comes out. A score that
    fills a band alone gets a range of its own, whose pixels need only be counted.
    """
    many = -(-maps.size // BAND)
    sites = np.random.default_rng(0).integers(0, maps.size, SAMPLE if many > 1 else 0)
    sample = np.sort(maps[np.unravel_index(sites, maps.shape)])
    cuts = sample[[SAMPLE * index // many for index in range(1, many)]]
    values, counts = np.unique(cuts, return_counts=True)
    ends = np.nextafter(values[counts > 1], np.float32(np.inf))
    edges = np.concatenate([np.float32([-np.inf]), np.union1d(values, ends), np.float32([np.inf])])
    return list(pairwise(edges))[::-1]


def _negative_pixels(maps: np.ndarray, masks: np.ndarray, low: np.float32, high: np.float32) -> tuple[np.ndarray, int]:
    """Sorted scores of the normal pixels in [low, high), and how many pixels each of them stands for."""
    alone = np.nextafter(low, np.float32(np.inf)) == high
    found, count = [], 0
    for part in _chunks(maps):
        inside = maps[part] >= low
        inside &= maps[part] < high
        inside &= masks[part] == 0
        if alone:
            count += np.count_nonzero(inside)
        else:
            found.append(maps[part][inside])
    if alone:
        return np.array([low] if count else [], np.float32), count
    scores = np.concatenate(found)
    scores.sort()
    return scores, 1

"""Whether two methods differ, by runs that share a seed; docs/study.md says why this test.

The test is the studentised bootstrap of the paired differences (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, sections 12.5 and 16.4), two-sided and symmetric. In `benchmarks.paired_tests` it holds its level for
normal and uniform differences of five and ten pairs; skewed ones it calls different in up to 7.4 % of the cases.
A difference is called one at LEVEL after Holm's correction.
"""

import itertools
from dataclasses import dataclass
from functools import cache
from math import factorial, prod

import numpy as np

LEVEL = 0.05
TEST = "studentised bootstrap of the paired differences"
EXACT = 6  # pairs up to which all resamples are counted
RESAMPLES = 10_000  # that are drawn for more pairs
SEED = 111
FEWEST = 5  # pairs from which an interval is given: of fewer it is wider than anything that it could be held against
CHUNK = 2_000_000  # numbers of a matrix of resamples held at a time


@dataclass(frozen=True)
class Paired:
    """Of M comparisons: the mean difference, its two-sided 95 % interval, and p, each (M,).

    p is nan where no test can be made: fewer than two pairs, or differences that are all the same but not zero (1 where
    all are zero). The interval is infinite there, and of fewer than FEWEST pairs.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


@cache
def resamples(pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each of `pairs` is in a resample, (R, pairs), and the resample's probability, (R,).

    Up to EXACT pairs all pairs ** pairs resamples, those that differ in order alone as one; else RESAMPLES drawn.
    """
    if pairs > EXACT:
        drawn = np.random.default_rng(SEED).multinomial(pairs, np.full(pairs, 1 / pairs), RESAMPLES)
        return drawn, np.full(RESAMPLES, 1 / RESAMPLES)
    places = itertools.combinations_with_replacement(range(pairs), pairs)
    counts = np.array([np.bincount(chosen, minlength=pairs) for chosen in places])
    orders = [factorial(pairs) / prod(map(factorial, row)) for row in counts.tolist()]
    return counts, np.array(orders) / pairs**pairs


def paired(differences: np.ndarray) -> Paired:
    """Test M comparisons at once. differences: (M, n) finite, a row the differences of one comparison's n pairs."""
    differences = np.asarray(differences, np.float64)
    count, pairs = differences.shape
    mean = differences.mean(1) if pairs else np.full(count, np.nan)
    low, high, p = np.full(count, -np.inf), np.full(count, np.inf), np.full(count, np.nan)
    if pairs >= 2:
        step = max(1, CHUNK // len(resamples(pairs)[1]))
        for start in range(0, count, step):
            part = slice(start, start + step)
            p[part], reach = _studentised(differences[part])
            low[part], high[part] = mean[part] - reach, mean[part] + reach
    same = ~_varies(differences)
    p[same & (pairs >= 2)] = np.nan
    p[same & (pairs >= 2) & (mean == 0)] = 1.0
    if pairs < FEWEST:
        same[:] = True
    low[same], high[same] = -np.inf, np.inf
    return Paired(mean, low, high, p)


def _studentised(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p, and half the length of the interval, of differences (M, n)."""
    pairs = differences.shape[1]
    counts, weights = resamples(pairs)
    centred = differences - differences.mean(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # rows without any spread, which `paired` takes out
        error = _error((centred**2).mean(1), pairs)
        observed = np.abs(differences.mean(1)) / error
        means = centred @ counts.T / pairs  # (M, R)
        spread = _error((centred**2) @ counts.T / pairs - means**2, pairs)
        drawn = np.abs(means) / spread
        # A resample of one pair alone has no spread: it is as far out as can be.
        drawn[:, counts.max(1) == pairs] = np.inf
        drawn = np.nan_to_num(drawn, nan=np.inf, posinf=np.inf)
        p = (weights * (drawn >= observed[:, None] * (1 - 1e-12))).sum(1)
        return np.minimum(p, 1.0), _quantile(drawn, weights) * error


def _error(variance: np.ndarray, pairs: int) -> np.ndarray:
    """The standard error of a mean, from the mean square deviation."""
    return np.sqrt(np.maximum(variance, 0) / (pairs - 1))


def _quantile(drawn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The value that |t| exceeds with a probability of LEVEL at most, a row each."""
    if drawn.shape[1] == RESAMPLES:  # drawn, of one weight: no need to sort
        at = int(np.ceil((1 - LEVEL) * RESAMPLES)) - 1
        return np.partition(drawn, at, axis=1)[:, at]
    order = np.argsort(drawn, axis=1)
    below = np.cumsum(weights[order], axis=1)
    at = (below < 1 - LEVEL - 1e-12).sum(1)
    return np.take_along_axis(drawn, order, 1)[np.arange(len(drawn)), at]


def _varies(differences: np.ndarray) -> np.ndarray:
    """Where a row holds more than one value, rounding of sums left out of account."""
    if not differences.shape[1]:
        return np.zeros(len(differences), bool)
    reach = np.ptp(differences, axis=1)
    return reach > 1e-12 * np.maximum(1, np.abs(differences).max(1))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of the p that are numbers, (M,); nan stays nan and counts for nothing."""
    p = np.asarray(p, np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    if len(order):
        scaled = p[order] * np.arange(len(order), 0, -1)
        adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted


def least_p(pairs: int) -> float:
    """The smallest p that `pairs` pairs can give: that of the resamples of one pair alone; nan below two pairs."""
    return float(pairs ** (1 - pairs)) if pairs >= 2 else float("nan")

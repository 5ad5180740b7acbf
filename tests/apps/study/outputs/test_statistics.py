"""The paired test on what can be worked out by hand, Holm's correction, and the choice of the test."""

import itertools
import math

import numpy as np
import pytest

from apps.study.outputs.statistics import LEVEL, holm, least_p, paired, resamples
from benchmarks import paired_tests

RNG = np.random.default_rng(5)


def by_hand(differences: list[float]) -> float:
    """p over all resamples, one after the other."""
    mean, count = np.mean(differences), len(differences)
    observed = abs(mean) / (np.std(differences, ddof=1) / math.sqrt(count))
    beyond = 0
    for drawn in itertools.product(differences, repeat=count):
        error = np.std(drawn, ddof=1) / math.sqrt(count)
        beyond += len(set(drawn)) == 1 or abs(np.mean(drawn) - mean) / error >= observed * (1 - 1e-9)
    return beyond / count**count


@pytest.mark.parametrize("pairs", [2, 3, 4, 5])
def test_p_is_the_share_of_all_resamples(pairs):
    rows = RNG.normal(0.8, 1, (4, pairs))
    assert paired(rows).p == pytest.approx([by_hand(row.tolist()) for row in rows], abs=1e-9)


@pytest.mark.parametrize("pairs", range(1, 7))
def test_resamples_are_all_there_with_their_probabilities(pairs):
    counts, weights = resamples(pairs)
    assert len(counts) == math.comb(2 * pairs - 1, pairs) and (counts.sum(1) == pairs).all()
    assert weights.sum() == pytest.approx(1) and (weights * pairs**pairs).sum() == pytest.approx(pairs**pairs)
    assert weights @ counts == pytest.approx(np.ones(pairs))


def test_many_pairs_are_drawn_by_a_seed_and_tell_a_shift_from_none():
    shifted, noise = RNG.normal(3, 1, (5, 10)), RNG.normal(0, 1, (200, 10))
    assert (paired(shifted).p <= LEVEL).all() and np.mean(paired(noise).p <= LEVEL) < 0.1
    assert paired(noise).p.tolist() == paired(noise).p.tolist()


@pytest.mark.parametrize("pairs", [5, 6, 10])
def test_the_interval_leaves_zero_out_where_p_is_small(pairs):
    tested = paired(RNG.normal(1.0, 1, (300, pairs)))
    outside = (tested.low > 0) | (tested.high < 0)
    clear = np.abs(tested.p - LEVEL) > 1e-3
    assert (outside == (tested.p <= LEVEL))[clear].all() and 0 < outside.mean() < 1
    assert ((tested.low + tested.high) / 2 == pytest.approx(tested.mean)) and np.isfinite(tested.low).all()


def test_units_and_order_change_nothing():
    rows = RNG.normal(0.5, 1, (20, 5))
    assert paired(rows * 100).p == pytest.approx(paired(rows).p)
    assert paired(rows[:, ::-1]).p == pytest.approx(paired(rows).p)
    assert paired(-rows).p == pytest.approx(paired(rows).p)


@pytest.mark.parametrize(
    ("row", "p"), [([0.3], math.nan), ([0.2] * 5, math.nan), ([0.0] * 5, 1.0), ([1.0, 2.0, 3.0], 1 / 9)]
)
def test_what_no_test_can_be_made_of(row, p):
    tested = paired(np.array([row]))
    assert tested.mean[0] == pytest.approx(np.mean(row)) and tested.p[0] == pytest.approx(p, nan_ok=True, abs=0.25)
    assert tested.low[0] == -math.inf and tested.high[0] == math.inf


def test_few_pairs_can_not_reach_the_level():
    assert paired(np.array([[1.0, 1.01, 0.99]])).p[0] > LEVEL
    assert [least_p(pairs) for pairs in (2, 3, 5)] == [0.5, 1 / 9, 1 / 625] and math.isnan(least_p(1))
    assert paired(np.array([[1.0, 1.01, 0.99, 1.02, 0.98]])).p[0] == pytest.approx(least_p(5))


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.6, 0.9, math.nan])) == pytest.approx([1, 1, math.nan], nan_ok=True)
    assert holm(np.array([])).tolist() == []


def test_the_rule_of_the_benchmark():
    cases = [(kind, pairs) for kind in paired_tests.DRAWS for pairs in paired_tests.PAIRS]
    good, bad = dict.fromkeys(cases, 0.04), dict.fromkeys(cases, 0.2)
    power = {"studentised bootstrap": 0.4, "percentile bootstrap": 0.9, "Wilcoxon signed-rank": 0.0, "paired t": 0.7}

    def chosen(**rates: dict) -> str:
        return paired_tests.chosen(dict(zip(power, rates.values(), strict=True)), power)

    assert chosen(s=good, p=bad, w=good, t=good) == "studentised bootstrap"
    assert chosen(s=good, p=good, w=good, t=good) == "percentile bootstrap"
    assert chosen(s=bad, p=bad, w=good, t=good) == "paired t"  # Wilcoxon has no power at n = 5
    assert chosen(s=bad, p=bad, w=good, t=bad) == "none"
    skewed = good | {case: 0.2 for case in cases if case[0] == "skewed"}
    assert chosen(s=bad, p=bad, w=bad, t=skewed) == "paired t"


def test_the_candidates_are_what_they_are_called():
    rows = RNG.normal(0, 1, (300, 5))
    assert not paired_tests.wilcoxon(rows).any()  # p can't go below 0.0625
    assert paired_tests.percentile(rows).mean() > paired_tests.paired_t(rows).mean() > 0
    assert paired_tests.studentised(rows).mean() <= paired_tests.paired_t(rows).mean()

"""What out-of-fold scores say of verdicts: thresholds by rule, intervals, conformal p-values, probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InputError
from scoring.reliability import (
    Evidence,
    ThresholdRule,
    Verdict,
    auroc_interval,
    best_threshold,
    false_alarms,
    fit_logistic,
    normal_quantile,
)
from scoring.reliability_words import GUESSES, sentences, threshold_words

BALANCED = ThresholdRule("balanced")
SCORES = st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12)


def evidence(normal: list[float], abnormal: list[float], held_out: bool = True) -> Evidence:
    return Evidence(tuple(normal), tuple(abnormal), held_out)


@pytest.mark.parametrize("text", ["f1", "balanced", "recall:0.95", "specificity:.9"])
def test_rules_are_read(text):
    name, _, share = text.partition(":")
    found = ThresholdRule.parse(text)
    assert found.name == name and (math.isnan(found.share) if not share else found.share == float(share))


@pytest.mark.parametrize(
    "text", ["", "F1", "recall", "recall:", "recall:1", "recall:0", "recall:1.0", "f1:0.5", "specificity:nan"]
)
def test_other_rules_are_refused(text):
    with pytest.raises(InputError, match="--threshold_rule"):
        ThresholdRule.parse(text)


def test_evidence_is_of_images_as_they_are():
    found = Evidence.of(np.array([4.0, 1, 2, 3, 5]), np.array([1, 0, 0, 0, 1]), np.array([9, 0, 1, 0, 9]))
    assert found == Evidence((1.0, 2.0), (4.0,))


def test_interval_of_four_and_four():
    """At separation the lower end solves (1 - t)^2 = z^2 t (1 - t) (1 + 3 (1 - t) / (2 - t) + 3 t / (1 + t)) / 16."""
    apart = auroc_interval([0, 1, 2, 3], [4, 5, 6, 7])
    assert (apart.auroc, apart.high) == (1, 1) and apart.low == pytest.approx(0.582, abs=1e-3)
    t = apart.low
    spread = t * (1 - t) * (1 + 3 * (1 - t) / (2 - t) + 3 * t / (1 + t)) / 16
    assert (1 - t) ** 2 == pytest.approx(1.959964**2 * spread)
    assert not apart.by_chance
    mixed = auroc_interval([0, 1, 2, 5], [3, 4, 6, 7])
    assert mixed.auroc == 14 / 16 and mixed.by_chance


def test_ties_count_half_and_the_interval_mirrors():
    found = auroc_interval([1, 1], [1, 1])
    assert found.auroc == 0.5 and found.low == pytest.approx(1 - found.high) and found.by_chance
    assert auroc_interval([4, 5, 6, 7] * 9, [0, 1, 2, 3] * 9).by_chance  # the wrong way round is no separation either


@given(SCORES, SCORES)
def test_interval_holds_its_auroc(normal, abnormal):
    found = auroc_interval(normal, abnormal)
    assert 0 <= found.low <= found.auroc <= found.high <= 1


def test_balanced_threshold_lies_where_either_label_is_as_probable():
    known = evidence([0, 1, 2, 3], [4, 5, 6, 7])
    threshold = known.threshold(BALANCED)
    assert threshold == pytest.approx(3.5) and known.probability(threshold) == pytest.approx(0.5)
    assert known.rates(threshold) == (5 / 6, 5 / 6)


def test_f1_threshold_does_not_call_all_abnormal_where_classes_overlap_little():
    assert evidence([0, 1, 2, 5], [4, 6, 7, 8]).threshold(ThresholdRule("f1")) == pytest.approx(3)
    assert best_threshold([0, 1, 2, 5], [4, 6, 7, 8]) == 3


def test_a_slope_of_zero_falls_back_to_the_middle():
    known = evidence([5, 6, 7, 8], [1, 2, 3, 4])
    assert known.logistic[0] == 0
    assert known.threshold(BALANCED) == 4.5  # and not the lowest score, which would call everything abnormal
    assert known.probability(0) == known.probability(100) == pytest.approx(0.5)
    assert known.uncertain(100, known.threshold(BALANCED))


@given(SCORES, SCORES)
def test_probability_rises_with_the_score(normal, abnormal):
    known = evidence(normal, abnormal)
    values = [known.probability(score) for score in (-6, -1, 0, 1, 6)]
    assert values == sorted(values) and 0 <= values[0] <= values[-1] <= 1


def test_unlike_counts_do_not_move_the_threshold():
    few, many = evidence([0, 1, 2, 3], [4, 5, 6, 7]), evidence([0, 1, 2, 3], [4, 5, 6, 7] * 8)
    assert few.threshold(BALANCED) == pytest.approx(many.threshold(BALANCED), abs=1e-3)


def test_one_image_of_a_label_promises_nothing():
    one, two = evidence([0], []), evidence([0], [1])
    assert one.uncertain(5, one.threshold(BALANCED)) and one.p_value(5) == 0.5
    assert "up to 50%" in sentences(one, one.threshold(BALANCED))[0]
    assert two.separation.by_chance and two.uncertain(1, two.threshold(BALANCED))
    assert "promises too much" in sentences(two, two.threshold(BALANCED))[0]


def test_what_few_abnormal_images_can_promise_of_recall():
    assert "at least 80%" in threshold_words("recall:0.95", 4, 4)
    assert "at least 95%" in threshold_words("recall:0.95", 4, 40)


def test_few_images_promise_no_certainty():
    slope, offset = fit_logistic([0] * 4, [1] * 4)
    assert 1 / (1 + math.exp(-(slope + offset))) == pytest.approx(5 / 6, abs=1e-3)  # Platt's (n + 1) / (n + 2)


@pytest.mark.parametrize("count, share, rank", [(19, 0.95, 19), (39, 0.95, 38), (99, 0.95, 95), (9, 0.8, 8)])
def test_conformal_quantile(count, share, rank):
    threshold = normal_quantile(list(range(1, count + 1)), share)
    assert rank < threshold < rank + 1e-3


def test_of_few_normal_images_the_highest_and_what_it_promises():
    known = evidence([1, 2, 3, 4], [])
    assert 4 < known.threshold(BALANCED) < 4.001 and false_alarms(4) == 0.2
    assert false_alarms(99) == pytest.approx(0.05)
    assert "20%" in threshold_words("balanced", 4, 0)
    (said,) = sentences(known, known.threshold(BALANCED))
    assert "4 normal images" in said and "up to 20%" in said and "0 reach" in said


def test_conformal_p_values_are_valid():
    """Of exchangeable scores p is at most a with a probability of at most a."""
    rng, hits = np.random.default_rng(0), {0.1: 0, 0.2: 0, 0.5: 0}
    for _ in range(2000):
        *known, new = rng.normal(size=10)
        p = evidence(known, []).p_value(new)
        hits = {level: count + (p <= level) for level, count in hits.items()}
    for level, count in hits.items():
        assert abs(count / 2000 - level) < 0.03  # nine images and one give steps of a tenth


def test_recall_and_specificity_keep_their_share():
    known = evidence([*range(1, 20)], [*range(11, 30)])
    high = known.threshold(ThresholdRule("specificity", 0.9))
    assert sum(score >= high for score in known.normal) == 1
    low = known.threshold(ThresholdRule("recall", 0.9))
    assert sum(score >= low for score in known.abnormal) == 18


def test_verdicts():
    known = evidence([0, 1, 2, 3], [10, 11, 12, 13])
    threshold = known.threshold(BALANCED)
    sure, close = (Verdict.of(score, threshold, known) for score in (13, threshold))
    assert sure.abnormal and sure.confidence > 0.75 and not sure.uncertain and sure.p_value == 0.2
    assert close.abnormal and close.confidence == pytest.approx(0.5) and close.uncertain
    assert Verdict.of(0, threshold, known).p_value == 1
    assert Verdict.of(1.0, 0.5, None) == Verdict(1.0, 0.5, True)
    assert Verdict.of(1.0, 0.5, evidence([0], [1], held_out=False)) == Verdict(1.0, 0.5, True)


def test_of_normal_images_alone_what_is_near_the_threshold_is_uncertain():
    known = evidence([1, 2, 3, 4], [])
    threshold = known.threshold(BALANCED)
    assert [known.uncertain(score, threshold) for score in (2.5, 3.5, 4.5, 5.5)] == [False, True, True, False]
    assert known.confidence(9, threshold) == pytest.approx(0.8)


def test_what_is_said():
    apart, mixed = evidence([0, 1, 2, 3], [4, 5, 6, 7]), evidence([0, 1, 2, 9], [3, 4, 5, 6])
    (said,) = sentences(apart, 3.5)
    assert "AUROC 1.00 [0.58, 1.00]" in said and "sensitivity 0.83, specificity 0.83" in said
    assert sentences(mixed, 2.5)[1] == GUESSES
    assert "--folds" in sentences(evidence([0], [1], held_out=False), 0.5)[0]
    assert sentences(evidence([], [1]), 2) == []

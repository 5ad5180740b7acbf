"""What scores of images that a system has not seen say of its verdicts: threshold, confidence, expected error.

The images are the support's, each scored out of fold: by a system that was trained and filled without it. Few as they
are, statements carry an interval, and rates that so few images can't promise are not promised.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from runtime.errors import InputError

RULES = ("f1", "balanced", "recall", "specificity")
LEVEL = 1.959964  # standard deviations of a 95 % interval
TINY = 1e-9
CHANCE = 0.5  # AUROC of guessing
FALSE_ALARMS = 0.05  # share of normal images that may be called abnormal where no abnormal image is known
SURE = 0.75  # a verdict that is less probable than this is uncertain


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen: "f1" has the highest F1, "balanced" is where either label is as probable, "recall" and
    "specificity" keep a share of abnormal, or of normal, images on the right side."""

    name: str
    share: float = math.nan

    @staticmethod
    def parse(text: str) -> "ThresholdRule":
        """f1, balanced, recall:0.95, specificity:0.95; InputError for anything else."""
        name, colon, share = text.partition(":")
        number = re.fullmatch(r"0?\.[0-9]{1,6}", share)
        if name not in RULES or bool(colon) != (name in RULES[2:]) or (colon and not (number and float(share) > 0)):
            raise InputError(
                f"--threshold_rule {text} is none of f1, balanced, recall:R, specificity:S, with R and S between 0 and "
                "1 as in recall:0.95"
            )
        return ThresholdRule(name, float(share) if colon else math.nan)


@dataclass(frozen=True)
class Separation:
    """AUROC of out-of-fold scores with its 95 % interval."""

    auroc: float
    low: float
    high: float

    @property
    def by_chance(self) -> bool:
        """Whether guessing would do as well, for all that these images say."""
        return self.low <= CHANCE <= self.high or self.high < CHANCE


@dataclass(frozen=True)
class Evidence:
    """Scores of the support's images as they are, on the calibrated scale; either label may be empty.

    Their variants have no say: new images come as they are too, and turned or moved ones score higher.
    held_out: whether no image was known to the system that scored it; else nothing is said of how sure verdicts are.
    """

    normal: tuple[float, ...]
    abnormal: tuple[float, ...]
    held_out: bool = True

    @staticmethod
    def of(scores: np.ndarray, labels: np.ndarray, images: np.ndarray, held_out: bool = True) -> "Evidence":
        """From scores (V,), labels (V,) in {0, 1} and image numbers (V,), an image as it is before its variants."""
        first = np.unique(images, return_index=True)[1]
        parts = (scores[np.sort(first[labels[first] == label])] for label in (0, 1))
        return Evidence(*(tuple(map(float, part)) for part in parts), held_out)

    @property
    def both(self) -> bool:
        """Whether both labels are there."""
        return bool(self.normal and self.abnormal)

    @cached_property
    def separation(self) -> Separation | None:
        """Between both labels, if both are there and held out."""
        return auroc_interval(self.normal, self.abnormal) if self.both and self.held_out else None

    @cached_property
    def logistic(self) -> tuple[float, float] | None:
        """Slope (0 or more) and offset of the probability of "abnormal", if both labels are there."""
        if not self.both:
            return None
        return fit_logistic(self.normal, self.abnormal)

    def threshold(self, rule: ThresholdRule) -> float:
        """The score from which an image is abnormal.

        "balanced": where either label is equally probable (`logistic`, since the best cut through a few images jumps
        with each of them), the middle of the medians where that never is within the scores. Without abnormal images a
        quantile of the normal ones, by `normal_quantile`; without normal images just above all scores.
        """
        if not self.normal:
            return float(np.nextafter(np.float32(max(self.abnormal)), np.float32(np.inf)))
        if rule.name == "specificity" or not self.abnormal:
            share = rule.share if rule.name == "specificity" else 1 - FALSE_ALARMS
            return normal_quantile(self.normal, share)
        if rule.name == "recall":
            return lower_quantile(self.abnormal, rule.share)
        if rule.name == "f1":
            return best_threshold(self.normal, self.abnormal)
        slope, offset = self.logistic
        every = (*self.normal, *self.abnormal)
        even = -offset / slope if slope > 0 else math.inf
        return (
            even if min(every) <= even <= max(every) else float(np.median(self.normal) + np.median(self.abnormal)) / 2
        )

    def rates(self, threshold: float) -> tuple[float, float]:
        """Expected sensitivity and specificity: the shares found right, drawn towards a half as by one image more of
        each kind on either side (Laplace), since a few images can't promise certainty. nan without such images."""
        found = sum(score >= threshold for score in self.abnormal)
        passed = sum(score < threshold for score in self.normal)
        counted = ((found, len(self.abnormal)), (passed, len(self.normal)))
        sensitivity, specificity = ((right + 1) / (count + 2) if count else math.nan for right, count in counted)
        return sensitivity, specificity

    def p_value(self, score: float) -> float:
        """Conformal: among the normal images and this one, the share with a score as high. In (0, 1]; a normal image
        gets p or less with a probability of at most p. nan without normal images."""
        if not self.normal:
            return math.nan
        return (1 + sum(one >= score for one in self.normal)) / (len(self.normal) + 1)

    def probability(self, score: float) -> float:
        """That an image is abnormal, if both kinds are as frequent; rises with the score. nan without both labels."""
        if self.logistic is None:
            return math.nan
        slope, offset = self.logistic
        return float(1 / (1 + math.exp(-max(-700.0, min(700.0, slope * score + offset)))))

    def confidence(self, score: float, threshold: float) -> float:
        """How probable a verdict is, in [0, 1]: with both labels that of its side, with normal images alone 1 - p of
        an abnormal one and p of a normal one."""
        abnormal = score >= threshold
        if self.logistic is not None:
            found = self.probability(score)
            return found if abnormal else 1 - found
        p = self.p_value(score)
        return 1 - p if abnormal else p

    def uncertain(self, score: float, threshold: float) -> bool:
        """Whether a verdict is a guess: less than `SURE` probable. With normal images alone an abnormal one is; so is
        what is above those whose p is more than twice that of the highest few called abnormal, and as near to the
        threshold on its other side.
        """
        if not self.normal:
            return True
        if self.logistic is not None or score >= threshold:
            unsure = self.confidence(score, threshold) < SURE
            if unsure or self.logistic is not None:
                return unsure
        usual = [one for one in self.normal if self.p_value(one) > 2 * false_alarms(len(self.normal))]
        band = threshold - max(usual, default=min(self.normal))
        return threshold - band < score < threshold + band


@dataclass(frozen=True)
class Verdict:
    """What an image's score means. abnormal: whether it reaches the threshold. confidence: how probable the verdict is,
    p_value: conformal, against the normal images; None where no image says. uncertain: whether it is a guess."""

    score: float
    threshold: float
    abnormal: bool
    confidence: float | None = None
    p_value: float | None = None
    uncertain: bool = False

    @staticmethod
    def of(score: float, threshold: float, evidence: Evidence | None) -> "Verdict":
        """By the evidence of scores like this one, if it is of images held out."""
        if evidence is None or not evidence.held_out:
            return Verdict(score, threshold, score >= threshold)
        found = evidence.confidence(score, threshold), evidence.p_value(score)
        confidence, p_value = (None if math.isnan(one) else one for one in found)
        return Verdict(score, threshold, score >= threshold, confidence, p_value, evidence.uncertain(score, threshold))


def auroc_interval(normal: Sequence[float], abnormal: Sequence[float]) -> Separation:
    """AUROC with a score-type 95 % interval that holds at 0 and 1 and for a few images (Newcombe, "Confidence intervals
    for an effect size measure based on the Mann-Whitney statistic, part 2", 2006, method 5)."""
    from scipy.optimize import brentq  # half a second, and 40 MB, that a test of a known checkpoint does without

    pairs = np.sign(np.subtract.outer(np.asarray(abnormal), np.asarray(normal)))
    auroc = float((pairs.mean() + 1) / 2)
    more = (len(normal) + len(abnormal)) / 2 - 1

    def beyond(theta: float) -> float:
        spread = theta * (1 - theta) * (1 + more * (1 - theta) / (2 - theta) + more * theta / (1 + theta))
        return (auroc - theta) ** 2 - LEVEL**2 * spread / pairs.size

    low = 0.0 if auroc == 0 else brentq(beyond, 0.0, min(auroc, 1 - TINY))  # at 0 and 1 the spread is none
    high = 1.0 if auroc == 1 else brentq(beyond, max(auroc, TINY), 1.0)
    return Separation(auroc, float(low), float(high))


def normal_quantile(scores: Sequence[float], share: float) -> float:
    """The threshold that at least `share` of new images like these stay below, by conformal reasoning.

    Of n images the k-th smallest score with k = ceil((n + 1) share); where n is too small for any (k > n), the highest,
    and then 1 in n + 1 is all that can be promised (`false_alarms`). The threshold is just above that score.
    """
    place = min(len(scores), math.ceil((len(scores) + 1) * share - 1e-9))
    return float(np.nextafter(np.float32(sorted(scores)[place - 1]), np.float32(np.inf)))


def false_alarms(count: int, share: float = 1 - FALSE_ALARMS) -> float:
    """The share of new images that may lie beyond a quantile of `count` images, at most: of normal ones above that of
    `normal_quantile`, of abnormal ones below that of `lower_quantile`."""
    return max(1 - share, 1 / (count + 1))


def lower_quantile(scores: Sequence[float], share: float) -> float:
    """The threshold that at least `share` of new images like these reach, as `normal_quantile`: one of the scores."""
    place = min(len(scores), math.ceil((len(scores) + 1) * share - 1e-9))
    return float(sorted(scores, reverse=True)[place - 1])


def best_threshold(normal: Sequence[float], abnormal: Sequence[float]) -> float:
    """The threshold with the highest F1; of several that are as good the middle of the widest run of them, since new
    images will not lie where these few do."""
    scores = np.unique(np.concatenate([normal, abnormal]).astype(np.float64))
    above = np.nextafter(np.float32(scores[-1]), np.float32(np.inf))
    edges = np.concatenate([scores[:1], (scores[1:] + scores[:-1]) / 2, [above]])
    hits, called = (np.array([np.sum(np.asarray(part) >= edge) for edge in edges]) for part in (abnormal, normal))
    value = 2 * hits / (hits + called + len(abnormal))
    (best,) = np.nonzero(value >= value.max() - 1e-12)
    ends = np.concatenate([[scores[0]], scores, [scores[-1]]])  # what lies on either side of an edge
    widest = best[np.argmax(ends[best + 1] - ends[best])]
    return float(edges[widest])


def fit_logistic(normal: Sequence[float], abnormal: Sequence[float]) -> tuple[float, float]:
    """Slope (0 or more) and offset of a logistic probability of "abnormal", both kinds weighing the same.

    Platt's fit ("Probabilistic outputs for support vector machines", 1999) with his softened targets, (n + 1) / (n + 2)
    of n images: a few that separate well do not make a probability of 1. n is that of the rarer kind for both, since
    targets of unlike softness would move the point where either is as probable.
    """
    from scipy.optimize import minimize  # as in `auroc_interval`

    scores = np.concatenate([normal, abnormal])
    center, spread = scores.mean(), scores.std() or 1.0
    scaled = (scores - center) / spread
    labels = np.repeat([0.0, 1.0], [len(normal), len(abnormal)])
    rarer = min(len(normal), len(abnormal))
    soft = np.where(labels == 1, rarer + 1, 1) / (rarer + 2)
    weights = np.where(labels == 1, 0.5 / len(abnormal), 0.5 / len(normal))

    def cost(line: np.ndarray) -> tuple[float, np.ndarray]:
        logits = line[0] * scaled + line[1]
        slope = weights * (1 / (1 + np.exp(-np.clip(logits, -500, 500))) - soft)
        value = np.sum(weights * (np.logaddexp(0, logits) - soft * logits))
        return float(value), np.array([slope @ scaled, slope.sum()])

    slope, offset = minimize(cost, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]).x
    return float(slope / spread), float(offset - slope * center / spread)

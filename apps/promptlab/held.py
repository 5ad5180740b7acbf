"""What the lab holds of images and sentences, and what it makes of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from torch import Tensor

import prompt
from dataset import Sample
from engine.findings import Finding
from scoring.calibration import Calibration, CalibrationRule, Known
from scoring.maps import scaled_maps
from scoring.patch_scores import PatchScores, patch_scores
from scoring.raw_scores import RawScores, main_branch


@dataclass(frozen=True)
class HeldImage:
    """What is kept of an image: by head its tokens (1, L, D) a tap, and its distances to the bank (1, T, G, G)."""

    tokens: dict[str, list[Tensor]]
    few: dict[str, Tensor | None]

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(level.nbytes for levels in self.tokens.values() for level in levels)

    def scores(self, head: str, text: Tensor) -> PatchScores:
        """The image's patch scores under text directions (D, 2)."""
        return replace(patch_scores(self.tokens[head], text, None), few=self.few[head])


@dataclass(frozen=True)
class HeldSupport:
    """What calibrates: held support images that the bank knows without themselves, what is known of them, and what
    they decide."""

    held: list[HeldImage]
    known: Known
    rule: CalibrationRule


@dataclass(frozen=True)
class Words:
    """A set of prompts, encoded: sentences of both labels, their unit features (N, D) and (M, D), directions (D, 2)."""

    normal: list[str]
    abnormal: list[str]
    features: tuple[Tensor, Tensor]
    text: Tensor
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """As a run's record has it."""
        return prompt.digest(self.normal, self.abnormal)


@dataclass(frozen=True)
class PromptResult:
    """What a set of prompts makes of N images: scores (N,) by branch on the calibration's scale.

    figures: by branch, as test scripts give them, over these images alone; empty where the label is not known.
    findings: the regions of one image that `judge` calls abnormal.
    """

    samples: tuple[Sample, ...]
    words: Words
    seen: RawScores
    scores: dict[str, Tensor]
    figures: dict[str, dict[str, float]]
    calibration: Calibration
    size: int
    findings: tuple[Finding, ...] = ()

    @property
    def branch(self) -> str:
        """The branch that is shown: the fusion, or the only one that is on."""
        return main_branch(self.seen.map_patches)

    @property
    def threshold(self) -> float:
        """The score from which on an image counts as abnormal; nan where nothing says."""
        return self.calibration.image.get(self.branch, nan)

    @property
    def pixel_threshold(self) -> float:
        """The same of a map's pixels."""
        return self.calibration.pixel.get(self.branch, nan)

    def parts(self, row: int) -> dict[str, float]:
        """An image's score by branch, all of one place: where the score is a map's maximum, the place of the shown
        branch's. So that zero and few add up to fused; `scores` are each branch's own maximum.
        """
        if self.seen.mean_patches is not None:
            return {branch: float(scores[row]) for branch, scores in self.scores.items()}
        patches, limits = self.seen.map_patches[row : row + 1], self.calibration.maps
        maps = {branch: next(scaled_maps(patches, limits, self.size, branch)).flatten() for branch in self.scores}
        place = int(maps[self.branch].argmax())
        return {branch: float(values[place]) for branch, values in maps.items()}

    def maps(self) -> Iterator[np.ndarray]:
        """Each image's map (S, S) float32; 0 to 1 is the calibration's range."""
        for part in scaled_maps(self.seen.map_patches, self.calibration.maps, self.size, self.branch):
            yield from part.numpy()


@dataclass(frozen=True)
class Pull:
    """A sentence and its effect on an image: the prompt score with it less the score without it, within -1 to 1.

    The prompt score is the zero branch's, as the mean over taps of the probability of "abnormal", read on the patch
    grid: the map's maximum, or its mean where that is how the object is scored.
    """

    sentence: str
    effect: float

"""Methods of others on the same frozen trunk: nothing is trained, tokens (B, L, C) a tap go in, patch scores come out.

Each is fitted on the support's tokens and scores an image's: "map" are patch scores whose maps are the anomaly maps,
"image" a grid of one patch that holds the image's score, where that is not the map's maximum.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from scoring.patch_scores import PatchScores

MAP, IMAGE = "map", "image"  # names of what `score` gives


class Baseline(Protocol):
    """A fitted baseline."""

    @property
    def branch(self) -> str:
        """The branch that stands for it: "zero", "few" or "fused"."""

    def score(self, levels: Sequence[Tensor]) -> dict[str, PatchScores]:
        """Patch scores of B images by `MAP` and `IMAGE`, from tokens (B, L, C) a tap, class token first."""

    def tensors(self) -> dict[str, Tensor]:
        """What its scores depend on beside the images and the trunk."""

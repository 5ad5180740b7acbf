"""Patch scores: what the zero branch (text) and the few branch (memory bank) say of every patch ("Scoring").

Of every image only these are kept; full-size maps are built from them in passes (maps.py). Tokens are (B, L, h) with
the class token first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from decoder import patch_logits, to_grid
from runtime import distributed
from scoring.memory_bank import MemoryBank

BRANCHES = ("zero", "few", "fused")


@dataclass(frozen=True)
class ScoreRecipe:
    """How maps, image scores and figures are made of patch scores; by default as published.

    smooth: deviation of the Gaussian that maps are smoothed by, in pixels; 0: none. top: share of a map's pixels, the
    highest, whose mean is the image score; 0: the maximum. support_scaled: figures are of scores as the support scales
    and fuses them, not min-max scaled over the test set.
    """

    smooth: float = 0.0
    top: float = 0.0
    support_scaled: bool = False


AS_PUBLISHED = ScoreRecipe()


@dataclass(frozen=True)
class PatchScores:
    """Scores on the patch grid of N images, float32; a branch that is off is None. They lie on the CPU, but for those
    of a batch where `patch_scores` makes them."""

    zero: Tensor | None  # (N, T, G, G), logits of `patch_logits`
    few: Tensor | None  # (N, T, G, G), distances in [0, 2]
    recipe: ScoreRecipe = AS_PUBLISHED

    @staticmethod
    def join(parts: list["PatchScores"]) -> "PatchScores":
        """The scores of several batches as one."""
        zero, few = ([getattr(part, name) for part in parts] for name in ("zero", "few"))
        joined = (None if values[0] is None else torch.cat(values) for values in (zero, few))
        return PatchScores(*joined, parts[0].recipe)

    def by_recipe(self, recipe: ScoreRecipe) -> "PatchScores":
        """The same scores, of which maps are made otherwise."""
        return self if recipe == self.recipe else replace(self, recipe=recipe)

    def of_taps(self, taps: Sequence[int]) -> "PatchScores":
        """With the memory bank's distances at some of the taps alone, counted from 0."""
        return self if self.few is None else replace(self, few=self.few[:, list(taps)])

    def room(self, count: int) -> "PatchScores":
        """Room for the scores of `count` images like these, to be filled by `put`."""
        return self.each(lambda values: values.new_empty(count, *values.shape[1:]))

    def put(self, first: int, part: "PatchScores") -> None:
        """Fill in `part` from image `first` on."""
        for values, given in ((self.zero, part.zero), (self.few, part.few)):
            if values is not None:
                values[first : first + len(part)] = given

    def gather(self, count: int) -> "PatchScores":
        """All processes' scores of `count` images, of which this one has its share."""
        return self.each(lambda values: distributed.gather(values, count))

    def __len__(self) -> int:
        return len(self.few if self.zero is None else self.zero)

    def __getitem__(self, rows: slice | list[int]) -> "PatchScores":
        return self.each(lambda values: values[rows])

    def each(self, change: Callable[[Tensor], Tensor]) -> "PatchScores":
        """With its tensors changed, zero first."""
        changed = (None if values is None else change(values) for values in (self.zero, self.few))
        return PatchScores(*changed, self.recipe)


def patch_scores(
    tokens: Sequence[Tensor],
    text: Tensor | None,
    bank: MemoryBank | None,
    without: Sequence[int] = (),
    joint: Sequence[Tensor] | None = None,
) -> PatchScores:
    """Both branches' scores of a batch's tokens, (B, L, h) a tap, on their device; no text or no bank switches a branch
    off.

    without: as in `MemoryBank.distance`. joint: the tokens (B, L, D) that text is compared with, if not the same.
    """
    zero = few = None
    if text is not None:
        compared = tokens if joint is None else joint
        zero = to_grid(torch.stack([patch_logits(level, text) for level in compared], dim=1)).float()
    if bank is not None:
        distances = [bank.distance(tap, level, without) for tap, level in enumerate(tokens)]
        few = to_grid(torch.stack(distances, dim=1)).float()
    return PatchScores(zero, few)

"""PatchCore on the trunk's tokens.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022 (sections 3.1 to 3.3): features of the
middle of a network, averaged over a 3 x 3 neighbourhood, kept of normal images without augmentation, thinned to a
greedy coreset; an image is as abnormal as its farthest patch. Ours: tokens of CLIP instead of ResNet's feature maps,
the distance 1 - cosine, and no re-weighting of the image's score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoder import to_grid
from scoring.baselines import MAP
from scoring.memory_bank import BankLimit, MemoryBank, neighbourhood_means
from scoring.patch_scores import PatchScores

NEIGHBOURHOOD = 3  # patches a side that a feature is the mean of
CORESET = BankLimit(coreset=True)  # a tenth of all patches, as in the paper's tables


def inner_taps(levels: Sequence[Tensor]) -> Sequence[Tensor]:
    """Those between the first and the last tap (of four the second and the third); all, if there are but two."""
    return levels[1:-1] if len(levels) > 2 else levels


def descriptors(levels: Sequence[Tensor]) -> Tensor:
    """Tokens (B, L, C) a tap -> features (B, P, h): unit neighbourhood means of the inner taps side by side."""
    parts = [F.normalize(neighbourhood_means(level[:, 1:], NEIGHBOURHOOD), dim=-1) for level in inner_taps(levels)]
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class PatchCore:
    """The normal patches that are kept, and the distance to them; an image's score is its map's maximum."""

    bank: MemoryBank
    branch: str = "few"

    @staticmethod
    def fit(images: Sequence[Tensor], limit: BankLimit, seed: int) -> "PatchCore":
        """From `descriptors` (1, P, h) of normal images, as many of them kept as the limit says."""
        owned = (([image], number) for number, image in enumerate(images))
        return PatchCore(MemoryBank.build(owned, len(images), limit, seed))

    def score(self, levels: Sequence[Tensor]) -> dict[str, PatchScores]:
        """Of B images few (B, 1, G, G), in [0, 2]: 1 - the highest cosine to a patch that is kept."""
        distances = self.bank.nearest(0, descriptors(levels))  # (B, P)
        return {MAP: PatchScores(None, to_grid(distances[:, None]).float())}

    def tensors(self) -> dict[str, Tensor]:
        """The bank's."""
        return self.bank.tensors()

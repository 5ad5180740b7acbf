"""Cues: what is read off an image as a whole, and how much of it counts by what it told the support apart.

A map's maximum is one reading of one branch, and which branch tells images apart differs from object to object. Cues
are several: of the bare trunk's tokens their distance to the bank and their likeness to the words, at the highest
patches and on average, that of the class token, and a linear probe; of the adapters' tokens their likeness to the
words. Each is standardised on the support and weighed by its AUROC there, all out of fold (docs/recipe.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from decoder import LOGIT_SCALE
from runtime import distributed
from scoring.baselines.linear import LinearProbe, features
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores, patch_scores
from scoring.reliability import auroc_interval

CUES = "cues"  # what they are called among the patch scores of heads
TOP = 0.01  # of an image's patches, the highest, of which at least one makes a "peak"
FLOOR = 0.3  # weight of a cue that tells nothing apart on the support, where one that tells all apart has 1


@dataclass(frozen=True)
class Cues:
    """Cues of N images, (N, K) float32, with their names; which there are depends on the run alone. They lie on the
    CPU, but for those of a batch where `CueReader` makes them."""

    values: Tensor
    names: tuple[str, ...] = ()

    @staticmethod
    def join(parts: Sequence["Cues"]) -> "Cues":
        """Those of several batches as one."""
        return Cues(torch.cat([part.values for part in parts]), parts[0].names)

    def room(self, count: int) -> "Cues":
        """Room for the cues of `count` images, to be filled by `put`."""
        return self.each(lambda values: values.new_empty(count, values.shape[1]))

    def put(self, first: int, part: "Cues") -> None:
        """Fill in `part` from image `first` on."""
        self.values[first : first + len(part)] = part.values

    def gather(self, count: int) -> "Cues":
        """All processes' cues of `count` images, of which this one has its share."""
        return self.each(lambda values: distributed.gather(values, count))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | list[int]) -> "Cues":
        return self.each(lambda values: values[rows])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Cues":
        """With its values changed."""
        return Cues(change(self.values), self.names)


@dataclass(frozen=True)
class CueReader:
    """What cues are read by: the text directions (D, 2), a bank of the bare trunk's tokens, a linear probe of theirs;
    each may be None, and its cues are then left out. without: owners whose tokens in the bank don't count."""

    text: Tensor | None
    bank: MemoryBank | None
    probe: LinearProbe | None
    without: tuple[int, ...] = ()

    def read(self, levels: Sequence[Tensor], joint: Sequence[Tensor], adapted: PatchScores | None) -> Cues:
        """Of B images: bare tokens (B, L, C) a tap, the same in the joint space (B, L, D), and the patch scores of the
        adapters' tokens, None without adapters."""
        found: dict[str, Tensor] = {}
        bare = patch_scores(levels, self.text, self.bank, self.without, joint)
        if bare.few is not None:
            found |= _of_patches("bank", bare.few.sum(dim=1))
        if bare.zero is not None:
            found |= _of_patches("text", bare.zero.sigmoid().sum(dim=1))
            whole = F.normalize(joint[-1][:, 0], dim=-1) @ (self.text[:, 1] - self.text[:, 0])  # (B,)
            found["text whole"] = LOGIT_SCALE * whole.float()
        if self.probe is not None:
            found["linear"] = self.probe.decide(features(levels)).float().to(levels[0].device)
        if adapted is not None and adapted.zero is not None:
            found |= _of_patches("adapted", adapted.zero.sigmoid().sum(dim=1))
        return Cues(torch.stack(list(found.values()), dim=1), tuple(found))

    def tensors(self) -> dict[str, Tensor]:
        """What its cues depend on beside the image and the trunk."""
        found = {} if self.text is None else {"text": self.text}
        for name, part in (("bank", self.bank), ("probe", self.probe)):
            found |= {} if part is None else {f"{name} {key}": tensor for key, tensor in part.tensors().items()}
        return found


def _of_patches(name: str, values: Tensor) -> dict[str, Tensor]:
    """Values of patches (B, G, G) -> the mean of the highest, and of all, (B,) each."""
    patches = values.flatten(1)
    count = max(1, round(TOP * patches.shape[1]))
    return {f"{name} peak": patches.topk(count, dim=1).values.mean(dim=1), f"{name} mean": patches.mean(dim=1)}


@dataclass(frozen=True)
class CueWeights:
    """How cues x make a score: sum over cues of w (x - c) / s, shifted and stretched so that the support's scores lie
    between 0 and 1. Each a number a cue but `low` and `high`, the range of the sums over the support."""

    names: tuple[str, ...]
    centers: tuple[float, ...]
    spreads: tuple[float, ...]
    weights: tuple[float, ...]
    low: float
    high: float

    @staticmethod
    def fit(cues: Cues, labels: np.ndarray) -> "CueWeights":
        """From out-of-fold cues of the support, labels (V,) in {0, 1}.

        c is half-way between the labels' means and s the deviation within them; w = FLOOR + (1 - FLOOR) (2 AUROC - 1),
        at least FLOOR: shrunk towards equal weights, for a few images can't tell cues from each other. Of normal
        images alone c and s are theirs, and all weigh the same. A cue that never changes weighs nothing.
        """
        values, abnormal = cues.values.double().numpy(), labels != 0
        groups = [values[part] for part in (~abnormal, abnormal) if part.any()]
        centers = np.mean([group.mean(axis=0) for group in groups], axis=0)
        spreads = np.sqrt(np.mean([group.var(axis=0) for group in groups], axis=0))
        weights = np.ones(len(cues.names))
        if len(groups) == 2:
            aurocs = [auroc_interval(*(group[:, place] for group in groups)).auroc for place in range(values.shape[1])]
            weights = FLOOR + (1 - FLOOR) * np.maximum(0, 2 * np.array(aurocs) - 1)
        weights = np.where(spreads > 0, weights, 0)
        spreads = np.where(spreads > 0, spreads, 1)
        sums = ((values - centers) / spreads) @ weights
        plain = (tuple(map(float, part)) for part in (centers, spreads, weights))
        return CueWeights(cues.names, *plain, float(sums.min()), float(sums.max()))

    def scores(self, cues: Cues) -> Tensor:
        """Image scores (N,) float32, 0 to 1 over the support."""
        centers, spreads, weights = (
            torch.tensor(part, dtype=torch.float64) for part in (self.centers, self.spreads, self.weights)
        )
        sums = ((cues.values.double() - centers) / spreads * weights).sum(dim=1)
        return ((sums - self.low) / max(self.high - self.low, torch.finfo(torch.float32).tiny)).float()

    def crossed(self, cues: Cues, labels: np.ndarray, images: np.ndarray) -> Tensor:
        """`scores` of the support itself, (V,), each image by the weights and spreads that the others give, since those
        that it had a say in flatter it. images: (V,), equal for the variants of an image. Of a label's only image there
        are no others; centers are the same for all, so that scores can be compared."""
        found = self.scores(cues)
        for image in np.unique(images):
            others = images != image
            if len(np.unique(labels[others])) == len(np.unique(labels)):
                theirs = CueWeights.fit(cues[np.flatnonzero(others).tolist()], labels[others])
                own = replace(self, spreads=theirs.spreads, weights=theirs.weights)
                found[~others] = own.scores(cues[np.flatnonzero(~others).tolist()])
        return found

"""Cues: what is read off an image as a whole, beside its map, and how much of it counts.

A map's maximum is one reading, and which reading tells images apart differs from object to object. Cues are several,
all of the bare trunk's tokens: their distance to the bank and their likeness to the words, at the highest patches and
on average, that of the class token, and a linear probe. Each is standardised on the support and weighed by its AUROC
there, all out of fold; one half of an image's score is theirs, the other half the map's (docs/recipe.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from decoder import LOGIT_SCALE
from runtime import distributed
from runtime.errors import InputError
from scoring.baselines.linear import LinearProbe, features
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import patch_scores
from scoring.reliability import auroc_interval

CUES = "cues"  # what they are called among the patch scores of heads
MAP = "map"  # what the score of an image's map is called beside them
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

    def beside(self, maps: Tensor) -> "Cues":
        """With the scores of the images' maps, (N,), as one more."""
        return Cues(torch.cat([self.values, maps[:, None].to(self.values)], dim=1), (*self.names, MAP))

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

    def read(self, levels: Sequence[Tensor], joint: Sequence[Tensor]) -> Cues:
        """Of B images: the bare trunk's tokens (B, L, C) a tap, and the same in the joint space (B, L, D)."""
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
    """How cues x, the map's score among them, make a score: sum over cues of w (x - c) / s, shifted and stretched so
    that the support's scores lie between 0 and 1. Each a number a cue but `low` and `high`, the range of the sums over
    the support."""

    names: tuple[str, ...]
    centers: tuple[float, ...]
    spreads: tuple[float, ...]
    weights: tuple[float, ...]
    low: float
    high: float

    @staticmethod
    def fit(cues: Cues, labels: np.ndarray) -> "CueWeights":
        """From out-of-fold cues of the support, labels (V,) in {0, 1}.

        c is half-way between the labels' means and s the deviation within them. The map's w is 1. Those of the others
        are as FLOOR + (1 - FLOOR) (2 AUROC - 1) and at least as FLOOR, shrunk towards equal weights, for a few images
        can't tell cues from each other; together their sum has the deviation 1 within the labels, as the map's has. Of
        normal images alone c and s are theirs, and all cues weigh the same. What never changes weighs nothing.
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
        standard, whole = (values - centers) / spreads, np.array([name == MAP for name in cues.names])
        sums = standard[:, ~whole] @ weights[~whole]
        spread = np.sqrt(np.mean([sums[part].var() for part in (~abnormal, abnormal) if part.any()]))
        weights = np.where(whole, weights > 0, weights / (spread if spread > 0 else 1))
        sums = standard @ weights
        plain = (tuple(map(float, part)) for part in (centers, spreads, weights))
        return CueWeights(cues.names, *plain, float(sums.min()), float(sums.max()))

    def scores(self, cues: Cues) -> Tensor:
        """Image scores (N,) float32, 0 to 1 over the support. Raises InputError for other cues than these are of."""
        if cues.names != self.names:
            read, known = (", ".join(names) for names in (cues.names, self.names))
            raise InputError(f"scores were calibrated by the cues {known}, and there are {read}; train again")
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

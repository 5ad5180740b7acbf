"""The score rule: which tokens make an object's anomaly maps and image scores; and the raw scores by it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from runtime.errors import InputError
from scoring.cues import CUES, Cues
from scoring.maps import Calibration, Scale, branches_on, map_scale, max_scores, mean_scale, mean_scores, scaled_maps
from scoring.patch_scores import AS_PUBLISHED, PatchScores, ScoreRecipe

NOTHING: Mapping = MappingProxyType({})

M = TypeVar("M")


class Masks(Protocol):
    """What is abnormal, bool (N, S, S): an array, or something that reads the rows that are asked for."""

    def __getitem__(self, rows: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class RawScores:
    """What the model says of N images, before scaling.

    map_patches: patch scores whose full-size maps are the anomaly maps. mean_patches: patch scores whose mean is the
    image score; None where the map's maximum is it. cues: what else it is made of, if anything. margins: (N, F, G, G),
    how close patches are to F findings, which no score depends on; None where nobody asked.
    """

    map_patches: PatchScores
    mean_patches: PatchScores | None
    cues: Cues | None = None
    margins: Tensor | None = None

    @staticmethod
    def join(parts: Sequence["RawScores"]) -> "RawScores":
        """Those of several batches as one, without margins."""
        means = None if parts[0].mean_patches is None else PatchScores.join([part.mean_patches for part in parts])
        cues = None if parts[0].cues is None else Cues.join([part.cues for part in parts])
        return RawScores(PatchScores.join([part.map_patches for part in parts]), means, cues)

    def by_recipe(self, recipe: ScoreRecipe) -> "RawScores":
        """The same scores, of which maps and image scores are made otherwise."""
        means = None if self.mean_patches is None else self.mean_patches.by_recipe(recipe)
        return replace(self, map_patches=self.map_patches.by_recipe(recipe), mean_patches=means)

    def of_taps(self, taps: Sequence[int] | None) -> "RawScores":
        """With the memory bank's distances at some of the taps alone; None leaves them as they are."""
        if taps is None:
            return self
        means = None if self.mean_patches is None else self.mean_patches.of_taps(taps)
        return RawScores(self.map_patches.of_taps(taps), means, self.cues, self.margins)

    def scales(self, size: int) -> tuple[Scale, Scale]:
        """The ranges over these images of the branches' maps, and of their image scores."""
        maps = map_scale(self.map_patches, size)
        return maps, maps if self.mean_patches is None else mean_scale(self.mean_patches, size)

    def image_scores(
        self,
        size: int,
        calibration: Calibration | None = None,
        known: Mapping[Scale | None, dict[str, Tensor]] = NOTHING,
    ) -> dict[str, Tensor]:
        """Image scores (N,) by branch, scaled over these images, or as the calibration scales.

        With cues that the calibration weighs, they and the map's score make that of the branch that stands for the
        run. known: maxima of maps that were found already, by the maps' scale, None for that over these images.
        """
        asked = None if calibration is None else calibration.maps
        if self.mean_patches is None and asked in known:
            found = dict(known[asked])
        elif self.mean_patches is None:
            found = max_scores(self.map_patches, asked or map_scale(self.map_patches, size), size)
        else:
            scale = mean_scale(self.mean_patches, size) if calibration is None else calibration.means
            found = mean_scores(self.mean_patches, scale, size)
        if calibration is not None and calibration.cues is not None and self.cues is not None:
            branch = main_branch(self.map_patches)
            found[branch] = calibration.cues.scores(self.cues.beside(found[branch]))
        return found


@dataclass(frozen=True)
class ScoreRule:
    """Which head's tokens make an object's anomaly map, and what makes its image score ("Scoring").

    mean_head: the head whose mean over patches is the score; None: the score is the map's maximum. cues: whether the
    score is made of cues too. recipe: how else maps and scores are made.
    """

    map_head: str
    mean_head: str | None
    cues: bool = False
    recipe: ScoreRecipe = AS_PUBLISHED

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads whose patch scores are needed."""
        return (self.map_head,) if self.mean_head in (None, self.map_head) else (self.map_head, self.mean_head)

    @property
    def by_mean(self) -> bool:
        """Whether an image's score is a mean over patches: neither a map's highest values nor made of cues too."""
        return self.mean_head is not None and not self.cues

    def raw_scores(self, found: Mapping[str, PatchScores | Cues]) -> RawScores:
        """From patch scores by head, and cues by the name `CUES`."""
        by_head = {name: part.by_recipe(self.recipe) for name, part in found.items() if name != CUES}
        means = None if self.mean_head is None else by_head[self.mean_head]
        return RawScores(by_head[self.map_head], means, found.get(CUES) if self.cues else None)


MAP_MAXIMUM = ScoreRule("seg", None)  # few-shot scoring of an object with masks
DET_MEAN = ScoreRule("det", "det")  # of one without masks, and transfer to it
TRANSFER_TO_MASKS = ScoreRule("seg", "det")  # zero-shot transfer to an object with masks


def score_rule(
    masks: bool, transfer: bool = False, *, recipe: ScoreRecipe = AS_PUBLISHED, cues: bool = False
) -> ScoreRule:
    """The rule for an object that has masks or has none, in few-shot scoring or in zero-shot transfer."""
    published = (TRANSFER_TO_MASKS if transfer else MAP_MAXIMUM) if masks else DET_MEAN
    if recipe.top:  # of the map, whatever head it is of
        published = replace(published, mean_head=None)
    return replace(published, recipe=recipe, cues=cues)


def full_maps(patches: PatchScores, scale: Scale, size: int, branch: str) -> np.ndarray:
    """All maps (N, S, S) of a branch, float32, scaled by `scale`."""
    maps = np.empty((len(patches), size, size), np.float32)
    done = 0
    for part in scaled_maps(patches, scale, size, branch):
        maps[done : done + len(part)] = part
        done += len(part)
    return maps


def main_branch(patches: PatchScores) -> str:
    """The branch that stands for the run: the fusion, or the only one that is on."""
    return branches_on(patches)[-1]


def measure(metric: Callable[..., M], *arrays: object) -> M:
    """A metric of arrays, or InputError when a score is not a number."""
    try:
        return metric(*arrays)
    except ValueError as fault:
        raise InputError(f"the model's scores are not finite ({fault}); train with a lower --learning_rate") from fault

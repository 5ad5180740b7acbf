"""One pass over the maps of many images: the pixel figures of all branches, and image scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runtime.threads import in_order
from scoring import maps
from scoring.maps import Scale, branch_maps, by_branch, highest
from scoring.patch_scores import PatchScores
from scoring.pixel_counts import PixelCounts, Regions
from scoring.raw_scores import Masks

PIXELS = 1 << 21  # of a branch, counted at once


@dataclass(frozen=True)
class MapPass:
    """pixels: figures by branch, as of `metrics.pixel_metrics`. highest: `maps.max_scores` by the scale, None for the
    range of these very images."""

    pixels: dict[str, dict[str, float]] = field(default_factory=dict)
    highest: dict[Scale | None, dict[str, Tensor]] = field(default_factory=dict)


def map_pass(
    patches: PatchScores,
    limits: Scale,
    size: int,
    masks: Masks,
    branches: Sequence[str],
    scales: Mapping[Scale | None, Scale],
) -> MapPass:
    """Pixel figures of the `branches` on maps scaled by `limits`, and the highest values of maps by each of `scales`.

    No more maps are in memory than threads need; how many threads there are changes nothing. Raises ValueError if a
    score is not finite.
    """
    counts = {branch: PixelCounts() for branch in branches}
    tops = {key: {branch: torch.empty(len(patches)) for branch in maps.branches_on(patches)} for key in scales}

    def count(rows: slice) -> tuple[Regions, dict[str, Tensor]]:
        """Of these images the abnormal pixels' steps by branch; all pixels are counted and highest values filled in."""
        steps = {branch: torch.empty(rows.stop - rows.start, size, size, dtype=torch.int32) for branch in counts}
        first = rows.start
        for part in maps.chunks(patches[rows]):
            unscaled = by_branch(part, branch_maps, size)
            scaled = limits.fuse(*unscaled)
            for branch, found in steps.items():
                counts[branch].steps(scaled[branch], found[first - rows.start :][: len(part)])
            for key, scale in scales.items():
                for branch, values in (scaled if scale == limits else scale.fuse(*unscaled)).items():
                    tops[key][branch][first : first + len(part)] = highest(values, patches.recipe.top)
            first += len(part)
        for branch, found in steps.items():
            counts[branch].count(found)
        regions = Regions.of(masks[rows])
        places = torch.from_numpy(regions.pixels)
        return regions, {branch: found.flatten()[places] for branch, found in steps.items()}

    for regions, marked in in_order(count, _runs(len(patches), size)):
        for branch, steps in marked.items():
            counts[branch].mark(steps, regions)
    return MapPass({branch: found.figures() for branch, found in counts.items()}, tops)


def _runs(images: int, size: int) -> Iterator[slice]:
    """Runs of images that begin where `maps.chunks` begins one."""
    step = max(1, PIXELS // (maps.MAP_CHUNK * size**2)) * maps.MAP_CHUNK
    for first in range(0, images, step):
        yield slice(first, min(images, first + step))

"""One pass over the maps of many images: the pixel figures of all branches, and image scores."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

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
    """pixels: figures by branch, as of `metrics.pixel_metrics`. highest: by scale, `maps.max_scores`."""

    pixels: dict[str, dict[str, float]]
    highest: dict[Scale, dict[str, Tensor]]


@dataclass(frozen=True)
class _Piece:
    """What the images `rows` add: the steps of their abnormal pixels by branch, and highest values by scale."""

    rows: slice
    regions: Regions
    marked: dict[str, Tensor]
    highest: dict[Scale, dict[str, Tensor]]


def map_pass(
    patches: PatchScores,
    limits: Scale,
    size: int,
    masks: Masks,
    branches: Sequence[str],
    scales: Collection[Scale] = (),
) -> MapPass:
    """Pixel figures of the `branches` on maps scaled by `limits`, and the highest values of maps by each of `scales`.

    No more maps are in memory than threads need; how many threads there are changes nothing. Raises ValueError if a
    score is not finite.
    """
    counts = {branch: PixelCounts() for branch in branches}

    def piece(rows: slice) -> _Piece:
        return _count(patches[rows], rows, limits, size, masks, counts, scales)

    found = MapPass({}, {scale: {} for scale in scales})
    for one in in_order(piece, _pieces(len(patches), size)):
        for branch, steps in one.marked.items():
            counts[branch].mark(steps, one.regions)
        for scale, by_name in one.highest.items():
            for name, values in by_name.items():
                found.highest[scale].setdefault(name, torch.empty(len(patches)))[one.rows] = values
    found.pixels.update({branch: count.figures() for branch, count in counts.items()})
    return found


def _pieces(images: int, size: int) -> Iterator[slice]:
    """Runs of images that begin where `maps.chunks` begins one."""
    step = max(1, PIXELS // (maps.MAP_CHUNK * size**2)) * maps.MAP_CHUNK
    for first in range(0, images, step):
        yield slice(first, min(images, first + step))


def _count(
    patches: PatchScores,
    rows: slice,
    limits: Scale,
    size: int,
    masks: Masks,
    counts: dict[str, PixelCounts],
    scales: Collection[Scale],
) -> _Piece:
    steps = {branch: torch.empty(len(patches), size, size, dtype=torch.int32) for branch in counts}
    tops = {scale: {} for scale in scales}
    done = 0
    for part in maps.chunks(patches):
        unscaled = by_branch(part, branch_maps, size)
        here = slice(done, done + len(part))
        scaled = limits.fuse(*unscaled)
        for branch, count in counts.items():
            steps[branch][here] = count.steps(scaled[branch])
        for scale, found in tops.items():
            for name, values in (scaled if scale == limits else scale.fuse(*unscaled)).items():
                found.setdefault(name, torch.empty(len(patches)))[here] = highest(values, patches.recipe.top)
        done = here.stop
    regions = Regions.of(masks[rows])
    places = torch.from_numpy(regions.pixels)
    for branch, count in counts.items():
        count.count(steps[branch])
    return _Piece(rows, regions, {branch: found.flatten()[places] for branch, found in steps.items()}, tops)

"""From patch scores to maps and image scores: upsampling, min-max scaling, the fusion of the branches ("Scoring")."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from scoring.cues import CueWeights
from scoring.patch_scores import PatchScores
from scoring.reliability import Evidence, ThresholdRule
from scoring.reliability_words import sentences

FUSION = 0.5  # the zero branch's share; the few branch has the rest
MAP_CHUNK = 8  # images whose maps are built at a time: more would leave the CPU's caches
SLACK = 1e-5  # of the largest value: more than the rounding of a map

T = TypeVar("T")


def branch_maps(patches: PatchScores, branch: str, size: int) -> Tensor:
    """Unscaled maps (N, size, size) of "zero" (sum of probabilities, 0 to T) or "few" (sum of distances)."""
    if branch == "zero":
        maps = upsampled_rows(patches.zero, size).sigmoid_().sum(dim=2)
    else:
        maps = upsampled_rows(patches.few.sum(dim=1, keepdim=True), size)[:, :, 0]  # upsampling is linear: sum first
    return smoothed(maps.contiguous(), patches.recipe.smooth)  # else means would add up in another order


def upsampled_rows(grids: Tensor, size: int) -> Tensor:
    """`decoder.upsample` of (B, T, G, G), but (B, size, T, size), never the grids themselves: along rows first, then
    across them.

    PyTorch works on several channels of a pixel at once, never on several pixels of a channel: so all that lies in a
    row counts as channels, and it takes a fifth of the time. What is summed up is the same.
    """
    batch, taps, side = grids.shape[:3]
    if grids.shape[-2:] == (size, size):
        return grids.transpose(1, 2).clone()
    rows = F.interpolate(grids, (side, size), mode="bilinear", align_corners=True)  # (B, T, G, S)
    rows = rows.transpose(2, 3).reshape(batch, taps * size, side, 1).contiguous(memory_format=torch.channels_last)
    maps = F.interpolate(rows, (size, 1), mode="bilinear", align_corners=True)  # (B, T S, S, 1)
    return maps.permute(0, 2, 3, 1).reshape(batch, size, taps, size)


def smoothed(maps: Tensor, deviation: float) -> Tensor:
    """Maps (N, S, S) under a Gaussian of that deviation in pixels, edges reflected; 0 leaves them as they are."""
    if not deviation:
        return maps
    side = 2 * min(math.ceil(3 * deviation), maps.shape[-1] - 1) + 1
    blurred = torch.empty_like(maps)
    for own, given in zip(blurred, maps, strict=True):  # one by one: a batch's size must not change a bit
        own.copy_(torch.from_numpy(cv2.GaussianBlur(given.numpy(), (side, side), deviation)))
    return blurred


def highest(maps: Tensor, top: float) -> Tensor:
    """Image scores (N,) of maps (N, H, W): the mean of each one's `top` share of pixels, 0 for the maximum."""
    count = round(top * maps[0].numel()) if len(maps) else 0
    if count <= 1:
        return maps.amax(dim=(1, 2))
    return maps.flatten(1).topk(count, dim=1).values.mean(dim=1)


def branch_means(patches: PatchScores, branch: str, size: int) -> Tensor:
    """Unscaled image scores (N,) of an object without masks: zero's sum over taps of mean p, few's map mean."""
    means, done = torch.empty(len(patches)), 0
    for part in chunks(patches):
        means[done : done + len(part)] = means_at_once(part, branch, size)
        done += len(part)
    return means


def by_branch(patches: PatchScores, what: Callable[[PatchScores, str, int], T], size: int) -> tuple[T | None, T | None]:
    """`branch_maps`, or what else takes such arguments, of zero and few; None of one that is off."""
    zero, few = (None if getattr(patches, name) is None else what(patches, name, size) for name in ("zero", "few"))
    return zero, few


def branches_on(patches: PatchScores) -> list[str]:
    """The branches that have maps: zero, few, and the fusion where both are on."""
    on = [name for name in ("zero", "few") if getattr(patches, name) is not None]
    return [*on, "fused"] if len(on) == 2 else on


def means_at_once(patches: PatchScores, branch: str, size: int) -> Tensor:
    """`branch_means` of as few images as fit into memory together."""
    if branch == "zero":
        return patches.zero.sigmoid().mean(dim=(2, 3)).sum(dim=1)
    return branch_maps(patches, "few", size).mean(dim=(1, 2))


def chunks(patches: PatchScores) -> Iterator[PatchScores]:
    """The patches in pieces whose full-size maps fit into memory.

    What is kept of a piece must lie in one tensor for all: small ones of their own, between the maps that come and go,
    leave holes that no map fits into, and memory grows by the size of all maps.
    """
    for first in range(0, len(patches), MAP_CHUNK):
        yield patches[first : first + MAP_CHUNK]


@dataclass(frozen=True)
class Scale:
    """Lowest and highest unscaled value of each branch, over a test set or over the support; share: zero's part of the
    fusion, few has the rest."""

    zero: tuple[float, float] | None
    few: tuple[float, float] | None
    share: float = FUSION

    def fuse(self, zero: Tensor | None, few: Tensor | None) -> dict[str, Tensor]:
        """Both branches min-max scaled, and their weighted sum where both are on."""
        scaled = {}
        for name, values, limits in (("zero", zero, self.zero), ("few", few, self.few)):
            if values is not None:
                low, high = limits
                scaled[name] = (values - low).div_(max(high - low, torch.finfo(torch.float32).tiny))
        if len(scaled) == 2:
            scaled["fused"] = (self.share * scaled["zero"]).add_((1 - self.share) * scaled["few"])
        return scaled

    def within(self, limits: "Scale") -> "Scale":
        """One that ranks fused values as this does, and gives values between other limits the range from 0 to 1."""
        if self.zero is None or self.few is None:
            return limits
        parts = [
            weight * (high - low) / max(own_high - own_low, torch.finfo(torch.float32).tiny)
            for weight, (low, high), (own_low, own_high) in (
                (self.share, limits.zero, self.zero),
                (1 - self.share, limits.few, self.few),
            )
        ]
        total = sum(parts)
        return Scale(limits.zero, limits.few, parts[0] / total if total > 0 else self.share)


def map_scale(patches: PatchScores, size: int) -> Scale:
    """The range of each branch's full-size maps over all images."""
    return Scale(*by_branch(patches, _map_limits, size))


def _map_limits(patches: PatchScores, branch: str, size: int) -> tuple[float, float]:
    """Of the maps' values; maps are built of those images alone whose patches leave it open."""
    lows, highs = torch.tensor([_bounds(part, branch) for part in chunks(patches)]).view(-1, 2).unbind(dim=1)
    slack = SLACK * torch.cat([lows, highs]).abs().max() if len(patches) else 0

    @cache
    def limits(place: int) -> tuple[float, float]:
        part = patches[place * MAP_CHUNK : (place + 1) * MAP_CHUNK]
        low, high = map(float, branch_maps(part, branch, size).aminmax())
        return low, high

    lowest, highest = math.inf, -math.inf
    for place in lows.argsort().tolist():
        if lows[place] - slack > lowest:
            break
        lowest = min(lowest, limits(place)[0])
    for place in highs.argsort(descending=True).tolist():
        if highs[place] + slack < highest:
            break
        highest = max(highest, limits(place)[1])
    return lowest, highest


def _bounds(patches: PatchScores, branch: str) -> tuple[float, float]:
    """What no value of these images' maps lies beyond: it is a mean of the values at the corners of its cell."""
    values = patches.zero if branch == "zero" else patches.few.sum(dim=1, keepdim=True)
    if not values.isfinite().all():
        return -math.inf, math.inf
    cell = min(2, values.shape[-1])
    low, high = -F.max_pool2d(-values, cell, stride=1), F.max_pool2d(values, cell, stride=1)
    if branch == "zero":
        low, high = (corner.sigmoid().sum(dim=1) for corner in (low, high))
    return float(low.min()), float(high.max())


def mean_scale(patches: PatchScores, size: int) -> Scale:
    """The range of each branch's image scores over all images of an object without masks."""
    means = by_branch(patches, branch_means, size)
    return Scale(*(None if scores is None else (float(scores.min()), float(scores.max())) for scores in means))


def means_within(patches: PatchScores, within: Tensor, size: int) -> dict[str, float]:
    """Unscaled score by branch of ONE image without masks, from a region alone: `branch_means` weighted by how much of
    a patch (zero) or of a map's pixel (few) lies in it. within: (H, W) bool, with a pixel that is True.
    """
    share, means = within[None, None].float(), {}  # (1, 1, H, W)
    if patches.zero is not None:
        weight = F.interpolate(share, patches.zero.shape[2:], mode="area")[0, 0]  # (G, G)
        means["zero"] = float(((patches.zero[0].sigmoid() * weight).sum(dim=(1, 2)) / weight.sum()).sum())
    if patches.few is not None:
        weight = F.interpolate(share, (size, size), mode="area")[0, 0]
        means["few"] = float((branch_maps(patches, "few", size)[0] * weight).sum() / weight.sum())
    return means


def scaled_maps(patches: PatchScores, scale: Scale, size: int, branch: str) -> Iterator[Tensor]:
    """By chunk, the scaled maps (n, size, size) of a branch that is on, "fused" included."""
    for part in chunks(patches):
        zero, few = (branch_maps(part, name, size) if branch in (name, "fused") else None for name in ("zero", "few"))
        yield scale.fuse(zero, few)[branch]


def mean_scores(patches: PatchScores, scale: Scale, size: int) -> dict[str, Tensor]:
    """Image scores (N,) of every branch for an object without masks."""
    return scale.fuse(*by_branch(patches, branch_means, size))


def max_scores(patches: PatchScores, scale: Scale, size: int) -> dict[str, Tensor]:
    """Image scores (N,) of every branch for an object with masks: the maximum of the image's scaled map, or what else
    the patches' recipe makes of it."""
    scores, done = {}, 0
    for part in chunks(patches):
        for name, maps in scale.fuse(*by_branch(part, branch_maps, size)).items():
            if name not in scores:
                scores[name] = torch.empty(len(patches))
            scores[name][done : done + len(part)] = highest(maps, patches.recipe.top)
        done += len(part)
    return scores


@dataclass(frozen=True)
class Calibration:
    """What the support says of the scale of scores, so that an image can be judged alone.

    maps, means: the branches' ranges over the support. image, pixel: by branch, the threshold at which a scaled
    score counts as abnormal. dark: by branch, what nearly all pixels of normal images stay below: where colours begin.
    evidence: by branch, the support's scores that say so. cues: how the cues of an image are weighed for its score,
    where they are. taps: which taps' distances to the memory bank count, None for all.
    """

    maps: Scale
    means: Scale
    image: dict[str, float]
    pixel: dict[str, float]
    dark: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    cues: CueWeights | None = None
    taps: tuple[int, ...] | None = None

    def sentences(self, branch: str) -> list[str]:
        """What the support says of a branch's verdicts, for people; nothing where there is no evidence."""
        return sentences(self.evidence[branch], self.image[branch]) if branch in self.evidence else []

    def by_rule(self, rule: ThresholdRule) -> "Calibration":
        """With image thresholds chosen by another rule, of branches that have evidence."""
        chosen = {branch: evidence.threshold(rule) for branch, evidence in self.evidence.items()}
        return replace(self, image=self.image | chosen)

"""From tokens to maps and scores: the zero branch (text), the few branch (memory bank), and their fusion.

Of every image only grid values are kept (`Readings`); full-size maps are built from them in passes. Tokens are
(B, L, h) with the class token first. The paper's "Scoring".
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import distributed
from bank import MemoryBank
from linear import linear

LOGIT_SCALE = 100.0
FUSION = 0.5  # the zero branch's share; the few branch has the rest
BRANCHES = ("zero", "few", "fused")
MAP_CHUNK = 64  # images whose maps are built at a time


def patch_logits(tokens: Tensor, text: Tensor) -> Tensor:
    """How much more abnormal than normal, (B, L, h), (D, 2) -> (B, P): 100·(cos abnormal - cos normal).

    Its sigmoid is the softmax over {normal, abnormal}. The class token is dropped: P = L - 1. Of one image, (1, L, h),
    under N texts, (N, D, 2), they are (N, P).
    """
    patches = F.normalize(tokens[:, 1:], dim=-1)
    if text.ndim == 3:
        return LOGIT_SCALE * linear(text[..., 1] - text[..., 0], patches[0])  # (N, P)
    cosines = patches @ text  # (B, P, 2)
    return LOGIT_SCALE * (cosines[..., 1] - cosines[..., 0])


def to_grid(values: Tensor) -> Tensor:
    """Values of the patches (..., P) -> (..., G, G), P = G·G."""
    side = round(values.shape[-1] ** 0.5)
    return values.reshape(*values.shape[:-1], side, side)


def upsample(grids: Tensor, size: int) -> Tensor:
    """(B, T, G, G) -> (B, T, size, size), bilinear, corners aligned."""
    if grids.shape[-2:] == (size, size):
        return grids
    return F.interpolate(grids, (size, size), mode="bilinear", align_corners=True)


@dataclass(frozen=True)
class Readings:
    """Grid values of N images on the CPU, float32; a branch that is off is None."""

    zero: Tensor | None  # (N, T, G, G), logits of `patch_logits`
    few: Tensor | None  # (N, T, G, G), distances in [0, 2]

    @staticmethod
    def join(parts: list["Readings"]) -> "Readings":
        """The readings of several batches as one."""
        zero, few = ([getattr(part, name) for part in parts] for name in ("zero", "few"))
        return Readings(*(None if values[0] is None else torch.cat(values) for values in (zero, few)))

    def room(self, count: int) -> "Readings":
        """Readings of `count` images like these, to be filled by `put`."""
        return Readings(
            *(
                None if values is None else values.new_empty(count, *values.shape[1:])
                for values in (self.zero, self.few)
            )
        )

    def put(self, first: int, part: "Readings") -> None:
        """Fill in `part` from image `first` on."""
        for values, given in ((self.zero, part.zero), (self.few, part.few)):
            if values is not None:
                values[first : first + len(part)] = given

    def together(self, count: int) -> "Readings":
        """All processes' readings of `count` images, of which this one has its share."""
        return Readings(*(distributed.together(values, count) for values in (self.zero, self.few)))

    def __len__(self) -> int:
        return len(self.few if self.zero is None else self.zero)

    def __getitem__(self, rows: slice | list[int]) -> "Readings":
        return Readings(*(None if values is None else values[rows] for values in (self.zero, self.few)))


def read(
    tokens: Sequence[Tensor],
    text: Tensor | None,
    bank: MemoryBank | None,
    without: int | None = None,
    joint: Sequence[Tensor] | None = None,
) -> Readings:
    """Both branches' grid values of a batch's tokens, (B, L, h) a tap; no text or no bank switches a branch off.

    without: as in `MemoryBank.distance`. joint: the tokens (B, L, D) that text is compared with, if not the same.
    """
    zero = few = None
    if text is not None:
        compared = tokens if joint is None else joint
        zero = to_grid(torch.stack([patch_logits(level, text) for level in compared], dim=1)).float().cpu()
    if bank is not None:
        distances = [bank.distance(tap, level, without) for tap, level in enumerate(tokens)]
        few = to_grid(torch.stack(distances, dim=1)).float().cpu()
    return Readings(zero, few)


def branch_maps(readings: Readings, branch: str, size: int) -> Tensor:
    """Unscaled maps (N, size, size) of "zero" (sum of probabilities, 0 to T) or "few" (sum of distances)."""
    if branch == "zero":
        return upsample(readings.zero, size).sigmoid().sum(dim=1)
    return upsample(readings.few.sum(dim=1, keepdim=True), size)[:, 0]  # upsampling is linear: sum first


def branch_means(readings: Readings, branch: str, size: int) -> Tensor:
    """Unscaled image scores (N,) of an object without masks: zero's sum over taps of mean p, few's map mean."""
    means, done = torch.empty(len(readings)), 0
    for part in chunks(readings):
        means[done : done + len(part)] = means_at_once(part, branch, size)
        done += len(part)
    return means


def means_at_once(readings: Readings, branch: str, size: int) -> Tensor:
    """`branch_means` of as few images as fit into memory together."""
    if branch == "zero":
        return readings.zero.sigmoid().mean(dim=(2, 3)).sum(dim=1)
    return branch_maps(readings, "few", size).mean(dim=(1, 2))


def chunks(readings: Readings) -> Iterator[Readings]:
    """The readings in pieces whose full-size maps fit into memory.

    What is kept of a piece must lie in one tensor for all: small ones of their own, between the maps that come and go,
    leave holes that no map fits into, and memory grows by the size of all maps.
    """
    for first in range(0, len(readings), MAP_CHUNK):
        yield readings[first : first + MAP_CHUNK]


@dataclass(frozen=True)
class Scale:
    """Lowest and highest unscaled value of each branch, over a test set or over the support."""

    zero: tuple[float, float] | None
    few: tuple[float, float] | None

    def fuse(self, zero: Tensor | None, few: Tensor | None) -> dict[str, Tensor]:
        """Both branches min-max scaled, and their weighted sum where both are on."""
        scaled = {}
        for name, values, limits in (("zero", zero, self.zero), ("few", few, self.few)):
            if values is not None:
                low, high = limits
                scaled[name] = (values - low) / max(high - low, torch.finfo(torch.float32).tiny)
        if len(scaled) == 2:
            scaled["fused"] = FUSION * scaled["zero"] + (1 - FUSION) * scaled["few"]
        return scaled


def map_scale(readings: Readings, size: int) -> Scale:
    """The range of each branch's full-size maps over all images."""

    def limits(branch: str) -> tuple[float, float] | None:
        if getattr(readings, branch) is None:
            return None
        lowest, highest = math.inf, -math.inf
        for part in chunks(readings):
            low, high = map(float, branch_maps(part, branch, size).aminmax())
            lowest, highest = min(lowest, low), max(highest, high)
        return lowest, highest

    return Scale(limits("zero"), limits("few"))


def mean_scale(readings: Readings, size: int) -> Scale:
    """The range of each branch's image scores over all images of an object without masks."""

    def limits(branch: str) -> tuple[float, float] | None:
        if getattr(readings, branch) is None:
            return None
        scores = branch_means(readings, branch, size)
        return float(scores.min()), float(scores.max())

    return Scale(limits("zero"), limits("few"))


def means_within(readings: Readings, within: Tensor, size: int) -> dict[str, float]:
    """Unscaled score by branch of ONE image without masks, from a region alone: `branch_means` weighted by how much of
    a patch (zero) or of a map's pixel (few) lies in it. within: (H, W) bool, with a pixel that is True.
    """
    share, means = within[None, None].float(), {}  # (1, 1, H, W)
    if readings.zero is not None:
        weight = F.interpolate(share, readings.zero.shape[2:], mode="area")[0, 0]  # (G, G)
        means["zero"] = float(((readings.zero[0].sigmoid() * weight).sum(dim=(1, 2)) / weight.sum()).sum())
    if readings.few is not None:
        weight = F.interpolate(share, (size, size), mode="area")[0, 0]
        means["few"] = float((branch_maps(readings, "few", size)[0] * weight).sum() / weight.sum())
    return means


def scaled_maps(readings: Readings, scale: Scale, size: int, branch: str) -> Iterator[Tensor]:
    """By chunk, the scaled maps (n, size, size) of a branch that is on, "fused" included."""
    for part in chunks(readings):
        zero, few = (branch_maps(part, name, size) if branch in (name, "fused") else None for name in ("zero", "few"))
        yield scale.fuse(zero, few)[branch]


def mean_scores(readings: Readings, scale: Scale, size: int) -> dict[str, Tensor]:
    """Image scores (N,) of every branch for an object without masks."""
    zero, few = (
        None if getattr(readings, branch) is None else branch_means(readings, branch, size)
        for branch in ("zero", "few")
    )
    return scale.fuse(zero, few)


def max_scores(readings: Readings, scale: Scale, size: int) -> dict[str, Tensor]:
    """Image scores (N,) of every branch for an object with masks: the maximum of the image's scaled map."""
    scores, done = {}, 0
    for part in chunks(readings):
        zero, few = (None if getattr(part, name) is None else branch_maps(part, name, size) for name in ("zero", "few"))
        for name, maps in scale.fuse(zero, few).items():
            if name not in scores:
                scores[name] = torch.empty(len(readings))
            scores[name][done : done + len(part)] = maps.amax(dim=(1, 2))
        done += len(part)
    return scores


@dataclass(frozen=True)
class Calibration:
    """What the support says of the scale of scores, so that an image can be judged alone.

    maps, means: the branches' ranges over the support. image, pixel: by branch, the threshold at which a scaled
    score counts as abnormal: largest F1 on the support, or without abnormal support above all normal scores.
    """

    maps: Scale
    means: Scale
    image: dict[str, float]
    pixel: dict[str, float]

    @staticmethod
    def from_plain(content: dict) -> "Calibration":
        """Back from `dataclasses.asdict`."""
        maps, means = (Scale(**content[name]) for name in ("maps", "means"))
        return Calibration(maps, means, dict(content["image"]), dict(content["pixel"]))

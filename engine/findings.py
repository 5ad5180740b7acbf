"""What an anomaly map shows, said of its regions: where, how large, how much of the score, what they resemble.

A region is 8-connected and at or above the pixel threshold. "Resembles" compares its tokens with the findings that
prompt.py lists for the object; it is what CLIP finds closest among a few texts, and no diagnosis.

Two choices were measured on drawn lesions of known kind (docs/predict.md). Tokens are the trunk's, as the adapters
read them: the adapters' own know normal and abnormal and hardly anything else. And a finding counts by how much more a
region leans towards it than the rest of the picture does: else a few texts are the closest of whatever region.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from decoder import Decoded, MDecoder, patch_logits, to_grid
from engine.tiles import Tile

CLOSEST = 3  # findings that are named of a region
ROWS, COLUMNS = ("upper", "centre", "lower"), ("left", "centre", "right")  # of the grid that places are told by
MOST = 0.5  # of the picture; a region that takes up more lies at no one place
EVERYWHERE = "most of the picture"
DIGITS = 4  # of numbers in JSON


@dataclass(frozen=True)
class Resemblance:
    """A finding of prompt.py, and how much more a region leans towards it than the rest of the picture.

    margin: the mean over patches and taps of 100·(cosine with the finding - cosine with the normal text direction), as
    the zero branch's logits are made, in the region less outside of all regions. Below 0 the rest is closer to it.
    """

    finding: str
    margin: float


@dataclass(frozen=True)
class Finding:
    """A region of a map at or above the pixel threshold.

    box: left, top, right, bottom in pixels of the picture; right and bottom are the first pixels outside. area: in
    pixels; area_mm2: None where nobody knows how large a pixel is. peak: its highest value. place: the one of nine
    parts of the picture that holds most of it, in words, as one sees it: no side of a body. share: of the score, in
    [0, 1] (`shares`). resembles: the closest findings, the closest first; empty without prompts and in normal pictures.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    place: str = ""
    share: float = 0.0
    area_mm2: float | None = None
    resembles: tuple[Resemblance, ...] = ()


@dataclass(frozen=True)
class FindingTexts:
    """An object's findings in words and as texts: directions (F, D, 2) of {normal, the finding}, unit vectors."""

    findings: tuple[str, ...]
    directions: Tensor

    @staticmethod
    def of(normal: Tensor, features: dict[str, Tensor]) -> "FindingTexts":
        """From the normal text direction (D,) and each finding's unit features (n, D), which are averaged."""
        means = torch.stack([part.mean(dim=0) for part in features.values()]).to(normal)
        texts = torch.stack([normal.expand_as(means), F.normalize(means, dim=1)], dim=2)
        return FindingTexts(tuple(features), texts)

    @torch.inference_mode()
    def margins(self, decoded: Decoded, decoder: MDecoder) -> Tensor:
        """Of one picture, decoded with its trunk tokens: 100·(cosine with the finding - cosine with normal) of every
        patch, the mean over taps, (F, G, G) on the CPU."""
        taps = [patch_logits(decoder.visual.project(level), self.directions) for level in decoded.trunk_tokens]
        return to_grid(torch.stack(taps).mean(dim=0)).float().cpu()


@dataclass(frozen=True)
class Regions:
    """The regions of a map: labels (H, W) int32, 0 below the threshold; findings: those numbered 1, 2, ... in it."""

    labels: np.ndarray
    findings: tuple[Finding, ...]

    def sorted(self) -> tuple[Finding, ...]:
        """The findings, the one with the highest value first."""
        return tuple(sorted(self.findings, key=lambda one: -one.peak))

    def compared(self, texts: FindingTexts, margins: Iterable[tuple[Tile, Tensor]]) -> "Regions":
        """With what they resemble, by the margins (F, G, G) of the tiles that the picture is made of.

        A patch counts by the pixels of the region in it; where tiles overlap, both count. A region that nothing lies
        outside of is compared with nothing.
        """
        sums = np.zeros((len(self.findings) + 1, len(texts.findings)))
        weights = np.zeros(len(sums))
        for tile, part in margins:
            numbers, pixels = patch_pixels(self.labels[tile.rows, tile.columns], part.shape[-1])
            sums[numbers] += pixels @ part.flatten(1).numpy().T
            weights[numbers] += pixels.sum(axis=1)
        means = sums / np.maximum(weights[:, None], 1)
        named = zip(self.findings, means[1:] - means[0], weights[1:] > 0, strict=True)
        found = (replace(one, resembles=closest(texts, row)) if seen else one for one, row, seen in named)
        return replace(self, findings=tuple(found))


def find_regions(anomaly_map: np.ndarray, threshold: float, mean: bool = False) -> Regions:
    """The 8-connected regions of a map (H, W) at or above a threshold, with place and share; none for a nan.

    mean: whether the image score is a mean over patches, and not the map's maximum.
    """
    marked = (anomaly_map >= threshold).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    found, amounts = [], []
    for number in range(1, count):  # 0 is what lies below the threshold
        left, top, width, height, area = map(int, stats[number])
        part = (slice(top, top + height), slice(left, left + width))
        inside = labels[part] == number
        values = anomaly_map[part][inside].astype(float)
        place = EVERYWHERE if area > MOST * labels.size else place_of(inside, (top, left), labels.shape)
        found.append(Finding((left, top, left + width, top + height), area, float(values.max()), place))
        amounts.append((values.clip(0) if mean else values - threshold).sum())
    whole = float(anomaly_map.sum(dtype=float, where=anomaly_map > 0)) if mean else None
    told = shares(amounts, [one.area for one in found], whole)
    return Regions(labels, tuple(replace(one, share=share) for one, share in zip(found, told, strict=True)))


def measured(findings: Sequence[Finding], spacing: tuple[float, float] | None) -> tuple[Finding, ...]:
    """With areas in mm², where it is known how many mm lie from row to row and from column to column."""
    if spacing is None:
        return tuple(findings)
    return tuple(replace(one, area_mm2=one.area * spacing[0] * spacing[1]) for one in findings)


def plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as JSON holds them, rounded."""
    return [_rounded(asdict(one)) for one in findings]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def shares(amounts: Sequence[float], areas: Sequence[int], whole: float | None) -> list[float]:
    """What of the score each region makes, in [0, 1].

    Where the score is the map's maximum (or made of cues), amounts are the regions' sums of what lies above the pixel
    threshold, and shares their parts of all regions' (whole: None); they add up to 1. Regions that only just reach the
    threshold share by area. Where the score is a mean, amounts are the regions' sums of the map (what is negative
    counts as 0), and shares their parts of the whole picture's; the rest lies below the threshold.
    """
    total = sum(amounts) if whole is None else whole
    if total > 0:
        return [float(amount / total) for amount in amounts]
    return [area / sum(areas) for area in areas] if whole is None else [0.0] * len(areas)


def place_of(inside: np.ndarray, corner: tuple[int, int], shape: tuple[int, int]) -> str:
    """Where a region lies: the one of three by three equal parts of a picture of `shape` (H, W) that holds most of it.

    inside: bool (h, w), the region in its box, whose top left pixel is `corner`.
    """
    rows, columns = inside.nonzero()
    down, across = (_third(rows + corner[0], shape[0]), _third(columns + corner[1], shape[1]))
    row, column = divmod(int(np.bincount(3 * down + across, minlength=9).argmax()), 3)
    return "centre" if row == column == 1 else f"{ROWS[row]} {COLUMNS[column]}"


def _third(pixels: np.ndarray, length: int) -> np.ndarray:
    """Which third of an axis the pixels' centres lie in."""
    return (2 * pixels + 1) * 3 // (2 * length)


def patch_pixels(labels: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels of each region lie in which patch: numbers (R,) of the regions in a tile's labels (h, w), 0 for
    what is outside of them, and pixels (R, G·G)."""
    areas = np.bincount(labels.ravel())
    numbers = areas.nonzero()[0]
    row_of = np.zeros(len(areas), np.int64)
    row_of[numbers] = np.arange(len(numbers))
    down, across = (np.arange(length) * grid // length for length in labels.shape)
    cells = row_of[labels] * grid**2 + (down[:, None] * grid + across)
    return numbers, np.bincount(cells.ravel(), minlength=len(numbers) * grid**2).reshape(-1, grid**2)


def closest(texts: FindingTexts, margins: np.ndarray) -> tuple[Resemblance, ...]:
    """The findings with the largest margins (F,), the largest first."""
    order = np.argsort(-margins, kind="stable")[:CLOSEST]
    return tuple(Resemblance(texts.findings[place], float(margins[place])) for place in order)

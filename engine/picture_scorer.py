"""One picture's map and score, however the model was made: the same alone as among others, whole or in tiles."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dataset import to_pixels
from engine.findings import Finding, FindingTexts, find_regions
from engine.kept_scores import KeptScores
from engine.system import System
from engine.tiles import Blend, Tile, Tiling, tiles
from runtime.bars import Bar
from runtime.errors import InputError
from scoring.baselines import Baseline
from scoring.cues import CueReader
from scoring.maps import Calibration, Scale, highest, mean_scores, means_within, scaled_maps
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores
from scoring.raw_scores import RawScores, ScoreRule

BAR_AFTER = 2.0  # seconds before a progress bar within another shows
EVEN = 0.5  # where normal and abnormal are equally likely by the prompts: the threshold where nothing calibrates one


@dataclass(frozen=True)
class Piece:
    """A tile of a picture, and what the model predicts of it."""

    tile: Tile
    raw: RawScores


@dataclass(frozen=True)
class PictureScorer:
    """The model with what it compares images with, and the scale and thresholds of its scores.

    text_directions: (D, 2), None without prompts. banks: by head, empty without normal images. calibrated: whether
    scale and thresholds come from images of known label; top: where on that scale the colours end. source: what those
    came from, in words. baseline: what scores instead of prompts and banks. reader: of cues, where scores are made of
    them. finding_texts: what regions may resemble. kept: where raw scores of pictures are kept for the next time, None:
    nowhere.
    """

    system: System
    text_directions: Tensor | None
    banks: dict[str, MemoryBank]
    rule: ScoreRule
    calibration: Calibration
    calibrated: bool
    top: float = 1.0
    tiling: Tiling | None = None
    source: str = "the prompts alone"
    baseline: Baseline | None = None
    reader: CueReader | None = None
    finding_texts: FindingTexts | None = None
    kept: KeptScores | None = None

    @property
    def branch(self) -> str:
        """The branch whose scores and maps are given."""
        if self.baseline is not None:
            return self.baseline.branch
        if not self.banks:
            return "zero"
        return "few" if self.text_directions is None else "fused"

    def pieces(
        self,
        picture: Image.Image,
        region: np.ndarray | None = None,
        without: Callable[[int], Sequence[int]] | None = None,
    ) -> list[Piece]:
        """What the model predicts of a picture, tile by tile; tiles outside the region (H, W) are passed over.

        without: of a tile's number, the owners whose tokens the bank leaves out.
        """
        shape, found = picture.size[::-1], []
        bar = Bar(list(tiles(shape, self.tiling)), "tiles", unit="tile", leave=False, delay=BAR_AFTER)
        for number, tile in enumerate(bar):
            if region is None or region[tile.rows, tile.columns].any():
                part = picture.crop(tile.box) if self.tiling else picture
                found.append(Piece(tile, self.raw_scores(part, () if without is None else without(number))))
        return found

    def raw_scores(self, picture: Image.Image, without: Sequence[int] = ()) -> RawScores:
        """Those of a picture by itself, so that nothing depends on which others are scored."""
        if self.kept is None:
            return self._raw_scores(picture, without)
        kept = self.kept.of(picture, without, RawScores, lambda: self._raw_scores(picture, without))
        return kept.by_recipe(self.rule.recipe)

    def _raw_scores(self, picture: Image.Image, without: Sequence[int]) -> RawScores:
        prefix = self.system.prefix(to_pixels(picture, self.system.size)[None])
        if self.baseline is not None:
            return self.rule.raw_scores(self.system.baseline_scores(prefix, self.baseline))
        (decoded,) = self.system.tokens(prefix, self.rule.heads, trunk=self.finding_texts is not None)
        given = (self.rule.heads, self.text_directions, self.banks, self.reader, without)
        raw = self.rule.raw_scores(self.system.score_decoded(prefix, decoded, *given)).of_taps(self.calibration.taps)
        texts = self.finding_texts
        return raw if texts is None else replace(raw, margins=texts.margins(decoded, self.system.decoder)[None])

    def map_and_score(self, picture: Image.Image, region: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """The map (H, W) float32 at the picture's own size and the score, both on the calibrated scale.

        Region and faults as `assess` has them.
        """
        return self.assess(picture, region)[:2]

    def assess(
        self, picture: Image.Image, region: np.ndarray | None = None
    ) -> tuple[np.ndarray, float, tuple[Finding, ...]]:
        """Map and score as `map_and_score` gives them, and the regions of the map at or above the pixel threshold, the
        one with the highest value first; what they resemble only of a picture that reaches the image's threshold.

        region: bool (H, W); what is outside is 0 in the map and counts for nothing in the score. Raises InputError for
        the region of a baseline whose score is of an image as a whole.
        """
        if region is not None:
            if self.rule.cues or (self.baseline is not None and self.rule.mean_head is not None):
                what = "this recipe (--image_score cues)" if self.rule.cues else "this baseline"
                raise InputError(f"{what} scores an image as a whole and no region of it; leave --roi out")
            region = np.ascontiguousarray(region)  # slices of a volume may run backwards, which torch can't read
        pieces = self.pieces(picture, region)
        full, score = self.compose(pieces, picture.size[::-1], self.calibration, region)
        return full, score, self._findings(full, score, pieces)

    def _findings(self, full: np.ndarray, score: float, pieces: Sequence[Piece]) -> tuple[Finding, ...]:
        thresholds, texts = self.calibration, self.finding_texts
        found = find_regions(full, thresholds.pixel.get(self.branch, math.nan), self.rule.by_mean)
        if texts is not None and found.findings and score >= thresholds.image.get(self.branch, math.nan):
            found = found.compared(texts, [(piece.tile, piece.raw.margins[0]) for piece in pieces])
        return found.sorted()

    def compose(
        self, pieces: Sequence[Piece], shape: tuple[int, int], scale: Calibration, region: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Map and score as `map_and_score` gives them, from the pieces of a picture of `shape`."""
        branch, size = self.branch, self.system.size
        canvas, means = Blend(shape, self.tiling), []
        for piece in pieces:
            tile, raw = piece.tile, piece.raw
            small = next(scaled_maps(raw.map_patches, scale.maps, size, branch))[0].numpy()
            height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
            canvas.add(tile, cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
            if raw.cues is not None and scale.cues is not None:
                known = {scale.maps: {branch: torch.tensor([self._highest(small, None)])}}
                means.append(float(raw.image_scores(size, scale, known)[branch][0]))
            elif raw.mean_patches is not None:
                part = None if region is None else region[tile.rows, tile.columns]
                means.append(self._mean(raw.mean_patches, branch, scale.means, part))
        full = canvas.values
        if region is not None:
            full[~region] = 0
        if means:
            return full, max(means)
        if len(pieces) == 1 and tile.covers(shape):  # the map as the model makes it, before it is resized
            return full, self._highest(small, None if region is None else shrunk(region, size))
        return full, self._highest(full, region)

    def _highest(self, values: np.ndarray, region: np.ndarray | None) -> float:
        """The score by a map's highest values, or by those in the region."""
        inside = values[None] if region is None else values[region][None, None]
        return float(highest(torch.from_numpy(inside), self.rule.recipe.top)[0])

    def _mean(self, found: PatchScores, branch: str, scale: Scale, region: np.ndarray | None) -> float:
        """A tile's score by the mean over its patches, or over those of the region."""
        if region is None or region.all():
            return float(mean_scores(found, scale, self.system.size)[branch][0])
        within = means_within(found, torch.tensor(region), self.system.size)
        zero, few = (None if name not in within else torch.tensor(within[name]) for name in ("zero", "few"))
        return float(scale.fuse(zero, few)[branch])


def shrunk(region: np.ndarray, size: int) -> np.ndarray:
    """A region, bool (H, W), on the model's map: bool (size, size), True where any pixel of it lies in the cell."""
    share = F.interpolate(torch.tensor(region)[None, None].float(), (size, size), mode="area")
    return share[0, 0].numpy() > 0


def by_prompts(taps: int) -> Calibration:
    """The scale where no image calibrates one: the mean over taps of the probability of abnormal, 0 to 1."""
    scale = Scale((0.0, float(taps)), None)
    return Calibration(scale, scale, {"zero": EVEN}, {"zero": EVEN}, {"zero": EVEN})

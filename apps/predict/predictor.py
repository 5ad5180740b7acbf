"""One picture's map and score, whichever way the model was made: the same alone as in a crowd, whole or in tiles."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from apps.predict.tiles import Blend, Tile, Tiling, tiles
from dataset import to_model
from engine.few_shot import CALIBRATED_ON
from engine.system import System
from scoring.calibration import Calibration, image_threshold, pixel_threshold
from scoring.maps import Scale, map_scale, mean_scale, mean_scores, means_within, scaled_maps
from scoring.memory_bank import Cap, MemoryBank
from scoring.patch_scores import Readings
from scoring.predictions import Views, heads, views

BANK_TOKENS = 60_000  # a tap: what a bank of many images keeps unless --bank_cap says otherwise
MANY = 100  # tiles of the support; on more of them calibration takes long enough to say so beforehand
BAR_AFTER = 2.0  # seconds before a progress bar within another shows
EVEN = 0.5  # where normal and abnormal are equally likely by the prompts: the threshold where nothing calibrates one


@dataclass(frozen=True)
class Piece:
    """A tile of a picture, and what the model reads in it."""

    tile: Tile
    seen: Views


@dataclass(frozen=True)
class Judge:
    """The model with what it compares images with, and the scale and thresholds of its scores.

    masks: an image's score is its map's maximum, otherwise the mean over patches; transfer: the latter, of the det
    tokens, beside maps of the seg tokens. calibrated: whether scale and thresholds come from images of known label;
    top: where on that scale the colours end. source: what those came from, in words.
    """

    system: System
    text: Tensor | None
    banks: dict[str, MemoryBank]
    masks: bool
    transfer: bool
    calibration: Calibration
    calibrated: bool
    top: float = 1.0
    tiling: Tiling | None = None
    source: str = "the prompts alone"

    @property
    def branch(self) -> str:
        """The branch whose scores and maps are given."""
        if not self.banks:
            return "zero"
        return "few" if self.text is None else "fused"

    def pieces(
        self, picture: Image.Image, region: np.ndarray | None = None, without: Callable[[int], int] | None = None
    ) -> list[Piece]:
        """What the model reads in a picture, tile by tile; tiles without a pixel of the region (H, W) are passed over.

        without: of a tile's number, the owner whose tokens the bank leaves out.
        """
        shape, found = picture.size[::-1], []
        bar = tqdm(list(tiles(shape, self.tiling)), "tiles", unit="tile", leave=False, delay=BAR_AFTER)
        for number, tile in enumerate(bar):
            if region is None or region[tile.rows, tile.columns].any():
                part = picture.crop(tile.box) if self.tiling else picture
                found.append(Piece(tile, self.views(part, None if without is None else without(number))))
        return found

    def views(self, picture: Image.Image, without: int | None = None) -> Views:
        """What the model reads in a picture, by itself, so that nothing depends on which others are scored."""
        wanted = heads(self.masks, self.transfer)
        (decoded,) = self.system.tokens(self.system.stem(to_model(picture, self.system.size)[None]), wanted)
        readings = {
            head: self.system.reading(decoded.tokens(head), self.text, self.banks.get(head), without) for head in wanted
        }
        return views(readings, self.masks, self.transfer)

    def look(self, picture: Image.Image, region: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """The map (H, W) float32 at the picture's own size and the score, both on the calibrated scale.

        region: bool (H, W); what is outside is 0 in the map and counts for nothing in the score.
        """
        if region is not None:
            region = np.ascontiguousarray(region)  # slices of a volume may run backwards, which torch can't read
        return self.compose(self.pieces(picture, region), picture.size[::-1], self.calibration, region)

    def compose(
        self, pieces: Sequence[Piece], shape: tuple[int, int], scale: Calibration, region: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Map and score as `look` gives them, from the pieces of a picture of `shape`."""
        branch, size = self.branch, self.system.size
        canvas, means = Blend(shape, self.tiling), []
        for piece in pieces:
            tile, seen = piece.tile, piece.seen
            small = next(scaled_maps(seen.maps, scale.maps, size, branch))[0].numpy()
            height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
            canvas.add(tile, cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
            if seen.scores is not None:
                part = None if region is None else region[tile.rows, tile.columns]
                means.append(self._mean(seen.scores, branch, scale.means, part))
        full = canvas.values
        if region is not None:
            full[~region] = 0
        if means:
            return full, max(means)
        if len(pieces) == 1 and tile.covers(shape):  # the map as the model makes it, before it is resized
            return full, float(small.max() if region is None else small[shrunk(region, size)].max())
        return full, float(full.max() if region is None else full[region].max())

    def _mean(self, readings: Readings, branch: str, scale: Scale, region: np.ndarray | None) -> float:
        """A tile's score by the mean over its patches, or over those of the region."""
        if region is None or region.all():
            return float(mean_scores(readings, scale, self.system.size)[branch][0])
        within = means_within(readings, torch.tensor(region), self.system.size)
        zero, few = (None if name not in within else torch.tensor(within[name]) for name in ("zero", "few"))
        return float(scale.fuse(zero, few)[branch])


def shrunk(region: np.ndarray, size: int) -> np.ndarray:
    """A region, bool (H, W), on the model's map: bool (size, size), True where any pixel of it lies in the cell."""
    share = F.interpolate(torch.tensor(region)[None, None].float(), (size, size), mode="area")
    return share[0, 0].numpy() > 0


def by_prompts(taps: int) -> Calibration:
    """The scale where no image calibrates one: the mean over taps of the probability of abnormal, 0 to 1."""
    scale = Scale((0.0, float(taps)), None)
    return Calibration(scale, scale, {"zero": EVEN}, {"zero": EVEN})


@dataclass(frozen=True)
class Known:
    """A picture of known label for calibration, read when it is asked for; mask: bool (S, S), None without masks."""

    source: int  # which image it is, or is a slice of
    label: int
    picture: Callable[[], Image.Image]
    mask: Callable[[], np.ndarray] | None = None


def in_tiles(judge: Judge, support: Sequence[Known], tiling: Tiling, args: argparse.Namespace) -> Judge:
    """The judge for images in tiles: memory bank, scales and thresholds are taken anew from the support, cut likewise.

    Each normal picture is scored against a bank without its own tiles, a single one tile by tile. With --branches zero
    there is no bank.
    """
    print(f"the support is cut into tiles of {tiling.side} pixels too: bank, scales and thresholds are of tiles")
    judge = replace(judge, tiling=tiling)
    normal, chosen = [known for known in support if known.label == 0], _some(support, args.seed)
    alone = len({known.source for known in normal}) == 1
    if args.branches != "zero":
        count = _count(normal, tiling)
        limit_bank(args, judge.system, count)
        wanted, cap = heads(judge.masks, judge.transfer), Cap.parse(args.bank_cap)
        banks = {head: MemoryBank.build(_tokens(judge, head, normal, alone), count, cap, args.seed) for head in wanted}
        judge = replace(judge, banks=banks)
    if (count := _count(chosen, tiling)) > MANY:
        print(f"calibrating on {count} tiles of {len(chosen)} pictures: each is scored once")
    return replace(judge, calibration=_calibration(judge, chosen, alone))


def _count(support: Sequence[Known], tiling: Tiling) -> int:
    """How many tiles the pictures are cut into."""
    bar = tqdm(support, "counting tiles", unit="image", leave=False, delay=BAR_AFTER)
    return sum(len(list(tiles(known.picture().size[::-1], tiling))) for known in bar)


def limit_bank(args: argparse.Namespace, system: System, images: int) -> None:
    """Set --bank_cap for a bank of so many images or tiles, unless it is set or they fit."""
    tokens = images * (1 + (args.img_size // system.decoder.visual.patch_size) ** 2)
    if args.bank_cap is None and tokens > BANK_TOKENS:
        args.bank_cap = str(BANK_TOKENS)
        print(f"memory bank: {BANK_TOKENS} of {tokens} tokens a tap, drawn evenly (--bank_cap)")


def _some(support: Sequence[Known], seed: int) -> list[Known]:
    """All abnormal pictures, and those of at most `CALIBRATED_ON` normal images."""
    sources = sorted({known.source for known in support if known.label == 0})
    drawn = {sources[row] for row in np.random.default_rng(seed).permutation(len(sources))[:CALIBRATED_ON]}
    return [known for known in support if known.label or known.source in drawn]


def _tokens(judge: Judge, head: str, normal: Sequence[Known], alone: bool) -> Iterator[tuple[list[Tensor], int]]:
    """The tokens of all tiles; a tile's owner is its image, or if there is but one image its own number."""
    for known in tqdm(normal, desc="memory bank", unit="image", leave=False):
        picture = known.picture()
        for number, tile in enumerate(tiles(picture.size[::-1], judge.tiling)):
            stem = judge.system.stem(to_model(picture.crop(tile.box), judge.system.size)[None])
            yield judge.system.levels([stem], head), number if alone else known.source


def _calibration(judge: Judge, support: Sequence[Known], alone: bool) -> Calibration:
    """Scales over all tiles' maps; thresholds of the composed maps and scores, for the main branch."""
    size, seen, shapes = judge.system.size, [], []
    for known in tqdm(support, desc="calibrating", unit="image", leave=False):
        picture = known.picture()
        without = None if known.label else (lambda number, own=known.source: number if alone else own)
        seen.append(judge.pieces(picture, without=without))
        shapes.append(picture.size[::-1])
    every = [piece.seen for pieces in seen for piece in pieces]
    maps = map_scale(Readings.join([one.maps for one in every]), size)
    means = maps if every[0].scores is None else mean_scale(Readings.join([one.scores for one in every]), size)
    scale, branch = Calibration(maps, means, {}, {}), judge.branch
    scores, small = np.empty(len(seen), np.float32), np.empty((len(seen), size, size), np.float32)
    for row, one in enumerate(zip(seen, shapes, strict=True)):
        full, scores[row] = judge.compose(*one, scale)
        small[row] = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    labels = np.array([known.label for known in support])
    masks = None
    if any(known.mask for known in support):
        masks = np.stack([known.mask() if known.mask else np.zeros((size, size), bool) for known in support])
    image = image_threshold(scores, labels)
    return Calibration(maps, means, {branch: image}, {branch: pixel_threshold(small, labels, masks)})

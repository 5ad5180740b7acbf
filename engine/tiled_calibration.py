"""Calibration for large images: bank, scales and thresholds from a support that is cut into tiles as they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from dataset import to_pixels
from engine.picture_scorer import BAR_AFTER, PictureScorer
from engine.spec import FewShotSpec
from engine.system import System
from engine.tiles import Tiling, tiles
from runtime.bars import Bar
from scoring.calibration import CALIBRATION_IMAGES, dark_end, pixel_threshold
from scoring.maps import Calibration
from scoring.memory_bank import BankLimit, MemoryBank
from scoring.raw_scores import RawScores
from scoring.reliability import Evidence, ThresholdRule

BANK_TOKENS = 60_000  # a tap: what a bank of many images keeps unless --bank_cap says otherwise
MANY = 100  # tiles of the support; on more of them calibration takes long enough to say so beforehand
Scorer = TypeVar("Scorer", bound=PictureScorer)


@dataclass(frozen=True)
class KnownPicture:
    """A picture of known label for calibration, read when it is asked for; mask: bool (S, S), None without masks."""

    source: int  # which image it is, or is a slice of
    label: int
    picture: Callable[[], Image.Image]
    mask: Callable[[], np.ndarray] | None = None


def in_tiles(
    scorer: Scorer, support: Sequence[KnownPicture], tiling: Tiling, spec: FewShotSpec
) -> tuple[Scorer, FewShotSpec]:
    """The scorer of images in tiles: memory bank, scales and thresholds are taken anew from the support, cut likewise.

    Each normal picture is scored against a bank without its own tiles, a single one tile by tile. With --branches zero
    there is no bank. Gives the spec too, as a bank of many tiles is limited.
    """
    print(f"the support is cut into tiles of {tiling.side} pixels too: bank, scales and thresholds are of tiles")
    scorer = replace(scorer, tiling=tiling, rule=replace(scorer.rule, cues=False), reader=None)  # scores are of maps
    normal, chosen = [known for known in support if known.label == 0], _some(support, spec.seed)
    alone = len({known.source for known in normal}) == 1
    if spec.branches != "zero":
        count = _count(normal, tiling)
        spec = with_bank_limit(spec, scorer.system, count)
        banks, limit = {}, BankLimit.parse(spec.bank_cap)
        for head in scorer.rule.heads:
            tokens, search = _tokens(scorer, head, normal, alone), scorer.system.search
            banks[head] = MemoryBank.build(tokens, count, limit, spec.seed, search=search)
        scorer = replace(scorer, banks=banks)
    if (count := _count(chosen, tiling)) > MANY:
        print(f"calibrating on {count} tiles of {len(chosen)} pictures: each is scored once")
    return replace(
        scorer, calibration=_calibration(scorer, chosen, alone, ThresholdRule.parse(spec.threshold_rule))
    ), spec


def _count(support: Sequence[KnownPicture], tiling: Tiling) -> int:
    """How many tiles the pictures are cut into."""
    bar = Bar(support, "counting tiles", unit="image", leave=False, delay=BAR_AFTER)
    return sum(len(list(tiles(known.picture().size[::-1], tiling))) for known in bar)


def with_bank_limit(spec: FewShotSpec, system: System, images: int) -> FewShotSpec:
    """The spec with a limit for a bank of so many images or tiles, unless it has one or they fit."""
    tokens = images * (1 + (spec.img_size // system.decoder.visual.patch_size) ** 2)
    if spec.bank_cap is not None or tokens <= BANK_TOKENS:
        return spec
    print(f"memory bank: {BANK_TOKENS} of {tokens} tokens a tap, drawn evenly (--bank_cap)")
    return replace(spec, bank_cap=str(BANK_TOKENS))


def _some(support: Sequence[KnownPicture], seed: int) -> list[KnownPicture]:
    """All abnormal pictures, and those of at most `CALIBRATION_IMAGES` normal images."""
    sources = sorted({known.source for known in support if known.label == 0})
    drawn = {sources[row] for row in np.random.default_rng(seed).permutation(len(sources))[:CALIBRATION_IMAGES]}
    return [known for known in support if known.label or known.source in drawn]


def _tokens(
    scorer: PictureScorer, head: str, normal: Sequence[KnownPicture], alone: bool
) -> Iterator[tuple[list[Tensor], int]]:
    """The tokens of all tiles; a tile's owner is its image, or if there is but one image its own number."""
    for known in Bar(normal, desc="memory bank", unit="image", leave=False):
        picture = known.picture()
        for number, tile in enumerate(tiles(picture.size[::-1], scorer.tiling)):
            prefix = scorer.system.prefix(to_pixels(picture.crop(tile.box), scorer.system.size)[None])
            yield scorer.system.levels([prefix], head), number if alone else known.source


def _calibration(
    scorer: PictureScorer, support: Sequence[KnownPicture], alone: bool, rule: ThresholdRule
) -> Calibration:
    """Scales over all tiles' maps; thresholds of the composed maps and scores, for the main branch."""
    size, seen, shapes = scorer.system.size, [], []
    for known in Bar(support, desc="calibrating", unit="image", leave=False):
        picture = known.picture()
        without = None if known.label else (lambda number, own=known.source: (number if alone else own,))
        seen.append(scorer.pieces(picture, without=without))
        shapes.append(picture.size[::-1])
    maps, means = RawScores.join([piece.raw for pieces in seen for piece in pieces]).scales(size)
    scale, branch = Calibration(maps, means, {}, {}), scorer.branch
    scores, small = np.empty(len(seen), np.float32), np.empty((len(seen), size, size), np.float32)
    for row, one in enumerate(zip(seen, shapes, strict=True)):
        full, scores[row] = scorer.compose(*one, scale)
        small[row] = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    labels = np.array([known.label for known in support])
    masks = None
    if any(known.mask for known in support):
        masks = np.stack([known.mask() if known.mask else np.zeros((size, size), bool) for known in support])
    held_out = scorer.system.decoder.kind == "none"  # adapters were trained on these very images
    evidence = Evidence.of(scores.astype(float), labels, np.arange(len(labels)), held_out)
    image, pixel = evidence.threshold(rule), pixel_threshold(small, labels, masks)
    dark = {branch: dark_end(small, labels, masks)}
    return Calibration(maps, means, {branch: image}, {branch: pixel}, dark, {branch: evidence})

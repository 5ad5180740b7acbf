"""Large images in tiles: where the tiles lie, and how their maps become one map without seams."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tiling:
    """Tiles of `side` x `side` pixels of which neighbours share at least `overlap`."""

    side: int
    overlap: int


@dataclass(frozen=True)
class Tile:
    """One tile's place: its number down and across, and its pixels' rows and columns."""

    down: int
    across: int
    rows: slice
    columns: slice

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom, as Pillow crops."""
        return self.columns.start, self.rows.start, self.columns.stop, self.rows.stop

    def covers(self, shape: tuple[int, int]) -> bool:
        """Whether the tile is the whole of an image of `shape` (H, W)."""
        return self.box == (0, 0, *shape[::-1])


def tiles(shape: tuple[int, int], tiling: Tiling | None) -> Iterator[Tile]:
    """The tiles that cover an image of `shape` (H, W), row by row; without tiling one tile, the whole."""
    rows, columns = (spans(length, tiling) for length in shape)
    for down, part in enumerate(rows):
        for across, other in enumerate(columns):
            yield Tile(down, across, part, other)


def spans(length: int, tiling: Tiling | None) -> list[slice]:
    """The stretches of an axis that tiles cover: all of one length, evenly spread; one if a tile holds it all."""
    if tiling is None or length <= tiling.side:
        return [slice(0, length)]
    count = -(-(length - tiling.overlap) // (tiling.side - tiling.overlap))
    starts = np.linspace(0, length - tiling.side, count).round().astype(int).tolist()
    return [slice(start, start + tiling.side) for start in starts]


class Blend:
    """A map (H, W) put together from tiles' maps, each fading out over its overlaps.

    Weights fall smoothly to nothing at a tile's edge and add up to one everywhere, so there is no seam: where two
    tiles disagree, the map goes over from one to the other.
    """

    def __init__(self, shape: tuple[int, int], tiling: Tiling | None) -> None:
        self.values = np.zeros(shape, np.float32)
        self.down, self.across = (weights(length, tiling) for length in shape)

    def add(self, tile: Tile, part: np.ndarray) -> None:
        """Put in a tile's map (h, w) float32."""
        weight = self.down[tile.down][:, None] * self.across[tile.across]
        self.values[tile.rows, tile.columns] += part * weight


def weights(length: int, tiling: Tiling | None) -> list[np.ndarray]:
    """The weight (n,) float32 of every span's pixels; over all spans they add up to one at each pixel."""
    parts = spans(length, tiling)
    if len(parts) == 1:
        return [np.ones(length, np.float32)]
    ramp = np.sin(np.pi / 2 * (np.arange(tiling.overlap) + 0.5) / max(1, tiling.overlap)) ** 2
    raw, total = [], np.zeros(length)
    for number, part in enumerate(parts):
        window = np.ones(tiling.side)
        if number > 0:
            window[: tiling.overlap] *= ramp
        if number < len(parts) - 1:
            window[tiling.side - tiling.overlap :] *= ramp[::-1]
        raw.append(window)
        total[part] += window
    return [(window / total[part]).astype(np.float32) for window, part in zip(raw, parts, strict=True)]

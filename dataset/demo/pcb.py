"""A populated circuit board, seen from above, and what can be wrong with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.demo.board import (
    BOARD,
    COPPER,
    PARTS,
    PINS,
    PITCH,
    SHAPE,
    SOLDER,
    Part,
    Point,
    bare_board,
    pins,
    place,
    random_part,
    turned,
)
from dataset.demo.draw import blend, blur, chance, fill, grain, noise, outline, shape_alpha, stroke, uniform, wander

# What may fall on a board: bright metal, soot, red plastic, paper, dirt.
CRUMBS = (
    (0.75, 0.76, 0.78),
    (0.12, 0.11, 0.10),
    (0.55, 0.14, 0.12),
    (0.85, 0.83, 0.74),
    (0.45, 0.36, 0.22),
)


@dataclass(frozen=True)
class Board:
    """The picture, float32 (H, W, 3): `bare`, uint8 (H, W, 3), with `parts` on it, through `view` (2 x 3)."""

    image: np.ndarray
    bare: np.ndarray
    parts: tuple[Part, ...]
    view: np.ndarray

    def where(self, point: Point) -> Point:
        """Where a point of the board is seen in the picture."""
        x, y = self.view @ np.array([*point, 1.0])
        return float(x), float(y)

    def extent(self) -> np.ndarray:
        """Alpha of the board's own area in the picture, float32 (H, W)."""
        left, top, right, bottom = BOARD
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        return fill(SHAPE, np.array([self.where(corner) for corner in corners]))


def clean(rng: np.random.Generator) -> Board:
    """A spotless board: parts a little shifted, other codes, under another view, colour and finish."""
    parts = tuple(random_part(rng, kind, x, y) for kind, x, y in PARTS)
    bare = bare_board(rng)
    centre = (128 + uniform(rng, -3, 3), 128 + uniform(rng, -3, 3))
    view = cv2.getRotationMatrix2D(centre, uniform(rng, -6, 6), uniform(rng, 0.95, 1.05))
    view[:, 2] += rng.uniform(-4, 4, 2)
    return Board(_picture(bare, parts, view), bare, parts, view)


def _picture(bare: np.ndarray, parts: Sequence[Part], view: np.ndarray) -> np.ndarray:
    canvas = bare.copy()
    for part in parts:
        place(canvas, part)
    seen = cv2.warpAffine(canvas, view, SHAPE[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return seen.astype(np.float32) / 255


# Defects


def _on_board(rng: np.random.Generator, board: Board, margin: float) -> Point:
    left, top, right, bottom = BOARD
    x, y = uniform(rng, left + margin, right - margin), uniform(rng, top + margin, bottom - margin)
    return board.where((x, y))


def _missing(rng: np.random.Generator, board: Board) -> np.ndarray:
    """A component that was never placed, or fell off: its pads are bare."""
    gone = int(rng.integers(len(board.parts) - 1))  # the last, the lamp, is too small to be missed
    return _picture(board.bare, [part for index, part in enumerate(board.parts) if index != gone], board.view)


def _scratch(rng: np.random.Generator, board: Board) -> np.ndarray:
    """A score through the lacquer, down to copper or to pale fibre, with a chipped edge."""
    path = wander(rng, _on_board(rng, board, 45), uniform(rng, 0, 6.3), uniform(rng, 45, 120), 0.06)
    width = uniform(rng, 1.6, 3.4)
    ragged = np.clip(0.9 + 0.35 * grain(rng, SHAPE, 1.2), 0, 1) * board.extent()
    image = blend(board.image, 0.02, stroke(SHAPE, path + 1.3, width, 0.8) * board.extent() * 0.5)
    colour = np.asarray(COPPER if chance(rng, 0.5) else (0.72, 0.74, 0.66)) * uniform(rng, 0.8, 1.2)
    return blend(image, colour, stroke(SHAPE, path, width, 0.4) * ragged)


def _burn(rng: np.random.Generator, board: Board) -> np.ndarray:
    """A scorch: charred in the middle, brown and blistered round it."""
    radius = uniform(rng, 14, 32)
    centre = _on_board(rng, board, 35)
    alpha = shape_alpha(rng, SHAPE, centre, (radius, radius * uniform(rng, 0.6, 1)), 0.15, radius * 0.16)
    blister = 1 + 0.35 * noise(rng, SHAPE, 6, 2)
    brown = blister[..., None] * (0.33, 0.21, 0.11)
    image = blend(board.image, brown, alpha * uniform(rng, 0.6, 0.9))
    heart = np.clip(blur(alpha, radius * 0.25) * 1.6 - 0.75, 0, 1)
    return blend(image, blister[..., None] * (0.07, 0.06, 0.05), heart * uniform(rng, 0.3, 1))


def _bridge(rng: np.random.Generator, board: Board) -> np.ndarray:
    """Solder that ran across two to four neighbouring pins of a chip, with a wet gleam."""
    chip = board.parts[int(rng.integers(2))]
    count = PINS[chip.kind]
    joined = int(rng.integers(2, 5))
    first = int(rng.integers(count - joined + 1)) + (count if chance(rng, 0.5) else 0)
    ends = np.asarray(pins(chip.kind))[[first, first + joined - 1]]
    middle = board.where(tuple(turned(chip, ends.mean(0, keepdims=True))[0]))
    size = (uniform(rng, 5, 8), (joined - 1) * PITCH / 2 + uniform(rng, 3, 5))
    blob = outline(rng, middle, size, 0.1)
    image = blend(board.image, 0.02, fill(SHAPE, blob + 1.5, 1.0) * 0.6)
    image = blend(image, np.asarray(SOLDER) * uniform(rng, 0.65, 0.95), fill(SHAPE, blob, 0.5))
    inner = (blob - middle) * 0.45 + np.asarray(middle) - 1.2
    return blend(image, 1.0, fill(SHAPE, inner, 1.2) * uniform(rng, 0.4, 0.9))


def _particle(rng: np.random.Generator, board: Board) -> np.ndarray:
    """Something that does not belong there: a chip of metal or plastic, a crumb, with its shadow."""
    radius = uniform(rng, 8, 17)
    radii, points = (radius, radius * uniform(rng, 0.4, 0.9)), int(rng.integers(7, 14))
    edge = outline(rng, _on_board(rng, board, 25), radii, 0.2, 8, uniform(rng, 0, 3.1), points)
    image = blend(board.image, 0.02, fill(SHAPE, edge + uniform(rng, 2, 3.5), 1.5) * 0.6)
    facets = 1 + 0.3 * noise(rng, SHAPE, radius * 0.6) + 0.08 * grain(rng, SHAPE, 0.7)
    colour = np.asarray(CRUMBS[rng.integers(len(CRUMBS))])
    return blend(image, facets[..., None] * colour, fill(SHAPE, edge, 0.4))


DEFECTS: dict[str, Callable[[np.random.Generator, Board], np.ndarray]] = {
    "missing component": _missing,
    "scratch": _scratch,
    "burn": _burn,
    "bridged solder": _bridge,
    "foreign particle": _particle,
}

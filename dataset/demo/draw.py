"""Drawing primitives shared by the generators of the demonstration objects.

Images are float32 arrays, (H, W) grey or (H, W, 3) RGB, with 0 black and 1 white; an alpha is a float32
(H, W) array in [0, 1]. Points are (x, y) in pixels, as cv2 has them. Every function that draws at
random takes the generator `rng` and uses no other source, so one seed always gives one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

Shape = tuple[int, int]  # (H, W)
Point = tuple[float, float]  # (x, y), or a (low, high) pair of limits

SUBPIXEL = 4  # bits of fraction that cv2 is given for antialiased outlines


@dataclass(frozen=True)
class Drawing:
    """A picture and what is wrong in it.

    image: uint8 (H, W) or (H, W, 3) RGB. mask: bool (H, W), the pixels a defect changed (none when normal).
    words: empty when normal, else "finding", "place", "size" (small, medium, large), "contrast" (faint,
    clear).
    """

    image: np.ndarray
    mask: np.ndarray
    words: dict[str, str] = field(default_factory=dict)


# Random values


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """One float in [low, high)."""
    return float(rng.uniform(low, high))


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def pick(rng: np.random.Generator, options: Sequence[str], weights: Sequence[float] | None = None) -> str:
    """One of the options, by weight when weights are given (they need not sum to 1)."""
    share = None if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)
    return options[int(rng.choice(len(options), p=share))]


# Fields over the whole picture


def noise(rng: np.random.Generator, shape: Shape, cell: float, octaves: int = 1) -> np.ndarray:
    """Smooth value noise, float32 (H, W), mean about 0 and standard deviation about 1.

    `cell` is the distance of lattice points in pixels; every further octave halves cell and strength.
    """
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        rows, columns = int(np.ceil(height / step)) + 4, int(np.ceil(width / step)) + 4
        lattice = rng.standard_normal((rows, columns), dtype=np.float32)
        y0, x0 = rng.uniform(0.0, 1.0, 2) * step
        matrix = np.array([[1 / step, 0, x0 / step + 1], [0, 1 / step, y0 / step + 1]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        layer = cv2.warpAffine(lattice, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        total += layer * 0.5**octave
    # Cubic interpolation of unit normals has a standard deviation of about 0.75 over the cell.
    return total / (0.75 * np.sqrt(sum(0.25**octave for octave in range(octaves)), dtype=np.float32))


def grain(rng: np.random.Generator, shape: Shape, sigma: float = 0.0) -> np.ndarray:
    """Pixel noise, float32 (H, W), standard deviation 1, smoothed by a Gaussian of `sigma` pixels."""
    white = rng.standard_normal(shape, dtype=np.float32)
    if sigma <= 0:
        return white
    soft = blur(white, sigma)
    return soft / (soft.std() + 1e-6)


def speckle(rng: np.random.Generator, shape: Shape, looks: float = 4.0, sigma: float = 0.6) -> np.ndarray:
    """Multiplicative speckle of coherent imaging, float32 (H, W), mean 1; fewer looks are rougher."""
    field_ = rng.gamma(looks, 1.0 / looks, shape).astype(np.float32)
    return blur(field_, sigma) if sigma > 0 else field_


def gradient(rng: np.random.Generator, shape: Shape, strength: float) -> np.ndarray:
    """Slow multiplicative shading (a bias field, uneven light), float32 (H, W) in about 1 +- strength."""
    y, x = coordinates(shape)
    a, b, c, d = rng.uniform(-1.0, 1.0, 4).astype(np.float32)
    bend = a * x + b * y + 0.7 * c * x * y + 0.7 * d * (x * x - y * y)
    return 1.0 + strength * bend / (np.abs(bend).max() + 1e-6)


def coordinates(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """(y, x), float32 (H, 1) and (1, W), running from -1 to 1; they broadcast to (H, W)."""
    height, width = shape
    return np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, `sigma` in pixels (0 or less: unchanged)."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image


def warp(
    rng: np.random.Generator, images: Sequence[np.ndarray], amount: float, cell: float, border: float = 0.0
) -> list[np.ndarray]:
    """The pictures, bent together by one smooth random displacement of about `amount` pixels (its std)."""
    shape = images[0].shape[:2]
    height, width = shape
    map_x = np.arange(width, dtype=np.float32)[None] + amount * noise(rng, shape, cell)
    map_y = np.arange(height, dtype=np.float32)[:, None] + amount * noise(rng, shape, cell)
    return [cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderValue=border) for image in images]


# Shapes


def outline(
    rng: np.random.Generator,
    centre: Point,
    radii: Point,
    wobble: float = 0.1,
    harmonics: int = 6,
    angle: float = 0.0,
    points: int = 96,
) -> np.ndarray:
    """A smooth closed random curve, float32 (points, 2) of (x, y): an ellipse whose radius wobbles.

    `wobble` is the relative deviation of the radius; `angle` (radians) turns the ellipse; more harmonics make
    a more ragged edge.
    """
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    order = np.arange(2, harmonics + 2)[:, None]
    strength = rng.standard_normal((harmonics, 1)) / order**0.8
    phase = rng.uniform(0, 2 * np.pi, (harmonics, 1))
    wave = (strength * np.cos(order * t + phase)).sum(0)
    radius = np.clip(1.0 + wobble * wave, 0.35, 1.9)
    x, y = radii[0] * radius * np.cos(t), radii[1] * radius * np.sin(t)
    turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
    return (turned + np.asarray(centre)).astype(np.float32)


def closed_curve(knots: Sequence[Point] | np.ndarray, per_knot: int = 8) -> np.ndarray:
    """A smooth closed curve through knots (N, 2) of (x, y): Catmull-Rom, float32 (N * per_knot, 2)."""
    p1 = np.asarray(knots, dtype=np.float32)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = np.linspace(0, 1, per_knot, endpoint=False, dtype=np.float32)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
    curve = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    return (0.5 * curve).reshape(-1, 2)


def fill(shape: Shape, points: np.ndarray, soft: float = 0.0) -> np.ndarray:
    """Alpha of the inside of a closed curve, points (N, 2) as (x, y), antialiased, blurred by `soft` px."""
    canvas = np.zeros(shape, np.uint8)
    fixed = np.round(np.asarray(points) * 2**SUBPIXEL).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], 255, lineType=cv2.LINE_AA, shift=SUBPIXEL)
    return blur(canvas.astype(np.float32) / 255.0, soft)


def stroke(shape: Shape, points: np.ndarray, width: float, soft: float = 0.0, closed: bool = False) -> np.ndarray:
    """Alpha of a line of `width` pixels along points (N, 2) of (x, y), antialiased, blurred by `soft` pixels.

    A line thinner than one pixel is drawn one pixel wide and paler.
    """
    canvas = np.zeros(shape, np.uint8)
    fixed = np.round(np.asarray(points) * 2**SUBPIXEL).astype(np.int32)
    thick = max(round(width), 1)
    cv2.polylines(canvas, [fixed], closed, 255, thick, lineType=cv2.LINE_AA, shift=SUBPIXEL)
    return blur(canvas.astype(np.float32) * (min(width, 1.0) / 255.0), soft)


def shape_alpha(
    rng: np.random.Generator,
    shape: Shape,
    centre: Point,
    radii: Point,
    wobble: float = 0.15,
    soft: float = 1.0,
) -> np.ndarray:
    """Alpha of a random closed shape, turned at random: `outline` and `fill` in one call."""
    points = outline(rng, centre, radii, wobble, angle=uniform(rng, 0, np.pi))
    return fill(shape, points, soft)


def blob(shape: Shape, centre: Point, radii: Point) -> np.ndarray:
    """Soft Gaussian spot, float32 (H, W), 1 at the centre (x, y); `radii`: its standard deviations (x, y)."""
    height, width = shape
    x = np.exp(-0.5 * ((np.arange(width, dtype=np.float32) - centre[0]) / radii[0]) ** 2)
    y = np.exp(-0.5 * ((np.arange(height, dtype=np.float32) - centre[1]) / radii[1]) ** 2)
    return y[:, None] * x[None]


def wander(
    rng: np.random.Generator,
    start: Point,
    angle: float,
    length: float,
    bend: float = 0.15,
    step: float = 3.0,
) -> np.ndarray:
    """A line that wanders off from `start` towards `angle` (radians), float32 (N, 2): vessels, hairs, cracks.

    `bend` is the standard deviation of the turn at every step of `step` pixels.
    """
    count = max(int(length / step), 2)
    turns = blur(rng.standard_normal((1, count)).astype(np.float32), 1.5)[0] * bend * 2.0
    heading = angle + np.cumsum(turns)
    moves = step * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    return (np.asarray(start) + np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])).astype(np.float32)


def tree(
    rng: np.random.Generator,
    canvas: np.ndarray,
    start: Point,
    angle: float,
    length: float,
    width: float,
    depth: int = 4,
    spread: float = 0.6,
) -> None:
    """Draw a branching vessel tree into `canvas` (float32 (H, W) alpha, changed in place by the maximum)."""
    lines: list[tuple[np.ndarray, float]] = []
    stems = [(start, angle, length, width, depth)]
    while stems:
        point, heading, reach, thick, left = stems.pop()
        path = wander(rng, point, heading, reach)
        lines.append((path, thick))
        if left > 1 and thick > 0.5:
            end = path[-1] - path[-2]
            onward = float(np.arctan2(end[1], end[0]))
            for side in (-1, 1):
                turn = side * spread * uniform(rng, 0.4, 1.2)
                shrink = uniform(rng, 0.6, 0.9)
                stems.append((tuple(path[-1]), onward + turn, reach * shrink, thick * uniform(rng, 0.6, 0.8), left - 1))
    layer = np.zeros(canvas.shape, np.uint8)
    for path, thick in sorted(lines, key=lambda line: line[1]):  # thick last: stems lie over thin, paler branches
        fixed = np.round(path * 2**SUBPIXEL).astype(np.int32)
        level = int(255 * min(thick, 1.0))
        cv2.polylines(layer, [fixed], False, level, max(round(thick), 1), cv2.LINE_AA, SUBPIXEL)
    np.maximum(canvas, layer.astype(np.float32) / 255.0, out=canvas)


def inside_point(rng: np.random.Generator, region: np.ndarray, margin: float = 0.0) -> tuple[Point, float]:
    """A random point (x, y) of a region (bool (H, W)) and its distance to the region's edge in pixels.

    The point keeps `margin` pixels from the edge where the region is wide enough, else as far as it allows.
    """
    distance = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3)
    candidates = np.flatnonzero(distance >= min(margin, 0.8 * float(distance.max())))
    place = int(candidates[rng.integers(len(candidates))])
    y, x = divmod(place, region.shape[1])
    return (float(x), float(y)), float(distance[y, x])


# Colour, exposure and words


def blend(image: np.ndarray, value: float | Sequence[float] | np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A new image: `value` (grey level, RGB triple or a picture) laid over `image` by `alpha` (H, W)."""
    cover = alpha[..., None] if image.ndim == 3 else alpha
    return image + cover * (np.asarray(value, dtype=np.float32) - image)


def exposure(
    rng: np.random.Generator,
    image: np.ndarray,
    gain: Point = (0.75, 1.25),
    offset: Point = (-0.06, 0.06),
    gamma: Point = (0.8, 1.25),
) -> np.ndarray:
    """The picture under a random gain, offset and gamma, clipped to [0, 1]: brightness means nothing."""
    power, scale, shift = (uniform(rng, *limits) for limits in (gamma, gain, offset))
    return np.clip(np.clip(image, 0, 1) ** power * scale + shift, 0, 1)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Float picture in [0, 1] (clipped) to uint8."""
    return (np.clip(image, 0, 1) * 255.0 + 0.5).astype(np.uint8)


def changed(before: np.ndarray, after: np.ndarray, threshold: float = 0.03) -> np.ndarray:
    """Where two noise-free pictures differ by over `threshold`, small holes closed: the mask, bool (H, W)."""
    difference = np.abs(after - before)
    if difference.ndim == 3:
        difference = difference.max(axis=2)
    seen = (difference > threshold).astype(np.uint8)
    return cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool)


def place_word(mask: np.ndarray) -> str:
    """Where a mask lies in the picture: "upper left", "lower right", "centre", ... by its centroid."""
    height, width = mask.shape
    y, x = np.argwhere(mask).mean(axis=0)
    row = "upper" if y < 0.4 * height else "lower" if y > 0.6 * height else ""
    column = "left" if x < 0.4 * width else "right" if x > 0.6 * width else ""
    return " ".join(word for word in (row, column) if word) or "centre"


def size_word(mask: np.ndarray, small: float = 0.008, large: float = 0.03) -> str:
    """small, medium or large by the share of the picture that the mask covers."""
    share = float(mask.mean())
    return "small" if share < small else "large" if share > large else "medium"


def contrast_word(before: np.ndarray, after: np.ndarray, mask: np.ndarray, clear: float = 0.12) -> str:
    """faint or clear by the mean absolute change inside the mask."""
    difference = np.abs(after - before)
    if difference.ndim == 3:
        difference = difference.max(axis=2)
    return "clear" if float(difference[mask].mean()) >= clear else "faint"

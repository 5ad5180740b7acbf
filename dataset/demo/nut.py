"""A toothed metal nut on a dark ground, seen from above, and what can be wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataset.demo.draw import (
    blend,
    blur,
    chance,
    fill,
    grain,
    inside_point,
    noise,
    shape_alpha,
    stroke,
    uniform,
    wander,
)

SHAPE = (256, 256)
TEETH = 6
HOLE, COLLAR, ROOT = 0.33, 0.57, 0.75  # radii of bore, collar and tooth roots, as parts of the tips' radius
RUSTS = ((0.50, 0.25, 0.10), (0.35, 0.17, 0.08), (0.55, 0.33, 0.15))
TEMPERS = ((0.68, 0.52, 0.20), (0.28, 0.32, 0.58), (0.48, 0.36, 0.50))  # what heat leaves on steel


@dataclass(frozen=True)
class Nut:
    """A nut and what its picture is made of, so that it can be drawn again with other teeth or another face.

    offsets, heights: (TEETH,), a tooth's turn in radians and its length, 1 when whole. turned, brushed: the
    face as machined on either side; ground: what it lies on; part: bool (H, W), the metal.
    """

    centre: tuple[float, float]
    radius: float
    turn: float
    light: float
    tint: np.ndarray
    offsets: np.ndarray
    heights: np.ndarray
    turned: np.ndarray
    brushed: np.ndarray
    ground: np.ndarray
    image: np.ndarray | None = None

    @property
    def part(self) -> np.ndarray:
        return _silhouette(self) > 0.5


def clean(rng: np.random.Generator) -> Nut:
    """A spotless nut in any turn, under light from any side."""
    centre = (uniform(rng, 120, 136), uniform(rng, 120, 136))
    radius, light = uniform(rng, 92, 104), uniform(rng, 0, 2 * np.pi)
    shade = uniform(rng, 0.03, 0.22)
    ground = shade * (1 + 0.2 * noise(rng, SHAPE, 70) + 0.1 * grain(rng, SHAPE, 0.8))
    nut = Nut(
        centre=centre,
        radius=radius,
        turn=uniform(rng, 0, 2 * np.pi),
        light=light,
        tint=(np.array([1.0, 0.985, 0.96]) + rng.uniform(-0.03, 0.03, 3)).astype(np.float32),
        offsets=rng.normal(0, 0.01, TEETH),
        heights=rng.normal(1, 0.02, TEETH),
        turned=_turned(rng, centre, light),
        brushed=_brushed(rng),
        ground=ground.astype(np.float32),
    )
    return replace(nut, image=_render(nut, nut.turned))


def _polar(centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(radius in pixels, angle in radians), float32 (H, W), about a centre (x, y)."""
    x = np.arange(SHAPE[1], dtype=np.float32)[None] - centre[0]
    y = np.arange(SHAPE[0], dtype=np.float32)[:, None] - centre[1]
    return np.hypot(x, y), np.arctan2(y, x)


def _within(radius: np.ndarray, edge: float, width: float) -> np.ndarray:
    """1 where the radius is less than `edge`, 0 beyond, over a smooth step of about 2 * `width` pixels."""
    return 0.5 - 0.5 * np.tanh((radius - edge) / width)


def _turned(rng: np.random.Generator, centre: tuple[float, float], light: float) -> np.ndarray:
    """A face cut on a lathe: fine rings, and the two-winged gleam that rings give."""
    radius, angle = _polar(centre)
    rings = grain(rng, (1, 1024), 4.0)[0]
    strength = uniform(rng, 0.02, 0.06)
    groove = rings[np.clip(radius * 5, 0, 1023).astype(np.int32)] * (1 + 0.4 * noise(rng, SHAPE, 60))
    gleam = np.abs(np.cos(angle - light)) ** uniform(rng, 2, 6) * uniform(rng, 0.05, 0.22)
    level = uniform(rng, 0.42, 0.6)
    return (level + strength * groove + gleam + 0.025 * noise(rng, SHAPE, 30, 2)).astype(np.float32)


def _brushed(rng: np.random.Generator) -> np.ndarray:
    """The other side's face: straight coarse brush marks, duller."""
    lines = cv2.GaussianBlur(grain(rng, (384, 384)), (0, 0), sigmaX=14, sigmaY=0.7)
    lines /= lines.std()
    matrix = cv2.getRotationMatrix2D((192, 192), uniform(rng, 0, 180), 1.0)
    matrix[:, 2] -= 64
    marks = cv2.warpAffine(lines, matrix, SHAPE[::-1], borderMode=cv2.BORDER_REFLECT)
    return (uniform(rng, 0.3, 0.6) + 0.07 * marks).astype(np.float32)


def _silhouette(nut: Nut) -> np.ndarray:
    """Alpha of the metal, float32 (H, W): the toothed outline less the bore."""
    theta = np.linspace(0, 2 * np.pi, 540, endpoint=False)
    spacing = 2 * np.pi / TEETH
    tooth = np.round(theta / spacing).astype(int) % TEETH
    away = theta - np.round(theta / spacing) * spacing - nut.offsets[tooth]
    lobe = 0.5 * (1 + np.tanh((0.27 - np.abs(away)) * 14))
    reach = nut.radius * (ROOT + (1 - ROOT) * nut.heights[tooth] * lobe)
    points = np.stack([reach * np.cos(theta + nut.turn), reach * np.sin(theta + nut.turn)], axis=1)
    bore = nut.radius * HOLE * np.stack([np.cos(theta), np.sin(theta)], axis=1)
    return fill(SHAPE, points + nut.centre) - fill(SHAPE, bore + nut.centre)


def _render(nut: Nut, face: np.ndarray, collar: float = 1.0) -> np.ndarray:
    """The nut's picture, (H, W, 3): `face` lit, bevelled edges, a collar of relative height `collar`."""
    metal = _silhouette(nut)
    depth = cv2.distanceTransform((metal > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    radius, _ = _polar(nut.centre)
    step = _within(radius, nut.radius * COLLAR, 2.5)
    height = blur(np.minimum(depth, 6.0), 1.0) + 3.5 * collar * step
    slope_x, slope_y = cv2.Sobel(height, -1, 1, 0, scale=0.125), cv2.Sobel(height, -1, 0, 1, scale=0.125)
    lit = -(slope_x * np.cos(nut.light) + slope_y * np.sin(nut.light))
    steep = np.hypot(slope_x, slope_y)
    value = face * (1 - 0.25 * np.clip(steep, 0, 1)) + 0.33 * lit + 0.5 * np.clip(lit, 0, 1) ** 4
    shift = 5 * np.array([np.cos(nut.light), np.sin(nut.light)])
    moved = cv2.warpAffine(metal, np.array([[1, 0, -shift[0]], [0, 1, -shift[1]]]), SHAPE[::-1])
    shadow = nut.ground * (1 - 0.6 * blur(moved, 4))
    return np.clip(blend(np.repeat(shadow[..., None], 3, 2), value[..., None] * nut.tint, metal), 0, 1)


def _on_metal(rng: np.random.Generator, nut: Nut, margin: float) -> tuple[float, float]:
    return inside_point(rng, nut.part, margin)[0]


def _scratch(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """One to three score marks side by side: a dark groove with a bright lip."""
    metal, image = _silhouette(nut), nut.image
    middle, heading = np.asarray(_on_metal(rng, nut, 14)), uniform(rng, 0, 2 * np.pi)
    strength = uniform(rng, 0.55, 1)
    for line in range(rng.integers(1, 4)):
        path = wander(rng, (0, 0), heading + uniform(rng, -0.08, 0.08), uniform(rng, 40, 90), 0.04)
        aside = uniform(rng, 5, 7) * line * np.array([np.sin(heading), -np.cos(heading)])
        path += middle + aside - path[len(path) // 2]
        image = blend(image, 0.95, metal * stroke(SHAPE, path + 1.4, 2, 0.5) * strength)
        image = blend(image, 0.1, metal * stroke(SHAPE, path, 2, 0.5) * strength)
    return image


def _missing_tooth(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """One tooth, at times two, broken off."""
    heights = nut.heights.copy()
    first = rng.integers(TEETH)
    heights[first] = uniform(rng, -0.05, 0.4)
    if chance(rng, 0.25):
        heights[(first + 1) % TEETH] = uniform(rng, 0, 0.4)
    return _render(replace(nut, heights=heights), nut.turned)


def _bent_tooth(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """One tooth pushed aside, folded up into the light or out of it."""
    offsets, heights = nut.offsets.copy(), nut.heights.copy()
    index = rng.integers(TEETH)
    offsets[index] += uniform(rng, 0.12, 0.25) * (1 if chance(rng, 0.5) else -1)
    heights[index] *= uniform(rng, 0.75, 1.1)
    angle = nut.turn + index * 2 * np.pi / TEETH + offsets[index]
    reach = nut.radius * 0.93
    tip = (nut.centre[0] + reach * np.cos(angle), nut.centre[1] + reach * np.sin(angle))
    bend = shape_alpha(rng, SHAPE, tip, (nut.radius * 0.22, nut.radius * 0.17), 0.05, 3.0)
    tilt = uniform(rng, 0.3, 0.6) if chance(rng, 0.5) else -uniform(rng, 0.35, 0.6)
    return _render(replace(nut, offsets=offsets, heights=heights), nut.turned * (1 + tilt * bend))


def _rust(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """A rough blotch of rust."""
    blotch = _patch(rng, nut) * np.clip(0.85 + 0.45 * noise(rng, SHAPE, 9, 3), 0, 1)
    rough = 1 + 0.15 * grain(rng, SHAPE, 1.0)
    colour = np.asarray(RUSTS[rng.integers(len(RUSTS))])
    return blend(nut.image, rough[..., None] * colour, blotch * uniform(rng, 0.6, 0.95))


def _colour_change(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """The straw, blue or purple of overheated steel, through which the machining is seen."""
    colour = np.asarray(TEMPERS[rng.integers(len(TEMPERS))])
    tinted = nut.image * colour / colour.max()
    return blend(nut.image, tinted, _patch(rng, nut) * uniform(rng, 0.6, 1))


def _patch(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """Alpha of a random soft patch on the metal."""
    radius = uniform(rng, 11, 30)
    centre = _on_metal(rng, nut, 10)
    return shape_alpha(rng, SHAPE, centre, (radius, radius * uniform(rng, 0.5, 1)), 0.2, 2.5) * _silhouette(nut)


def _dent(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """One to three knocks: hollows, dark towards the light and bright away from it."""
    image, metal = nut.image, _silhouette(nut)
    centre = _on_metal(rng, nut, 15)
    for _ in range(rng.integers(1, 4)):
        radius = uniform(rng, 7, 15)
        at = (centre[0] + uniform(rng, -12, 12), centre[1] + uniform(rng, -12, 12))
        hollow = shape_alpha(rng, SHAPE, at, (radius, radius * uniform(rng, 0.6, 1)), 0.12, radius * 0.22)
        slope = cv2.Sobel(hollow, -1, 1, 0, scale=0.125) * np.cos(nut.light)
        slope += cv2.Sobel(hollow, -1, 0, 1, scale=0.125) * np.sin(nut.light)
        slope /= np.abs(slope).max() + 1e-6
        relief = uniform(rng, 0.22, 0.42) * slope - 0.1 * hollow
        image = np.clip(image + (relief * metal)[..., None], 0, 1)
    return image


def _flipped(rng: np.random.Generator, nut: Nut) -> np.ndarray:
    """The middle of the nut shows its other side: brushed, not turned, and without the collar."""
    radius, _ = _polar(nut.centre)
    inner = _within(radius, nut.radius * (COLLAR + 0.03), 2.0)
    other = nut.brushed * inner + nut.turned * (1 - inner)
    return _render(nut, other.astype(np.float32), collar=uniform(rng, -0.4, 0.1))


DEFECTS: dict[str, Callable[[np.random.Generator, Nut], np.ndarray]] = {
    "scratch": _scratch,
    "missing tooth": _missing_tooth,
    "bent tooth": _bent_tooth,
    "rust": _rust,
    "colour change": _colour_change,
    "dent": _dent,
    "flipped region": _flipped,
}

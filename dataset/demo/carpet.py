"""A woven carpet, seen from above, and what can be wrong with it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataset.demo.draw import blend, blur, chance, fill, grain, noise, outline, shape_alpha, stroke, uniform, wander

SHAPE = (256, 256)
DYES = ((0.50, 0.49, 0.47), (0.55, 0.47, 0.38), (0.38, 0.44, 0.52), (0.42, 0.50, 0.42), (0.56, 0.40, 0.37))
YARNS = ((0.93, 0.91, 0.86), (0.75, 0.12, 0.12), (0.10, 0.10, 0.12), (0.15, 0.25, 0.65), (0.85, 0.70, 0.20))


@dataclass(frozen=True)
class Carpet:
    """The picture, its dye (RGB) and its weave without colour, float32 (H, W), about 1 on the mean."""

    image: np.ndarray
    dye: np.ndarray
    weave: np.ndarray


def clean(rng: np.random.Generator) -> Carpet:
    """A spotless carpet of random dye, pitch, direction and wear."""
    weave = _weave(rng, pitch=uniform(rng, 6.0, 9.5), angle=uniform(rng, 0, 2 * np.pi))
    dye = np.asarray(DYES[rng.integers(len(DYES))]) * uniform(rng, 0.75, 1.25) + rng.uniform(-0.03, 0.03, 3)
    image = weave[..., None] * dye.astype(np.float32)
    for _ in range(rng.integers(0, 6)):  # lint is no defect
        start = (uniform(rng, 0, 255), uniform(rng, 0, 255))
        lint = stroke(SHAPE, wander(rng, start, uniform(rng, 0, 6.3), uniform(rng, 4, 9), 0.4), 1.0)
        image = blend(image, 0.9 if chance(rng, 0.7) else 0.1, lint * 0.7)
    return Carpet(np.clip(image, 0, 1).astype(np.float32), dye, weave)


def _weave(rng: np.random.Generator, pitch: float, angle: float) -> np.ndarray:
    """Light and shade of a 2/2 twill, float32 (H, W): threads of `pitch` pixels, two over, two under."""
    x = np.arange(SHAPE[1], dtype=np.float32)[None] / pitch
    y = np.arange(SHAPE[0], dtype=np.float32)[:, None] / pitch
    sway = 0.35
    u = x * np.cos(angle) + y * np.sin(angle) + sway * noise(rng, SHAPE, 45) + uniform(rng, 0, 4)
    v = y * np.cos(angle) - x * np.sin(angle) + sway * noise(rng, SHAPE, 45) + uniform(rng, 0, 4)
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    across, along = u - column, v - row
    phase = (column + row) % 4
    warp_up = phase < 2
    # The thread on top is round across its own direction, and dips where it dives under its neighbours.
    round_of = np.where(warp_up, across, along)
    reach = np.where(warp_up, (phase + 1 - along) / 2, (phase - 2 + across) / 2)
    height = (1 - (2 * round_of - 1) ** 2) * (1 - 0.7 * (2 * np.clip(reach, 0, 1) - 1) ** 4)
    shade = 0.45 + 0.75 * height + np.where(warp_up, 0.07, -0.07)
    table = 1 + 0.09 * rng.standard_normal((64, 64)).astype(np.float32)
    shade *= table[column % 64, row % 64]
    wear = 1 + 0.05 * noise(rng, SHAPE, 70, 2) + 0.06 * grain(rng, SHAPE, 0.7)
    return blur((shade * wear).astype(np.float32), 0.6)


def _anywhere(rng: np.random.Generator, margin: float) -> tuple[float, float]:
    return uniform(rng, margin, SHAPE[1] - margin), uniform(rng, margin, SHAPE[0] - margin)


def _fray(rng: np.random.Generator, image: np.ndarray, edge: np.ndarray, carpet: Carpet, count: int) -> np.ndarray:
    """Loose fibres that stand off the points of a torn edge (N, 2)."""
    for index in rng.integers(0, len(edge), count):
        path = wander(rng, tuple(edge[index]), uniform(rng, 0, 6.3), uniform(rng, 6, 15), 0.3)
        colour = np.clip(carpet.dye * uniform(rng, 0.8, 1.7), 0, 1)
        image = blend(image, colour, stroke(SHAPE, path, 1.2) * 0.85)
    return image


def _cut(rng: np.random.Generator, carpet: Carpet) -> np.ndarray:
    """A slit that gapes in its middle; the backing shows dark, the lips are lifted."""
    path = wander(rng, _anywhere(rng, 70), uniform(rng, 0, 6.3), uniform(rng, 35, 85), 0.05)
    step = np.gradient(path, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.linalg.norm(step, axis=1, keepdims=True)
    half = uniform(rng, 2.5, 5.5) * np.sin(np.linspace(0.05, np.pi - 0.05, len(path)))[:, None]
    sides = np.concatenate([path + normal * half, (path - normal * half)[::-1]])
    lips = fill(SHAPE, np.concatenate([path + normal * (half + 4), (path - normal * (half + 4))[::-1]]), 1.2)
    image = carpet.image * (1 + uniform(rng, 0.2, 0.45) * lips[..., None])
    image = blend(image, carpet.dye * uniform(rng, 0.12, 0.35), fill(SHAPE, sides, 0.6))
    return _fray(rng, image, sides, carpet, 14)


def _hole(rng: np.random.Generator, carpet: Carpet) -> np.ndarray:
    """A hole down to the backing, whose edge throws a shadow inwards."""
    radius = uniform(rng, 9, 22)
    edge = outline(rng, _anywhere(rng, 35), (radius, radius * uniform(rng, 0.65, 1)), 0.12, 9, uniform(rng, 0, 3.1))
    gap = fill(SHAPE, edge, 0.7)
    backing = np.asarray((0.42, 0.34, 0.24)) if chance(rng, 0.5) else np.asarray((0.16, 0.16, 0.17))
    mesh = 1 + 0.25 * grain(rng, SHAPE, 1.2)
    deep = np.clip(blur(gap, radius / 3) * 1.5 - 0.45, 0.15, 1) * mesh
    image = blend(carpet.image, deep[..., None] * backing, gap)
    return _fray(rng, image, edge, carpet, int(radius * 1.6))


def _thread(rng: np.random.Generator, carpet: Carpet) -> np.ndarray:
    """A loose twisted yarn that lies on the carpet, with its shadow."""
    path = wander(rng, _anywhere(rng, 60), uniform(rng, 0, 6.3), uniform(rng, 60, 150), uniform(rng, 0.1, 0.25))
    width = uniform(rng, 3, 5)
    yarn = stroke(SHAPE, path, width, 0.4)
    shadow = stroke(SHAPE, path + 2.0, width, 1.0)
    near = chance(rng, 0.35)  # a yarn of the carpet's own dye
    colour = carpet.dye * uniform(rng, 1.35, 1.7) if near else np.asarray(YARNS[rng.integers(len(YARNS))])
    twist = 1 - 0.25 * np.abs(grain(rng, SHAPE, 1.0))
    image = carpet.image * (1 - 0.45 * shadow[..., None])
    return blend(image, twist[..., None] * colour, yarn)


def _stain(rng: np.random.Generator, carpet: Carpet) -> np.ndarray:
    """A spill that the fibres soaked up: darker or bleached, the weave still seen, its rim often stronger."""
    radius = uniform(rng, 13, 32)
    alpha = shape_alpha(rng, SHAPE, _anywhere(rng, 40), (radius, radius * uniform(rng, 0.6, 1)), 0.13, 2.0)
    rim = np.clip(alpha - blur(alpha, radius / 4), 0, 1) * uniform(rng, 0, 1.2)
    soaked = np.clip(alpha * (0.8 + 0.2 * noise(rng, SHAPE, 12)) + rim, 0, 1)
    strength = uniform(rng, 0.35, 0.75)
    if chance(rng, 0.6):
        tint = np.asarray((0.55, 0.45, 0.33)) if chance(rng, 0.6) else np.asarray((0.35, 0.35, 0.42))
        return carpet.image * (1 - strength * soaked[..., None] * (1 - 0.7 * tint))
    return blend(carpet.image, carpet.weave[..., None] * np.asarray((0.82, 0.80, 0.74)), 0.7 * strength * soaked)


def _colour_change(rng: np.random.Generator, carpet: Carpet) -> np.ndarray:
    """A patch whose yarn took another dye: same weave, same lightness, other hue."""
    radius = uniform(rng, 14, 34)
    alpha = shape_alpha(rng, SHAPE, _anywhere(rng, 40), (radius, radius * uniform(rng, 0.5, 1)), 0.12, 1.5)
    hue = uniform(rng, 0, 2 * np.pi)
    wheel = 1 + uniform(rng, 0.3, 0.7) * np.cos(hue + np.array([0, 2.09, 4.19]))
    dye = wheel * carpet.dye.mean() / wheel.mean()
    return blend(carpet.image, carpet.weave[..., None] * dye, alpha * 0.9)


DEFECTS: dict[str, Callable[[np.random.Generator, Carpet], np.ndarray]] = {
    "cut": _cut,
    "hole": _hole,
    "thread": _thread,
    "stain": _stain,
    "colour change": _colour_change,
}

"""Drawn frontal chest X-rays for the demonstration benchmark, normal or with a finding in the lungs.

Left and right follow the radiological convention: the patient's left is the picture's right.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from dataset.demo import draw as dd
from dataset.demo.draw import Drawing

SIZE = 256
SHAPE = (SIZE, SIZE)
FINDINGS = ("consolidation", "ground-glass opacity", "pleural effusion", "nodule", "mass")
# In half widths of the chest from the midline, and in heights from apex (0) to base (1).
RIGHT_LUNG = np.array(
    [
        (-0.30, 0.02), (-0.42, 0.00), (-0.62, 0.08), (-0.80, 0.28), (-0.92, 0.55), (-0.97, 0.82),
        (-0.99, 1.04), (-0.90, 0.98), (-0.72, 0.88), (-0.50, 0.83), (-0.28, 0.90), (-0.20, 0.72),
        (-0.18, 0.50), (-0.17, 0.28), (-0.20, 0.10),
    ]
)  # fmt: skip


class Frame(NamedTuple):
    """Where the chest lies in the picture, in pixels."""

    middle: float  # x of the midline
    top: float  # y of the lungs' apices
    half: float  # half width of the rib cage
    tall: float  # height of the lungs


@dataclass(frozen=True)
class Chest:
    """One drawn chest: grey levels (H, W), alpha of the visible lungs (picture's left, right), its frame."""

    image: np.ndarray
    lungs: tuple[np.ndarray, np.ndarray]
    frame: Frame


def draw(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """One chest X-ray, uint8 (256, 256), with a finding and its mask when `abnormal`."""
    chest = _chest(rng)
    image, cover, words = chest.image, np.zeros(SHAPE, np.float32), {}
    if abnormal:
        image, cover, words = _finding(rng, chest)
    turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), dd.uniform(rng, -4, 4), 1.0)
    image = cv2.warpAffine(image, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(cover, turn, (SIZE, SIZE)) > 0.3
    if abnormal:
        words["place"] = _zone(mask, chest)
        words["size"] = dd.size_word(mask, small=0.008, large=0.04)
    return Drawing(_expose(rng, image), mask, words)


# Anatomy: densities add up along the beam, so everything is a sum of attenuations.


def _chest(rng: np.random.Generator) -> Chest:
    frame = Frame(
        middle=SIZE / 2 + dd.uniform(rng, -7, 7),
        top=dd.uniform(rng, 24, 42),
        half=dd.uniform(rng, 92, 112),
        tall=dd.uniform(rng, 145, 178),
    )
    lungs = tuple(_lung(rng, side, frame) for side in (-1, 1))
    body = _body(rng, frame)
    shadow, relief = _mediastinum(rng, frame)
    lungs = tuple(lung * (1 - shadow) for lung in lungs)
    air = np.maximum(*lungs)
    image = body * dd.uniform(rng, 0.56, 0.66)
    image = image - dd.uniform(rng, 0.34, 0.42) * air * (0.9 + 0.08 * dd.noise(rng, SHAPE, 50))
    image = image + relief * body
    image = image + _lung_vessels(rng, frame) * air
    image = image + _bones(rng, frame) * body
    image = image + _soft_tissue(rng, frame) * body
    return Chest(image.astype(np.float32), lungs, frame)


def _lung(rng: np.random.Generator, side: int, frame: Frame) -> np.ndarray:
    """Alpha (H, W) of one lung; side -1 is the patient's right (the picture's left)."""
    middle, top, half, tall = frame
    knots = RIGHT_LUNG.copy()
    if side > 0:  # the left dome stands lower
        knots[7:11, 1] += dd.uniform(rng, 0.01, 0.06)
    knots[8:11, 1] += dd.uniform(rng, -0.05, 0.03)
    knots += rng.normal(0, 0.012, knots.shape)
    points = np.stack([middle - side * knots[:, 0] * half, top + knots[:, 1] * tall], axis=1)
    return dd.fill(SHAPE, dd.closed_curve(points), dd.uniform(rng, 1.0, 2.0))


def _body(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Alpha (H, W) of neck, shoulders, trunk and arms against the air beside them."""
    middle, top, half, tall = frame
    neck, shoulder = dd.uniform(rng, 26, 36), top + dd.uniform(rng, 2, 20)
    wide = half * dd.uniform(rng, 1.12, 1.3)
    right = [
        (neck, -20), (neck + 3, shoulder - 18), (neck + 26, shoulder - 4), (wide, shoulder + 8),
        (wide + 26, shoulder + 40), (wide + 34, top + 0.45 * tall), (wide + 6, top + 0.55 * tall),
        (wide, top + 0.8 * tall), (wide + 4, SIZE + 20),
    ]  # fmt: skip
    points = [(middle + x, y) for x, y in right] + [(middle - x, y) for x, y in reversed(right)]
    return dd.fill(SHAPE, dd.closed_curve(points), 2.0)


def _mediastinum(rng: np.random.Generator, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Alpha of heart and great vessels over the lungs; what these, spine, hila and belly attenuate."""
    middle, top, half, tall = frame
    heart = (middle + half * dd.uniform(rng, 0.16, 0.26), top + tall * dd.uniform(rng, 0.66, 0.72))
    size = (half * dd.uniform(rng, 0.40, 0.52), tall * dd.uniform(rng, 0.20, 0.26))
    cover = dd.fill(SHAPE, dd.outline(rng, heart, size, 0.03, angle=dd.uniform(rng, 0.3, 0.6)), 1.6)
    column = [
        (-0.17, -0.2), (-0.16, 0.2), (-0.22, 0.45), (-0.24, 1.6), (0.2, 1.6), (0.2, 0.45), (0.22, 0.3),
        (0.24, 0.22), (0.16, 0.14), (0.15, -0.2),
    ]  # fmt: skip
    points = [(middle + x * half + dd.uniform(rng, -2, 2), top + y * tall) for x, y in column]
    cover = np.maximum(cover, dd.fill(SHAPE, dd.closed_curve(points), 2.0))
    y = np.arange(SIZE, dtype=np.float32)[:, None]
    fade = np.clip((top + 1.02 * tall - y) / 45, 0, 1)
    image = dd.uniform(rng, 0.05, 0.12) * cover * fade
    spine = dd.blob(SHAPE, (middle, SIZE / 2), (half * 0.09, 1e4))
    image += spine * (0.07 + 0.022 * np.sin(2 * np.pi * y / dd.uniform(rng, 14, 18)))
    trachea = [(middle, -10), (middle + dd.uniform(rng, -2, 2), top), (middle + 2, top + 0.27 * tall)]
    image -= dd.uniform(rng, 0.06, 0.13) * dd.stroke(SHAPE, np.array(trachea), half * 0.13, 2.0)
    for side in (-1, 1):
        bronchus = [(middle + 2, top + 0.27 * tall), (middle + side * half * 0.25, top + 0.40 * tall)]
        image -= 0.05 * dd.stroke(SHAPE, np.array(bronchus), half * 0.07, 2.0)
        hilum = (middle + side * half * 0.24, top + tall * dd.uniform(rng, 0.38, 0.46))
        image += dd.uniform(rng, 0.05, 0.12) * dd.blob(SHAPE, hilum, (half * 0.07, tall * 0.07))
    image += dd.uniform(rng, 0.02, 0.1) * np.clip((y - (top + 0.92 * tall)) / 40, 0, 1)
    if dd.chance(rng, 0.6):  # air in the stomach, under the left dome
        bubble = (middle + half * dd.uniform(rng, 0.4, 0.65), top + tall * dd.uniform(rng, 1.06, 1.14))
        image -= dd.uniform(rng, 0.08, 0.2) * dd.shape_alpha(rng, SHAPE, bubble, (16, 10), 0.12, 2.0)
    return np.clip(cover, 0, 0.96), image


def _lung_vessels(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Attenuation of the vessels that fan out from both hila, with a faint interstitial net."""
    middle, top, half, tall = frame
    canvas = np.zeros(SHAPE, np.float32)
    for side in (-1, 1):
        for fan in np.linspace(-1.2, 1.35, 6):
            start = (middle + side * half * 0.22, top + 0.42 * tall + fan * 8)
            heading = fan + dd.uniform(rng, -0.15, 0.15)
            heading = heading if side > 0 else np.pi - heading
            dd.tree(
                rng,
                canvas,
                start,
                heading,
                dd.uniform(rng, 16, 26),
                dd.uniform(rng, 1.8, 2.8),
                depth=4,
                spread=0.45,
            )
    net = np.clip(dd.noise(rng, SHAPE, 9, octaves=2), -1.5, 2)
    return dd.uniform(rng, 0.05, 0.1) * dd.blur(canvas, 1.1) + dd.uniform(rng, 0.004, 0.014) * net


def _bones(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Attenuation of posterior and anterior ribs, clavicles and the shoulder blades' edges."""
    middle, top, half, tall = frame
    image = np.zeros(SHAPE, np.float32)
    bright, gap = dd.uniform(rng, 0.08, 0.15), tall * dd.uniform(rng, 0.098, 0.112)
    t = np.linspace(0, 1, 24)
    rounds = 0.17 + 0.83 * np.sin(t * np.pi / 2)
    for side in (-1, 1):
        lean = dd.uniform(rng, 0.95, 1.1)
        for number in range(9):
            reach = half * min(0.62 + 0.09 * number, 1.0)
            height = top - 0.03 * tall + number * gap
            x = middle + side * (half * 0.1 + (reach - half * 0.1) * rounds)
            y = height + lean * gap * (0.6 * t - 0.5 * np.sin(t * 2.6) + (1.0 + 0.14 * number) * t**2.4)
            image = np.maximum(image, bright * _rib(np.stack([x, y], axis=1), dd.uniform(rng, 5.5, 7)))
            if 1 <= number <= 6:  # the front part runs on downwards and inwards, fainter
                x_front = middle + side * (reach - (reach - half * 0.35) * t)
                y_front = y[-1] + gap * (0.2 + 1.5 * t - 0.3 * t**2)
                front = 0.5 * bright * _rib(np.stack([x_front, y_front], axis=1), 6)
                image = np.maximum(image, front)
        image += _shoulder(rng, side, frame, bright)
    return image


def _rib(path: np.ndarray, width: float) -> np.ndarray:
    """A band whose edges are brighter than its inside, as a tube's are in projection."""
    rim = np.array([0, width / 2 - 0.5])
    edges = dd.stroke(SHAPE, path + rim, 1, 0.7) + dd.stroke(SHAPE, path - rim, 1, 0.7)
    return 0.55 * dd.stroke(SHAPE, path, width, 0.8) + 0.45 * edges


def _shoulder(rng: np.random.Generator, side: int, frame: Frame, bright: float) -> np.ndarray:
    """Attenuation of one clavicle, one shoulder blade's edge and the head of the humerus."""
    middle, top, half, tall = frame
    rise = dd.uniform(rng, -0.02, 0.08)
    clavicle = np.array(
        [
            (0.14, 0.14),
            (0.32, 0.11 - rise / 2),
            (0.55, 0.04 - rise),
            (0.80, -0.01 - rise),
            (1.05, -0.02 - rise),
        ]
    )
    path = clavicle * (side * half, tall) + (middle, top)
    image = 1.5 * bright * _rib(path, dd.uniform(rng, 6, 8))
    edge = np.array([(1.0, 0.05), (0.93, 0.2), (0.9, 0.35), (0.96, 0.48), (1.08, 0.3)])
    blade = edge * (side * half, tall) + (middle + side * dd.uniform(rng, -4, 10), top)
    image += bright * (0.35 * dd.fill(SHAPE, blade, 1.5) + 0.5 * dd.stroke(SHAPE, blade[:4], 2, 0.8))
    joint = (middle + side * half * 1.22, top + 0.06 * tall)
    return image + bright * 1.4 * dd.fill(SHAPE, dd.outline(rng, joint, (13, 15), 0.04), 1.5)


def _soft_tissue(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Attenuation of breast shadows, calcified nodes and, sometimes, leads and lines: all of them normal."""
    middle, top, half, tall = frame
    image = 0.02 * dd.noise(rng, SHAPE, 60)
    if dd.chance(rng, 0.45):
        for side in (-1, 1):
            spot = (
                middle + side * half * dd.uniform(rng, 0.5, 0.62),
                top + tall * dd.uniform(rng, 0.72, 0.82),
            )
            shadow = dd.shape_alpha(rng, SHAPE, spot, (half * 0.36, tall * 0.17), 0.05, 4.0)
            image = image + dd.uniform(rng, 0.03, 0.09) * shadow
    for _ in range(int(rng.integers(0, 3))):
        spot = (middle + dd.uniform(rng, -0.4, 0.4) * half, top + dd.uniform(rng, 0.2, 0.6) * tall)
        image = image + dd.uniform(rng, 0.15, 0.4) * dd.shape_alpha(rng, SHAPE, spot, (1.8, 1.5), 0.2, 0.5)
    if dd.chance(rng, 0.35):
        for _ in range(int(rng.integers(1, 4))):
            start = (middle + dd.uniform(rng, -0.7, 0.7) * half, top + dd.uniform(rng, -0.1, 0.6) * tall)
            lead = dd.wander(rng, start, dd.uniform(rng, 0, 2 * np.pi), dd.uniform(rng, 50, 140), bend=0.08)
            image = image + dd.uniform(rng, 0.1, 0.35) * dd.stroke(SHAPE, lead, dd.uniform(rng, 1, 2), 0.4)
            image = image + 0.4 * dd.shape_alpha(rng, SHAPE, start, (4, 4), 0.0, 0.5)
    return image.astype(np.float32)


# Findings


def _finding(rng: np.random.Generator, chest: Chest) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The picture with a finding, its cover (H, W) in [0, 1], and finding and contrast."""
    finding = dd.pick(rng, FINDINGS, (3, 2.5, 2, 1.5, 1.5))
    lung = chest.lungs[int(rng.integers(2))]
    strength = dd.uniform(rng, 0.8, 1.1) if dd.chance(rng, 0.78) else dd.uniform(rng, 0.45, 0.7)
    if finding == "pleural effusion":
        cover, density = _effusion(rng, chest, lung)
    elif finding == "ground-glass opacity":
        cover, density = _ground_glass(rng, chest, lung)
    elif finding == "consolidation":
        cover, density = _consolidation(rng, lung)
    else:
        radius = dd.uniform(rng, 7, 11) if finding == "nodule" else dd.uniform(rng, 14, 25)
        spot, _ = dd.inside_point(rng, lung > 0.5, margin=radius)
        wobble = 0.06 if finding == "nodule" else 0.14
        cover = dd.shape_alpha(rng, SHAPE, spot, (radius, radius * dd.uniform(rng, 0.8, 1.0)), wobble, 1.4)
        cover = cover * np.maximum(lung, 0.1)
        density = cover * dd.uniform(rng, 0.2, 0.3)
    after = chest.image + strength * density
    contrast = dd.contrast_word(chest.image, after, cover > 0.3, clear=0.12)
    return (
        after.astype(np.float32),
        cover,
        {"finding": finding, "contrast": contrast},
    )


def _consolidation(rng: np.random.Generator, lung: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A dense patch with a fluffy edge, with the dark branches of air bronchograms."""
    radius = dd.uniform(rng, 16, 34)
    spot, _ = dd.inside_point(rng, lung > 0.5, margin=min(radius, 18))
    patch = dd.shape_alpha(rng, SHAPE, spot, (radius, radius * dd.uniform(rng, 0.7, 1.0)), 0.22, 4.0)
    fluffy = np.clip(patch * (1.15 + 0.25 * dd.noise(rng, SHAPE, 11, octaves=2)), 0, 1) * lung
    branches = np.zeros(SHAPE, np.float32)
    heading = 0.0 if spot[0] > SIZE / 2 else np.pi
    start = (spot[0] - 0.6 * radius * np.cos(heading), spot[1])
    dd.tree(rng, branches, start, heading, radius * 0.45, 2.0, depth=3, spread=0.6)
    dense = dd.uniform(rng, 0.22, 0.32) * fluffy
    return fluffy, dense * (1 - 0.45 * dd.blur(branches, 0.8))


def _ground_glass(rng: np.random.Generator, chest: Chest, lung: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hazy patches, often in both lungs, through which the vessels still show."""
    cover = np.zeros(SHAPE, np.float32)
    homes = list(chest.lungs) if dd.chance(rng, 0.55) else [lung]
    for home in homes:
        for _ in range(int(rng.integers(1, 3))):
            radius = dd.uniform(rng, 14, 30)
            spot, _ = dd.inside_point(rng, home > 0.5, margin=10)
            cover = np.maximum(
                cover,
                home * dd.shape_alpha(rng, SHAPE, spot, (radius, radius * dd.uniform(rng, 0.6, 1.0)), 0.2, 4.5),
            )
    haze = cover * (0.8 + 0.3 * np.clip(dd.noise(rng, SHAPE, 7, octaves=3), -1.5, 1.5))
    return cover, dd.uniform(rng, 0.13, 0.2) * haze


def _effusion(rng: np.random.Generator, chest: Chest, lung: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fluid over the base of one lung, its upper edge a meniscus that climbs along the chest wall."""
    rows, columns = np.nonzero(lung > 0.5)
    outside = columns.min() if columns.mean() < chest.frame.middle else columns.max()
    level = rows.max() - dd.uniform(rng, 0.22, 0.5) * (rows.max() - rows.min())
    y = np.arange(SIZE, dtype=np.float32)[:, None]
    away = np.abs(np.arange(SIZE, dtype=np.float32) - outside)[None]
    climb = dd.uniform(rng, 22, 45) * np.exp(-away / dd.uniform(rng, 9, 16))
    edge = level - climb + dd.uniform(rng, -0.08, 0.12) * away
    cover = np.clip((y - edge) / dd.uniform(rng, 5, 11) + 0.5, 0, 1) * lung
    return cover, dd.uniform(rng, 0.25, 0.34) * cover


def _zone(mask: np.ndarray, chest: Chest) -> str:
    """The lung zone by the centroid, in the radiological convention; both lungs when each holds a share."""
    rows, columns = np.nonzero(mask)
    share = float((columns < chest.frame.middle).mean())
    height = (rows.mean() - chest.frame.top) / chest.frame.tall
    zone = "upper" if height < 0.36 else "middle" if height < 0.62 else "lower"
    if 0.15 < share < 0.85:
        return "both lungs"
    return f"{'right' if share >= 0.85 else 'left'} {zone} zone"


# Acquisition


def _expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Scatter, noise, letters, collimator and window of an X-ray: uint8 (H, W)."""
    image = dd.blur(image, dd.uniform(rng, 0.3, 0.8)) * dd.gradient(rng, SHAPE, dd.uniform(rng, 0.02, 0.14))
    image = image.mean() + (image - image.mean()) * dd.uniform(rng, 0.85, 1.15)
    image = image + dd.uniform(rng, 0.006, 0.022) * dd.grain(rng, SHAPE, 0.6)
    image = dd.to_uint8(dd.exposure(rng, image, gain=(0.76, 1.18), offset=(-0.08, 0.1), gamma=(0.75, 1.35)))
    if dd.chance(rng, 0.65):
        letter = dd.pick(rng, ("R", "L", "PA", "AP"))
        spot = (
            int(rng.integers(4, 30)) if letter != "L" else int(rng.integers(215, 238)),
            int(rng.integers(18, 60)),
        )
        tone = int(rng.integers(215, 256))
        cv2.putText(image, letter, spot, cv2.FONT_HERSHEY_SIMPLEX, dd.uniform(rng, 0.4, 0.65), tone, 2, cv2.LINE_AA)
    if dd.chance(rng, 0.3):
        rim = rng.integers(2, 12, 4)
        image[: rim[0]], image[SIZE - rim[1] :], image[:, : rim[2]], image[:, SIZE - rim[3] :] = 0, 0, 0, 0
    return image

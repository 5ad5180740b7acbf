"""Drawn liver CT slices for the demonstration benchmark: the liver alone on black, normal or with lesions.

As in the benchmark's preprocessed slices the patient's right lobe is on the picture's left.
"""

import cv2
import numpy as np

from dataset.demo import draw as dd
from dataset.demo.draw import Drawing, Point

SIZE = 256
SHAPE = (SIZE, SIZE)
FINDINGS = ("hypodense lesion", "cyst", "hyperdense lesion", "rim-enhancing lesion", "multiple metastases")


def draw(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """One liver slice, uint8 (256, 256), with lesions and their mask when `abnormal`."""
    liver = _outline(rng)
    body = dd.uniform(rng, 0.42, 0.62)
    image = _parenchyma(rng, liver, body)
    cover, words = np.zeros(SHAPE, np.float32), {}
    if abnormal:
        image, cover, words = _lesions(rng, image, liver, body)
    mask = (cover > 0.3) & (liver > 0.5)
    if abnormal:
        words["place"] = _lobe(mask, liver)
        words["size"] = dd.size_word(mask, small=0.006, large=0.02)
    return Drawing(_scan(rng, image, liver), mask, words)


# Anatomy


def _outline(rng: np.random.Generator) -> np.ndarray:
    """Alpha (H, W) of the liver: a big right lobe, a left lobe that tapers, the notches of its lower edge."""
    left = dd.uniform(rng, 0.0, 1.0)  # 0: a low slice, the right lobe alone; 1: a high one with a long left lobe
    reach = 50 + 95 * left
    knots = np.array(
        [
            (-62, -18), (-52, -56), (-22, -80), (12, -84), (12 + 0.45 * reach, -80), (12 + 0.8 * reach, -70),
            (12 + reach, -56), (8 + 0.85 * reach, -36), (10 + 0.5 * reach, -22), (34, -6 - 6 * left),
            (30, 10), (14, 26), (20, 46), (4, 74), (-26, 84), (-52, 60), (-66, 20),
        ],
        dtype=np.float32,
    )  # fmt: skip
    knots += rng.normal(0, 4.0, knots.shape)
    knots *= (dd.uniform(rng, 0.8, 1.12), dd.uniform(rng, 0.8, 1.12))
    turn = dd.uniform(rng, -0.16, 0.16)
    knots = knots @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)
    curve = dd.closed_curve(knots)
    low, high = curve.min(axis=0), curve.max(axis=0)
    middle = np.array([SIZE * 0.42 + 12 * left, SIZE * 0.48]) + rng.uniform(-10, 10, 2)
    curve = curve * min(1.0, 236 / float((high - low).max())) + middle - (low + high) / 2 * 0.9
    curve += np.clip(8 - curve.min(axis=0), 0, None) - np.clip(curve.max(axis=0) - (SIZE - 8), 0, None)
    alpha = dd.fill(SHAPE, curve)
    if dd.chance(rng, 0.55):  # the gallbladder's bed, or the vena cava, bites into the edge
        edge = curve[int(len(curve) * dd.uniform(rng, 0.5, 0.78))]
        alpha *= 1 - dd.shape_alpha(rng, SHAPE, edge, (dd.uniform(rng, 8, 17), dd.uniform(rng, 7, 13)), 0.12, 0)
    return dd.warp(rng, [alpha], 2.0, 22)[0]


def _parenchyma(rng: np.random.Generator, liver: np.ndarray, body: float) -> np.ndarray:
    """Tissue with vessels, fissure, uneven fat and bright clips or calcifications, before noise; (H, W)."""
    image = body * (1 + 0.02 * dd.noise(rng, SHAPE, 40, octaves=2))
    inside = liver > 0.5
    if dd.chance(rng, 0.35):  # a patch of uneven fat or of early perfusion: normal
        spot, _ = dd.inside_point(rng, inside)
        tone = body * (1 + dd.uniform(rng, -0.1, 0.1))
        image = dd.blend(image, tone, dd.shape_alpha(rng, SHAPE, spot, (38, 24), 0.3, 9))
    # Vessels are bright after contrast, dark without it.
    tone = dd.uniform(rng, 0.06, 0.2) if dd.chance(rng, 0.7) else -dd.uniform(rng, 0.07, 0.16)
    image = image + tone * _vessels(rng, inside)
    if dd.chance(rng, 0.5):
        spot, _ = dd.inside_point(rng, inside)
        line = dd.wander(rng, spot, dd.uniform(rng, -2.0, -1.1), dd.uniform(rng, 20, 50), bend=0.1)
        image = dd.blend(image, body * 0.45, dd.stroke(SHAPE, line, dd.uniform(rng, 1.5, 3.5), 0.9))
    for _ in range(int(rng.integers(1, 5))):
        spot, _ = dd.inside_point(rng, inside)
        size = dd.uniform(rng, 0.9, 2.0)
        image = dd.blend(image, dd.uniform(rng, 0.85, 1.0), dd.shape_alpha(rng, SHAPE, spot, (size, size), 0.2, 0.5))
    return image.astype(np.float32)


def _vessels(rng: np.random.Generator, inside: np.ndarray) -> np.ndarray:
    """Portal and hepatic veins, lengthwise and in section: alpha (H, W)."""
    canvas = np.zeros(SHAPE, np.float32)
    rows, columns = np.nonzero(inside)
    hilum = (float(columns.mean()) + dd.uniform(rng, 5, 30), float(rows.mean()) + dd.uniform(rng, -12, 14))
    for heading in (
        np.pi + dd.uniform(rng, -0.7, 0.7),
        dd.uniform(rng, -1.9, -0.3),
        np.pi / 2 + dd.uniform(rng, 0, 1),
    ):
        if dd.chance(rng, 0.75):
            start = (hilum[0] + dd.uniform(rng, -6, 6), hilum[1] + dd.uniform(rng, -6, 6))
            dd.tree(
                rng,
                canvas,
                start,
                heading,
                dd.uniform(rng, 22, 40),
                dd.uniform(rng, 3.0, 6.0),
                depth=4,
                spread=0.75,
            )
    for _ in range(int(rng.integers(5, 16))):
        spot, _ = dd.inside_point(rng, inside)
        wide = dd.uniform(rng, 1.1, 3.8)
        one = dd.shape_alpha(rng, SHAPE, spot, (wide * dd.uniform(rng, 1.0, 2.2), wide), 0.1, 0.0)
        np.maximum(canvas, one, out=canvas)
    return dd.blur(canvas, dd.uniform(rng, 0.7, 1.2))


# Lesions


def _lesions(
    rng: np.random.Generator, image: np.ndarray, liver: np.ndarray, body: float
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The picture with lesions of one kind, their cover (H, W) in [0, 1], and finding and contrast."""
    finding = dd.pick(rng, FINDINGS, (3, 1.5, 2, 2, 2))
    strength = dd.uniform(rng, 0.8, 1.0) if dd.chance(rng, 0.75) else dd.uniform(rng, 0.4, 0.65)
    several = finding == "multiple metastases"
    count = int(rng.integers(3, 7)) if several else 1 + int(dd.chance(rng, 0.2))
    free = liver > 0.5
    after, cover = image, np.zeros(SHAPE, np.float32)
    for _ in range(count):
        radius = dd.uniform(rng, 6, 13) if several else float(np.exp(dd.uniform(rng, np.log(10), np.log(27))))
        spot, room = dd.inside_point(rng, free, margin=0.75 * radius)
        radius = min(radius, max(1.5 * room, 6.0))
        after, one = _paint(rng, after, spot, radius, body, finding)
        cover = np.maximum(cover, one)
        free = free & (dd.blur(one, 3) < 0.02)
        if not free.any():
            break
    result = image + strength * (after - image)
    cover = cover * liver
    contrast = dd.contrast_word(image, result, cover > 0.3, clear=0.10)
    return (
        result.astype(np.float32),
        cover,
        {"finding": finding, "contrast": contrast},
    )


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    spot: Point,
    radius: float,
    body: float,
    finding: str,
) -> tuple[np.ndarray, np.ndarray]:
    """One lesion of `radius` pixels at `spot`: the picture with it, and its cover."""
    flat = (radius, radius * dd.uniform(rng, 0.72, 1.0))
    mottle = dd.noise(rng, SHAPE, 8, octaves=2)
    if finding == "cyst":
        cover = dd.shape_alpha(rng, SHAPE, spot, flat, 0.06, 0.8)
        return dd.blend(image, dd.uniform(rng, 0.06, 0.16), cover), cover
    if finding == "hyperdense lesion":
        cover = dd.shape_alpha(rng, SHAPE, spot, flat, 0.14, 1.4)
        return dd.blend(image, body + dd.uniform(rng, 0.16, 0.28) + 0.04 * mottle, cover), cover
    if finding == "rim-enhancing lesion":
        cover = dd.shape_alpha(rng, SHAPE, spot, flat, 0.1, 0.0)
        shrink = dd.uniform(rng, 1.8, 3.2)
        core = (
            cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - shrink
        ).clip(0, 1)
        cover = dd.blur(cover, 0.9)
        image = dd.blend(image, body + dd.uniform(rng, 0.18, 0.3), cover)
        return dd.blend(image, body * dd.uniform(rng, 0.45, 0.7) + 0.03 * mottle, dd.blur(core, 1.2)), cover
    cover = dd.shape_alpha(rng, SHAPE, spot, flat, 0.13, dd.uniform(rng, 1.2, 2.6))
    dark = body * dd.uniform(rng, 0.4, 0.7) + 0.035 * mottle
    image = dd.blend(image, dark, cover)
    if dd.chance(rng, 0.35):  # a darker centre
        inner = (flat[0] * 0.45, flat[1] * 0.45)
        image = dd.blend(image, body * 0.3, dd.shape_alpha(rng, SHAPE, spot, inner, 0.2, 2.0))
    return image, cover


def _lobe(mask: np.ndarray, liver: np.ndarray) -> str:
    """The lobe by the lesion's centroid; both when lesions lie in each."""
    columns = np.nonzero((liver > 0.5).any(axis=0))[0]
    border = columns[0] + 0.54 * (columns[-1] - columns[0])
    x = np.nonzero(mask)[1]
    share = float((x < border).mean())
    return "right lobe" if share > 0.85 else "left lobe" if share < 0.15 else "both lobes"


# Acquisition


def _scan(rng: np.random.Generator, image: np.ndarray, liver: np.ndarray) -> np.ndarray:
    """Noise, streaks and window of a CT, everything but the liver black: uint8 (H, W)."""
    rough = dd.uniform(rng, 0.012, 0.042)
    image = dd.blur(image, dd.uniform(rng, 0.4, 0.9)) * dd.gradient(rng, SHAPE, dd.uniform(rng, 0.0, 0.08))
    image = image + rough * dd.grain(rng, SHAPE, dd.uniform(rng, 0.6, 1.1))
    if dd.chance(rng, 0.3):
        y, x = dd.coordinates(SHAPE)
        angle = dd.uniform(rng, 0, np.pi)
        wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * dd.uniform(rng, 40, 90))
        image = image + dd.uniform(rng, 0.005, 0.016) * wave * dd.noise(rng, SHAPE, 60)
    # The edge loses a little brightness to its neighbours before it is cut out.
    image = image * (0.75 + 0.25 * dd.blur(liver, 1.5))
    window = dd.exposure(rng, image, gain=(0.75, 1.35), offset=(-0.06, 0.08), gamma=(0.85, 1.2))
    return dd.to_uint8(np.maximum(window, 0.03) * (liver > 0.5))

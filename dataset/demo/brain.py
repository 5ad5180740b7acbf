"""Drawn axial brain MRI slices for the demonstration benchmark: T1- or FLAIR-like, normal or with a lesion.

Left and right follow the radiological convention: the patient's left is the picture's right.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from dataset.demo import draw as dd
from dataset.demo.draw import Drawing, Point

SIZE = 240
SHAPE = (SIZE, SIZE)

# Grey levels of the tissues by sequence, before gain: the same for normal and abnormal pictures.
TISSUE = {
    "t1": {"white": 0.62, "grey": 0.44, "fluid": 0.13, "scalp": 0.92, "nuclei": 0.50},
    "flair": {"white": 0.42, "grey": 0.56, "fluid": 0.10, "scalp": 0.72, "nuclei": 0.52},
}
Painted = tuple[np.ndarray, np.ndarray]  # the picture with a lesion, the lesion's cover
FINDINGS = ("ring-enhancing mass", "oedema", "necrotic mass", "metastasis", "heterogeneous glioma")


class Plan(NamedTuple):
    """What the parts of one head agree on."""

    centre: Point  # of the brain, pixels
    radii: Point  # of the brain, pixels
    height: float  # of the slice: 0 through the basal ganglia, 1 above the ventricles
    level: dict[str, float]  # grey levels of the tissues


@dataclass(frozen=True)
class Head:
    """One drawn head: grey levels (H, W), the brain (bool), the ventricles (bool), the tissue levels."""

    image: np.ndarray
    brain: np.ndarray
    ventricles: np.ndarray
    level: dict[str, float]


def draw(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """One brain slice, uint8 (240, 240), with a lesion and its mask when `abnormal`."""
    head = _head(rng)
    image, cover, words = head.image, np.zeros(SHAPE, np.float32), {}
    if abnormal:
        image, cover, words = _lesion(rng, head)
    turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), dd.uniform(rng, -12, 12), 1.0)
    turn[:, 2] += rng.uniform(-6, 6, 2)
    image, cover = (cv2.warpAffine(layer, turn, (SIZE, SIZE), flags=cv2.INTER_LINEAR) for layer in (image, cover))
    mask = cover > 0.3
    if abnormal:
        words["place"] = _lobe(mask)
        words["size"] = dd.size_word(mask, small=0.010, large=0.030)
    return Drawing(_scan(rng, image), mask, words)


# Anatomy


def _head(rng: np.random.Generator) -> Head:
    base = TISSUE[dd.pick(rng, ("t1", "flair"))]
    level = {tissue: value + dd.uniform(rng, -0.04, 0.04) for tissue, value in base.items()}
    centre = (SIZE / 2 + dd.uniform(rng, -4, 4), SIZE / 2 + dd.uniform(rng, -4, 4))
    radii = (dd.uniform(rng, 72, 84), dd.uniform(rng, 88, 100))
    plan = Plan(centre, radii, dd.uniform(rng, 0.0, 1.0), level)
    contour = dd.outline(rng, centre, radii, wobble=0.018, harmonics=3, points=160)
    brain = dd.fill(SHAPE, contour) > 0.5
    depth = cv2.distanceTransform(brain.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    image = _cortex(rng, depth, plan)
    image = _nuclei(rng, image, plan)
    image, ventricles = _ventricles(rng, image, plan)
    image = _midline(rng, image, plan)
    image = _benign(rng, image, brain, level)
    image *= dd.blur(brain.astype(np.float32), 0.7)
    if dd.chance(rng, 0.85):  # the others are skull-stripped
        image = np.maximum(image, _skull(rng, contour, plan))
    return Head(image.astype(np.float32), brain, ventricles, level)


def _cortex(rng: np.random.Generator, depth: np.ndarray, plan: Plan) -> np.ndarray:
    """Folded grey ribbon round white matter: the sulci are the zero lines of a noise stretched inwards."""
    centre, level = plan.centre, plan.level
    y = np.arange(SIZE, dtype=np.float32)[:, None] - centre[1]
    x = np.arange(SIZE, dtype=np.float32)[None] - centre[0]
    around = (np.arctan2(x, -y) + np.pi).astype(np.float32) * 75.0  # the seam lies in the posterior fissure
    unrolled = dd.noise(rng, (130, 480), dd.uniform(rng, 11, 15))
    inward = depth * 0.55 + 9.0 * dd.noise(rng, SHAPE, 26)
    field = cv2.remap(
        unrolled,
        around + 9.0 * dd.noise(rng, SHAPE, 24),
        inward + 20,
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    slope = np.hypot(cv2.Sobel(field, -1, 1, 0, scale=0.125), cv2.Sobel(field, -1, 0, 1, scale=0.125))
    fold = np.abs(field) / (slope + 0.02)  # about the distance to the nearest sulcus in pixels
    reach = 24.0 + 6.0 * dd.noise(rng, SHAPE, 30)
    fold = fold + np.maximum(depth - reach, 0) * 0.7
    ribbon = dd.uniform(rng, 4.0, 5.2)
    grey = np.clip(ribbon + 1 - np.minimum(fold, depth), 0, 1)
    width = dd.uniform(rng, 0.7, 1.5)
    fluid = np.clip(width + 0.8 - np.minimum(fold, depth), 0, 1)
    image = level["white"] + 0.012 * dd.noise(rng, SHAPE, 30, octaves=2)
    image = dd.blend(image, level["grey"], grey)
    return dd.blend(image, level["fluid"], fluid)


def _nuclei(rng: np.random.Generator, image: np.ndarray, plan: Plan) -> np.ndarray:
    """Caudate, putamen and thalamus on both sides, fading out in higher slices."""
    centre, _, height, level = plan
    present = float(np.clip(1.3 - 1.8 * height, 0, 1))
    if present == 0:
        return image
    for side in (-1, 1):
        for dx, dy, rx, ry, lean in ((13, -22, 5, 10, 0.3), (27, -8, 6, 15, 0.25), (11, 12, 8, 12, -0.4)):
            spot = (
                centre[0] + side * dx + dd.uniform(rng, -1.5, 1.5),
                centre[1] + dy + dd.uniform(rng, -2, 2),
            )
            scale = dd.uniform(rng, 0.9, 1.15)
            points = dd.outline(rng, spot, (rx * scale, ry * scale), 0.06, angle=-side * lean)
            image = dd.blend(image, level["nuclei"], present * dd.fill(SHAPE, points, 1.2))
    return image


def _ventricles(rng: np.random.Generator, image: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Lateral ventricles with their horns, third ventricle, choroid plexus; and the ventricles (bool)."""
    centre, _, height, level = plan
    wide = dd.uniform(rng, 0.7, 1.45) * (1.0 if height < 0.8 else 0.35)
    cover = np.zeros(SHAPE, np.float32)
    for side in (-1, 1):
        own = wide * dd.uniform(rng, 0.85, 1.15)
        parts = [(7.5, -24, 4.2, 12, -0.45), (17, 31, 4.5, 14, 0.5)]
        if height > 0.35:
            parts = [(7, -18, 4.2, 15, -0.3), (7, 2, 4.2, 18, 0.15), (15, 26, 4.8, 15, 0.5)]
        for dx, dy, rx, ry, lean in parts:
            spot = (centre[0] + side * (dx + own), centre[1] + dy + dd.uniform(rng, -1.5, 1.5))
            size = (rx * own, ry * (0.6 + 0.4 * own))
            # A horn leans outwards away from the middle of the brain.
            points = dd.outline(rng, spot, size, 0.05, harmonics=4, angle=-side * lean)
            cover = np.maximum(cover, dd.fill(SHAPE, points))
    if height < 0.45:
        points = dd.outline(rng, (centre[0], centre[1] + 6), (1.8 * wide, 10), 0.08)
        cover = np.maximum(cover, dd.fill(SHAPE, points))
    smooth = np.clip((dd.blur(cover, 1.8) - 0.5) * 4 + 0.5, 0, 1)
    rim = dd.blur(smooth, 2.2) * (1 - smooth)
    image = image + dd.uniform(rng, 0.0, 0.25) * rim  # bright lining, as age brings it in FLAIR
    image = dd.blend(image, level["fluid"], smooth)
    if dd.chance(rng, 0.5):
        for side in (-1, 1):
            points = dd.outline(rng, (centre[0] + side * (15 + wide), centre[1] + 24), (2.2, 6), 0.3, angle=-side * 0.5)
            image = dd.blend(image, dd.uniform(rng, 0.55, 0.95), dd.fill(SHAPE, points, 0.6) * smooth)
    return image, smooth > 0.5


def _midline(rng: np.random.Generator, image: np.ndarray, plan: Plan) -> np.ndarray:
    """The interhemispheric fissure in front and behind, sometimes with a bright falx; Sylvian fissures."""
    centre, radii, _, level = plan
    falx = dd.chance(rng, 0.35)
    for sign in (-1, 1):
        start = (centre[0], centre[1] + sign * radii[1])
        path = dd.wander(rng, start, -sign * np.pi / 2, radii[1] * dd.uniform(rng, 0.48, 0.58), bend=0.05)
        image = dd.blend(image, level["grey"], dd.stroke(SHAPE, path, 9, 1.0))
        image = dd.blend(image, level["fluid"], dd.stroke(SHAPE, path, 3, 0.6))
        if falx:
            image = dd.blend(image, level["grey"] + 0.15, dd.stroke(SHAPE, path, 1, 0.4))
    for side in (-1, 1):
        start = (centre[0] + side * radii[0], centre[1] + dd.uniform(rng, -22, -8))
        path = dd.wander(rng, start, np.pi / 2 - side * dd.uniform(rng, 1.1, 1.7), dd.uniform(rng, 22, 36), bend=0.2)
        image = dd.blend(image, level["grey"], dd.stroke(SHAPE, path, 10, 1.0))
        image = dd.blend(image, level["fluid"], dd.stroke(SHAPE, path, dd.uniform(rng, 2, 4), 0.6))
    return image


def _benign(rng: np.random.Generator, image: np.ndarray, brain: np.ndarray, level: dict[str, float]) -> np.ndarray:
    """What healthy brains show too: bright vessels in section, perivascular spaces (dark dots)."""
    for _ in range(int(rng.integers(2, 9))):
        spot, _ = dd.inside_point(rng, brain)
        size = dd.uniform(rng, 0.9, 1.9)
        value = dd.uniform(rng, 0.8, 1.0) if dd.chance(rng, 0.6) else level["fluid"]
        image = dd.blend(image, value, dd.shape_alpha(rng, SHAPE, spot, (size, size), 0.1, 0.5))
    if dd.chance(rng, 0.5):
        spot, _ = dd.inside_point(rng, brain)
        vessel = dd.wander(rng, spot, dd.uniform(rng, 0, 2 * np.pi), dd.uniform(rng, 15, 40), bend=0.25)
        image = dd.blend(image, dd.uniform(rng, 0.75, 1.0), dd.stroke(SHAPE, vessel, 1, 0.5))
    return image


def _skull(rng: np.random.Generator, contour: np.ndarray, plan: Plan) -> np.ndarray:
    """Dark fluid and bone round the brain, thin marrow, bright scalp; black outside."""
    level = plan.level
    ring = np.zeros(SHAPE, np.float32)
    away = contour - np.asarray(plan.centre, np.float32)
    unit = away / np.linalg.norm(away, axis=1, keepdims=True)
    fluid, bone, scalp = dd.uniform(rng, 2, 4), dd.uniform(rng, 5, 8), dd.uniform(rng, 3.5, 8)
    ripple = dd.blur(np.tile(rng.standard_normal((1, len(contour)), dtype=np.float32), 3), 9)
    uneven = (1 + 2.0 * ripple[0, len(contour) : 2 * len(contour), None]) * unit  # closes on itself

    def layer(distance: float) -> np.ndarray:
        return dd.fill(SHAPE, contour + unit * distance + uneven, 0.6)

    ring = dd.blend(ring, level["scalp"], layer(fluid + bone + scalp))
    ring *= 1.0 + 0.12 * dd.noise(rng, SHAPE, 16)
    ring = dd.blend(ring, level["grey"] * 0.9, layer(fluid + bone + 0.35 * scalp) * dd.uniform(rng, 0, 0.7))
    ring = dd.blend(ring, 0.05, layer(fluid + bone))
    ring = dd.blend(ring, dd.uniform(rng, 0.08, 0.4), layer(fluid + 0.68 * bone))
    ring = dd.blend(ring, 0.05, layer(fluid + 0.35 * bone))
    return dd.blend(ring, 0.0, dd.fill(SHAPE, contour, 0.6))


# Lesions


def _lesion(rng: np.random.Generator, head: Head) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The head with a lesion, the lesion's cover (H, W) in [0, 1], and its words."""
    finding = dd.pick(rng, FINDINGS, (3, 3, 2.5, 2, 2.5))
    strength = dd.uniform(rng, 0.75, 1.0) if dd.chance(rng, 0.75) else dd.uniform(rng, 0.4, 0.7)
    home = head.brain & ~cv2.dilate(head.ventricles.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)
    radius = dd.uniform(rng, 6, 9.5) if finding == "metastasis" else np.exp(dd.uniform(rng, np.log(11), np.log(27)))
    spot, _ = dd.inside_point(rng, home, margin=min(radius + 2, 20))
    painters = {
        "ring-enhancing mass": _ring,
        "oedema": _oedema,
        "necrotic mass": _necrosis,
        "metastasis": _metastasis,
        "heterogeneous glioma": _glioma,
    }
    after, cover = painters[finding](rng, head, spot, float(radius))
    inside = dd.blur(head.brain.astype(np.float32), 0.7)
    cover = cover * inside
    image = head.image + strength * inside * (after - head.image)
    contrast = dd.contrast_word(head.image, image, cover > 0.3, clear=0.11)
    return (
        image.astype(np.float32),
        cover,
        {"finding": finding, "contrast": contrast},
    )


def _radii(rng: np.random.Generator, radius: float) -> Point:
    flat = dd.uniform(rng, 0.72, 1.0)
    return radius, radius * flat


def _halo(rng: np.random.Generator, head: Head, spot: Point, radius: float) -> np.ndarray:
    """Alpha of oedema round a mass: ragged, spreading in white matter, sparing the ventricles."""
    wide = dd.shape_alpha(rng, SHAPE, spot, _radii(rng, radius), 0.28, 3.0)
    fingers = np.clip(0.9 + 0.25 * dd.noise(rng, SHAPE, 14, octaves=2), 0, 1)
    return wide * fingers * (1 - dd.blur(head.ventricles.astype(np.float32), 1.0))


def _ring(rng: np.random.Generator, head: Head, spot: Point, radius: float) -> Painted:
    shape = dd.outline(rng, spot, _radii(rng, radius), 0.14, angle=dd.uniform(rng, 0, np.pi))
    thick = dd.uniform(rng, 0.16, 0.3) * radius
    inner = np.asarray(spot) + (shape - np.asarray(spot)) * (1 - thick / radius)
    inner = inner + rng.uniform(-0.12, 0.12, 2) * radius * 0.6
    outer, core = dd.fill(SHAPE, shape, 0.8), dd.fill(SHAPE, inner, 1.0)
    cover, image = outer, head.image
    if dd.chance(rng, 0.6):
        halo = _halo(rng, head, spot, radius * dd.uniform(rng, 1.4, 1.9))
        image = dd.blend(image, head.level["white"] + (0.16 if dd.chance(rng, 0.6) else -0.14), halo)
        cover = np.maximum(outer, halo)
    rim = dd.uniform(rng, 0.82, 1.0) * (1 + 0.08 * dd.noise(rng, SHAPE, 8))
    image = dd.blend(image, rim, outer)
    return dd.blend(image, dd.uniform(rng, 0.1, 0.28) + 0.05 * dd.noise(rng, SHAPE, 7, 2), core), cover


def _oedema(rng: np.random.Generator, head: Head, spot: Point, radius: float) -> Painted:
    halo = _halo(rng, head, spot, radius * 1.15)
    bright = dd.uniform(rng, 0.78, 0.95) + 0.04 * dd.noise(rng, SHAPE, 9, 2)
    return dd.blend(head.image, bright, halo), halo


def _necrosis(rng: np.random.Generator, head: Head, spot: Point, radius: float) -> Painted:
    cover = dd.shape_alpha(rng, SHAPE, spot, _radii(rng, radius), 0.2, 1.5)
    dark = dd.uniform(rng, 0.08, 0.2) + 0.06 * dd.noise(rng, SHAPE, 10, 2)
    image = dd.blend(head.image, head.level["grey"] * dd.uniform(rng, 0.8, 1.1), cover)
    core = dd.blur(np.clip(cover * 1.6 - 0.6, 0, 1), 1.5)
    return dd.blend(image, dark, core), cover


def _metastasis(rng: np.random.Generator, head: Head, spot: Point, radius: float) -> Painted:
    cover, image = np.zeros(SHAPE, np.float32), head.image
    for _ in range(int(rng.integers(1, 4))):
        one = dd.shape_alpha(rng, SHAPE, spot, _radii(rng, radius * dd.uniform(rng, 0.8, 1.1)), 0.08, 0.9)
        image = dd.blend(image, dd.uniform(rng, 0.85, 1.0), one)
        cover = np.maximum(cover, one)
        spot, _ = dd.inside_point(rng, head.brain & ~head.ventricles, margin=radius + 3)
    return image, cover


def _glioma(rng: np.random.Generator, head: Head, spot: Point, radius: float) -> Painted:
    cover = dd.shape_alpha(rng, SHAPE, spot, _radii(rng, radius), 0.22, 1.6)
    texture = dd.uniform(rng, 0.45, 0.6) + dd.uniform(rng, 0.16, 0.26) * dd.noise(rng, SHAPE, 9, octaves=3)
    return dd.blend(head.image, np.clip(texture, 0.08, 1.0), cover), cover


def _lobe(mask: np.ndarray) -> str:
    """The lobe by the centroid, in the radiological convention."""
    y, x = np.argwhere(mask).mean(axis=0) / SIZE
    side = "right" if x < 0.5 else "left"
    if abs(x - 0.5) < 0.13 and 0.36 < y < 0.64:
        return f"{side} deep white matter"
    if y < 0.4:
        return f"{side} frontal lobe"
    if y > 0.7:
        return f"{side} occipital lobe"
    return f"{side} temporal lobe" if abs(x - 0.5) > 0.2 else f"{side} parietal lobe"


# Acquisition


def _scan(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Resolution, receive field, ghosting, noise and window of a scanner: uint8 (H, W)."""
    image = dd.blur(image, dd.uniform(rng, 0.3, 0.8))
    image = image * dd.gradient(rng, SHAPE, dd.uniform(rng, 0.03, 0.25))
    if dd.chance(rng, 0.25):
        image = image + dd.uniform(rng, 0.03, 0.1) * np.roll(image, int(rng.integers(20, 60)), axis=0)
    noisy = np.abs(image + dd.uniform(rng, 0.008, 0.035) * dd.grain(rng, SHAPE, 0.5))
    return dd.to_uint8(dd.exposure(rng, noisy, gain=(0.7, 1.35), offset=(-0.03, 0.05), gamma=(0.8, 1.3)))

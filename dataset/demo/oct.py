"""Drawn optical coherence tomography: B-scans of a retina, healthy or with fluid, drusen or new vessels.

`draw_resc` imitates wide, grainy scans; `draw_oct2017` squarer, averaged scans with the white margins that
straightening leaves. The retina and its lesions come from `demo_retina`; here they are pictured.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dataset.demo.draw import (
    Drawing,
    blob,
    chance,
    exposure,
    gradient,
    grain,
    noise,
    size_word,
    speckle,
    stroke,
    to_uint8,
    uniform,
)
from dataset.demo.retina import LAYERS, Scan, add_oct2017_lesion, add_resc_lesion, lesion_mask, lesion_place, retina

VITREOUS, CHOROID = 0.06, 0.46


@dataclass(frozen=True)
class Protocol:
    """How a scanner pictures the retina: lengths are shares of the height, ranges are (low, high)."""

    shape: tuple[int, int]
    thickness: tuple[float, float]
    tilt: float  # rise of the retina from the centre to the edge
    looks: tuple[float, float]  # averaging: fewer looks, rougher speckle
    floor: tuple[float, float]  # standard deviation of the additive noise
    haze: tuple[float, float]  # grey level under everything
    margins: float  # probability of a turned scan with white margins


RESC = Protocol((256, 320), (0.24, 0.31), 0.10, (1.6, 3.5), (0.035, 0.08), (0.02, 0.14), 0.0)
OCT2017 = Protocol((248, 256), (0.25, 0.34), 0.05, (5.0, 14.0), (0.02, 0.06), (0.0, 0.07), 0.6)


def draw_resc(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """A wide, grainy macular scan, uint8 (256, 320); fluid under or in the retina, detached epithelium."""
    return _draw(rng, abnormal, RESC)


def draw_oct2017(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """An averaged macular scan, uint8 (248, 256); drusen, choroidal new vessels, diabetic oedema."""
    return _draw(rng, abnormal, OCT2017)


def _draw(rng: np.random.Generator, abnormal: bool, protocol: Protocol) -> Drawing:
    scan = retina(rng, protocol.shape, protocol.thickness, protocol.tilt)
    words = {}
    if abnormal:
        faint = chance(rng, 0.2)
        add_lesion = add_resc_lesion if protocol is RESC else add_oct2017_lesion
        finding = add_lesion(rng, scan, faint)
        words = {"finding": finding, "contrast": "faint" if faint else "clear"}
    clean = _layers(rng, scan)
    image = _picture(rng, scan, clean, protocol)
    mask = lesion_mask(scan) if abnormal else np.zeros(scan.shape, bool)
    if chance(rng, protocol.margins):
        image, mask = _turned(rng, image, mask)
    if abnormal:
        words["place"], words["size"] = lesion_place(scan, mask), size_word(mask)
    return Drawing(to_uint8(image), mask, words)


# Picture


def _layers(rng: np.random.Generator, scan: Scan) -> np.ndarray:
    """The noise-free picture: every boundary is a step from one layer's grey level to the next one's."""
    height, _ = scan.shape
    y = np.arange(height, dtype=np.float32)[:, None] + 0.5
    image = np.full(scan.shape, VITREOUS, np.float32)
    tops, above = scan.tops(), np.float32(VITREOUS)
    for name in LAYERS:
        image += (scan.level[name] - above) * np.clip(y - tops[name] + 0.5, 0, 1)
        above = scan.level[name]
    depth = np.clip(y - scan.bruch, 0, None)
    reach = height * uniform(rng, 0.12, 0.26)
    lumens = 1 - uniform(rng, 0.2, 0.55) * np.clip(noise(rng, scan.shape, uniform(rng, 9, 15)) * 1.6, 0, 1)
    lumens = 1 + (lumens - 1) * np.clip(depth / 6 - 0.3, 0, 1)
    choroid = CHOROID * uniform(rng, 0.8, 1.25) * np.exp(-((depth / reach) ** 1.5)) * lumens
    # The detachment's fluid lets more light through to the choroid below.
    choroid *= 1 + 0.3 * np.clip(scan.thickness["detachment"] / 30, 0, 1) * (scan.level["detachment"] < 0.2)
    image += (choroid - above) * np.clip(depth + 0.5 * (depth > 0), 0, 1)
    rim = np.clip(scan.thickness["detachment"] / 4, 0, 1)  # Bruch's membrane shows under a lifted epithelium
    image += 0.35 * rim * np.exp(-0.5 * (y - scan.bruch - 0.5) ** 2)
    for alpha, grey in scan.holes + scan.spots:
        image += alpha * (grey - image)
    return image


def _shadows(rng: np.random.Generator, scan: Scan) -> np.ndarray:
    """What the light loses on its way down: vessel shadows, slow fading, dim columns; a factor (H, W)."""
    height, width = scan.shape
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)
    surface = scan.tops()["nerve fibre"]
    shade = np.zeros(width, np.float32)
    for _ in range(int(rng.integers(1, 7))):
        column, half = uniform(rng, 0, width), uniform(rng, 1.2, 4.0)
        shade = np.maximum(shade, uniform(rng, 0.15, 0.5) * np.exp(-0.5 * ((x - column) / half) ** 4))
        if chance(rng, 0.6):
            at = int(min(column, width - 1))
            centre = (column, float(surface[at]) + uniform(rng, 3, 7))
            scan.spots.append((blob(scan.shape, centre, (half, half * 0.8)), uniform(rng, 0.6, 0.85)))
    columns = 1 + uniform(rng, 0.03, 0.13) * noise(rng, (1, width), uniform(rng, 40, 120))[0]
    if chance(rng, 0.25):  # an opacity in front of the retina, or the edge of the pupil
        away = (x - uniform(rng, 0, width)) / uniform(rng, 15, 50)
        columns *= 1 - uniform(rng, 0.25, 0.5) * np.exp(-(away**2))
    return (1 - shade * np.clip((y - surface - 6) / 6, 0, 1)) * np.clip(columns, 0.2, 1.5)


def _picture(rng: np.random.Generator, scan: Scan, clean: np.ndarray, protocol: Protocol) -> np.ndarray:
    """The noise-free layers as the scanner shows them, float32 (H, W) in [0, 1]."""
    shape = scan.shape
    before = len(scan.spots)
    shade = _shadows(rng, scan)
    image = clean.copy()
    for alpha, grey in scan.spots[before:]:  # vessel walls, under their shadows' upper end
        image += 0.6 * alpha * (grey - image)
    if chance(rng, 0.3):  # the detached face of the vitreous: a thin line above the retina
        gap = uniform(rng, 6, 30) * (1 + 0.35 * noise(rng, (1, shape[1]), 70)[0])
        line = np.stack([np.arange(shape[1]), scan.tops()["nerve fibre"] - np.abs(gap)], axis=1)[::3]
        image += uniform(rng, 0.1, 0.3) * stroke(shape, line, 1.0, 0.6)
    image = image * shade * gradient(rng, shape, uniform(rng, 0.0, 0.15))
    image *= 1 + 0.10 * noise(rng, shape, 5)
    image = cv2.GaussianBlur(image, (0, 0), sigmaX=uniform(rng, 0.8, 1.5), sigmaY=uniform(rng, 0.5, 0.9))
    rough = speckle(rng, shape, uniform(rng, *protocol.looks), 0.0)
    image *= 1 + uniform(rng, 0.7, 1.0) * (cv2.GaussianBlur(rough, (0, 0), sigmaX=0.7, sigmaY=0.45) - 1)
    floor = uniform(rng, *protocol.floor) * grain(rng, shape, uniform(rng, 0, 0.7))
    image += uniform(rng, *protocol.haze) + floor
    if chance(rng, 0.3):  # the reflex of the pit or of a flat surface: one saturated streak
        x = uniform(rng, 0.1, 0.9) * shape[1] if scan.fovea is None else scan.fovea
        surface = float(scan.tops()["nerve fibre"][int(np.clip(x, 0, shape[1] - 1))])
        image += uniform(rng, 0.5, 1.0) * blob(shape, (x, surface), (uniform(rng, 1.0, 5.0), 1.2))
    return exposure(rng, image, gain=(0.72, 1.35), offset=(-0.06, 0.06), gamma=(0.7, 1.3))


def _turned(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scan turned and moved as if to level the retina; what is left uncovered is white."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), uniform(rng, -14, 14), 1.0)
    matrix[:, 2] += rng.uniform(-0.03, 0.03) * width, rng.uniform(-0.10, 0.10) * height
    white = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=1.0)
    moved = cv2.warpAffine(mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST)
    return white, moved.astype(bool)

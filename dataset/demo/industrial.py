"""The industrial demonstration objects: a woven carpet, a metal nut, a circuit board; whole or with a defect.

Each part has its own module, which gives a spotless picture and a table of defects; what all three share is
here: the choice of the defect, the camera's light, gain and noise, the mask and the words.
"""

from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np

from dataset.demo import carpet as demo_carpet
from dataset.demo import nut as demo_nut
from dataset.demo import pcb as demo_pcb
from dataset.demo.draw import (
    Drawing,
    blur,
    changed,
    contrast_word,
    exposure,
    gradient,
    grain,
    pick,
    place_word,
    size_word,
    to_uint8,
    uniform,
)

SEEN = 0.045  # a change of less than this, of 1, is no part of the mask
SMALLEST = 120  # pixels: a defect of fewer (most of it fell beside the part) is tried again


class Scene(Protocol):
    """A spotless part: its picture, float32 (H, W, 3) in [0, 1], and whatever its defects have to know."""

    image: np.ndarray


Defect = Callable[[np.random.Generator, Scene], np.ndarray]  # the spoiled picture, before the camera's noise


def draw_carpet(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """A piece of woven carpet, RGB (256, 256, 3); defects: cut, hole, thread, stain, colour change."""
    return _photograph(rng, abnormal, demo_carpet.clean(rng), demo_carpet.DEFECTS)


def draw_metal_nut(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """A toothed metal nut from above, RGB (256, 256, 3).

    Defects: scratch, missing tooth, bent tooth, rust, colour change, dent, flipped region (the face of
    the other side).
    """
    return _photograph(rng, abnormal, demo_nut.clean(rng), demo_nut.DEFECTS)


def draw_pcb(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """A populated circuit board, RGB (256, 256, 3).

    Defects: missing component, scratch, burn, bridged solder, foreign particle.
    """
    return _photograph(rng, abnormal, demo_pcb.clean(rng), demo_pcb.DEFECTS)


def _photograph(rng: np.random.Generator, abnormal: bool, scene: Scene, defects: dict[str, Defect]) -> Drawing:
    """The scene, with one defect if it is to be abnormal, as a camera of random settings sees it."""
    mask, words, picture = np.zeros(scene.image.shape[:2], bool), {}, scene.image
    if abnormal:
        finding = pick(rng, list(defects))
        while mask.sum() < SMALLEST:
            picture = np.clip(defects[finding](rng, scene), 0, 1)
            mask = _region(scene.image, picture)
        words = {
            "finding": finding,
            "place": place_word(mask),
            "size": size_word(mask),
            "contrast": contrast_word(scene.image, picture, mask, clear=0.2),
        }
    light = gradient(rng, mask.shape, uniform(rng, 0.05, 0.25))
    picture = exposure(rng, picture * light[..., None], gain=(0.65, 1.25), offset=(-0.07, 0.07))
    picture = blur(picture, uniform(rng, 0.0, 0.6))
    strength = uniform(rng, 0.008, 0.025)
    noise = np.stack([grain(rng, mask.shape) for _ in range(3)], axis=2)
    return Drawing(to_uint8(picture + strength * noise), mask, words)


def _region(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The mask of a defect, bool (H, W): what changed, gaps of a few pixels closed, lone pixels dropped."""
    seen = changed(before, after, SEEN).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    whole = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, disc)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count == 1:
        return whole.astype(bool)
    kept = np.concatenate([[False], areas >= min(12, areas.max())])
    return kept[labels]

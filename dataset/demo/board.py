"""The demonstration circuit board's layout, and how its bare board and its components are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.demo.draw import SUBPIXEL, grain, noise, uniform

Colour = Sequence[float]
Point = tuple[float, float]

SHAPE = (256, 256)
BOARD = (12, 18, 244, 238)  # left, top, right, bottom of the board
SOLDER, SILK, GOLD, COPPER = (0.80, 0.81, 0.82), (0.86, 0.88, 0.86), (0.80, 0.66, 0.30), (0.72, 0.45, 0.25)
# Lacquer, green and blue.
LACQUERS = ((0.03, 0.28, 0.13), (0.05, 0.36, 0.22), (0.04, 0.16, 0.42), (0.06, 0.11, 0.32))
# What sits on a spotless board: kind, centre x, centre y.
PARTS = (
    ("chip16", 96, 88),
    ("chip8", 186, 66),
    ("can", 206, 168),
    ("crystal", 112, 162),
    ("resistor", 38, 58),
    ("resistor", 38, 78),
    ("resistor", 38, 98),
    ("resistor", 164, 146),
    ("resistor", 164, 166),
    ("capacitor", 150, 108),
    ("capacitor", 180, 108),
    ("capacitor", 210, 108),
    ("capacitor", 50, 146),
    ("capacitor", 50, 168),
    ("led", 226, 36),
)
SIZES = {
    "chip16": (34, 54),
    "chip8": (28, 30),
    "can": (40, 40),
    "crystal": (44, 20),
    "resistor": (24, 12),
    "capacitor": (22, 13),
    "led": (14, 14),
}
BODIES = {"resistor": (0.10, 0.10, 0.11), "capacitor": (0.58, 0.44, 0.30), "led": (0.85, 0.85, 0.72)}
PINS = {"chip16": 8, "chip8": 4}  # pins on either side
PITCH = 6.4  # of the pins, in pixels
TRACES = (
    ((50, 58), (62, 58), (72, 66)),
    ((50, 78), (74, 78)),
    ((50, 98), (60, 98), (74, 86)),
    ((118, 66), (140, 66), (150, 56), (168, 56)),
    ((118, 72), (142, 72), (152, 64), (168, 64)),
    ((118, 79), (146, 79), (154, 70), (168, 70)),
    ((118, 98), (130, 98), (140, 108)),
    ((204, 60), (226, 60), (226, 44)),
    ((204, 72), (216, 84), (216, 100)),
    ((118, 110), (134, 126), (134, 150)),
    ((74, 110), (66, 118), (66, 136), (60, 146)),
    ((60, 168), (74, 168), (84, 160), (92, 160)),
    ((176, 146), (188, 152)),
    ((176, 166), (188, 168)),
    ((152, 166), (140, 178), (140, 214)),
    ((112, 174), (112, 196), (100, 208), (100, 214)),
    ((50, 176), (50, 196), (60, 206), (60, 214)),
    ((206, 190), (206, 204), (196, 214)),
    ((26, 110), (26, 190), (40, 204), (40, 214)),
    ((226, 60), (236, 70), (236, 196), (220, 212)),
)
VIAS = ((134, 126), (66, 118), (140, 178), (216, 84), (26, 130), (88, 190), (176, 190), (146, 40), (60, 36))
PADS = tuple((40 + 20 * index, 216) for index in range(10))  # the row of gold contacts

# Printed names: letter, x, y.
NAMES = (
    ("R", 22, 48),
    ("R", 22, 122),
    ("C", 142, 96),
    ("C", 172, 96),
    ("C", 202, 96),
    ("R", 152, 136),
    ("C", 36, 134),
    ("U", 90, 56),
    ("U", 172, 46),
)


@dataclass(frozen=True)
class Part:
    """One component: its kind, centre (x, y), turn in degrees, shade factor and printed code."""

    kind: str
    centre: Point
    turn: float
    shade: float
    code: str


def random_part(rng: np.random.Generator, kind: str, x: float, y: float) -> Part:
    centre = (x + uniform(rng, -1.2, 1.2), y + uniform(rng, -1.2, 1.2))
    return Part(kind, centre, uniform(rng, -2.5, 2.5), uniform(rng, 0.8, 1.2), str(rng.integers(10, 1000)))


# Drawing in place on a canvas, uint8 (H, W, 3); colours are of [0, 1]


def _level(colour: Colour | float) -> list[float]:
    return [float(255 * min(max(value, 0), 1)) for value in np.broadcast_to(colour, 3)]


def _fixed(points: object) -> np.ndarray:
    return np.round(np.asarray(points, np.float64) * 2**SUBPIXEL).astype(np.int32)


def _box(canvas: np.ndarray, part: Part, size: Point, colour: Colour | float, at: Point = (0.0, 0.0)) -> None:
    """A rectangle of a part at an offset from its centre, turned with it."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.asarray(size) / 2 + np.asarray(at)
    cv2.fillPoly(canvas, [_fixed(turned(part, corners))], _level(colour), cv2.LINE_AA, SUBPIXEL)


def turned(part: Part, offsets: np.ndarray) -> np.ndarray:
    """Offsets (N, 2) from a part's centre, as points of the board."""
    angle = np.deg2rad(part.turn)
    spin = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(offsets, np.float64) @ spin + np.asarray(part.centre)


def _disc(canvas: np.ndarray, centre: Point, radius: float, colour: Colour | float) -> None:
    x, y = _fixed(centre)
    cv2.circle(canvas, (int(x), int(y)), int(radius * 2**SUBPIXEL), _level(colour), -1, cv2.LINE_AA, SUBPIXEL)


def _line(canvas: np.ndarray, points: object, colour: Colour | float, width: int, closed: bool = False) -> None:
    cv2.polylines(canvas, [_fixed(points)], closed, _level(colour), width, cv2.LINE_AA, SUBPIXEL)


def _text(canvas: np.ndarray, words: str, at: Point, colour: Colour | float, scale: float = 0.28) -> None:
    where = (int(at[0]), int(at[1]))
    cv2.putText(canvas, words, where, cv2.FONT_HERSHEY_SIMPLEX, scale, _level(colour), 1, cv2.LINE_AA)


def bare_board(rng: np.random.Generator) -> np.ndarray:
    """The board without its parts: lacquer, traces, vias, contacts, soldered pads, silk-screen print."""
    rough = 1 + 0.08 * noise(rng, SHAPE, 40) + 0.06 * grain(rng, SHAPE, 0.8)
    table = rough[..., None] * uniform(rng, 0.03, 0.3) * rng.uniform(0.9, 1.1, 3)
    lacquer = np.asarray(LACQUERS[rng.integers(len(LACQUERS))]) * uniform(rng, 0.8, 1.25)
    lacquer += rng.uniform(0, 0.03, 3)
    left, top, right, bottom = BOARD
    table[top:bottom, left:right] = lacquer * (1 + 0.05 * noise(rng, SHAPE, 30)[top:bottom, left:right, None])
    canvas = np.clip(255 * table, 0, 255).astype(np.uint8)
    _line(canvas, ((left, top), (right, top), (right, bottom), (left, bottom)), lacquer * 0.5, 1, closed=True)
    for trace in TRACES:
        _line(canvas, np.asarray(trace) + rng.uniform(-0.5, 0.5, 2), lacquer * 1.5 + 0.03, 2)
    for point in VIAS:
        _disc(canvas, point, 3.2, np.asarray(GOLD) * uniform(rng, 0.7, 1.0))
        _disc(canvas, point, 1.4, 0.05)
    for x, y in PADS:
        _disc(canvas, (x, y), 6.2, np.asarray(GOLD) * uniform(rng, 0.85, 1.15))
        _disc(canvas, (x, y), 2.6, 0.06)
    for x, y in ((left + 10, top + 9), (right - 10, bottom - 10), (left + 10, bottom - 10)):
        _disc(canvas, (x, y), 6.5, SOLDER)
        _disc(canvas, (x, y), 4.2, 0.05)
    for kind, x, y in PARTS:
        _footprint(canvas, Part(kind, (x, y), 0, 1, ""))
    _print(rng, canvas)
    return canvas


def _footprint(canvas: np.ndarray, part: Part) -> None:
    """What is under a part: its pads and its printed outline."""
    width, height = SIZES[part.kind]
    tin = np.asarray(SOLDER) * 0.8
    if part.kind in PINS:
        for x, y in pins(part.kind):
            _box(canvas, part, (9, 4), tin, (x, y))
    else:
        for side in (-1, 1):
            _box(canvas, part, (0.3 * width, 0.9 * height), tin, (side * 0.42 * width, 0))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2 + 3, height / 2 + 3)
    if part.kind in ("can", "crystal", "led"):
        _line(canvas, turned(part, corners), np.asarray(SILK) * 0.8, 1, closed=True)


def _print(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Silk-screen text: designators beside the parts, a title and a serial number that differs."""
    for letter, *at in NAMES:
        _text(canvas, f"{letter}{rng.integers(1, 60)}", at, SILK)
    _text(canvas, f"XJ-{rng.integers(100, 999)}{'ABCDEF'[rng.integers(6)]}", (64, 40), SILK, 0.36)
    _text(canvas, f"{rng.integers(1000, 9999)}-{rng.integers(10, 99)}", (130, 204), SILK, 0.32)
    for index in range(0, 10, 2):
        _text(canvas, str(index), (PADS[index][0] - 3, 233), SILK)


def pins(kind: str) -> list[Point]:
    """Offsets of a chip's pins from its centre, left side first, top down."""
    count, reach = PINS[kind], SIZES[kind][0] / 2 + 3
    rows = [(index - (count - 1) / 2) * PITCH for index in range(count)]
    return [(side * reach, row) for side in (-1, 1) for row in rows]


def place(canvas: np.ndarray, part: Part) -> None:
    """Draw one component over its footprint."""
    width, height = SIZES[part.kind]
    _box(canvas, part, (width + 1, height + 1), 0.03, (1.5, 1.5))
    if part.kind in PINS:
        for x, y in pins(part.kind):
            _box(canvas, part, (6, 2.6), np.asarray(SOLDER) * part.shade, (x, y))
        _box(canvas, part, (width, height), 0.11 * part.shade)
        _box(canvas, part, (width - 4, height - 4), 0.15 * part.shade)
        _disc(canvas, tuple(turned(part, np.array([[6 - width / 2, 6 - height / 2]]))[0]), 1.8, 0.4)
        _text(canvas, part.code, (part.centre[0] - 9, part.centre[1] + 3), 0.5)
    elif part.kind == "can":
        _disc(canvas, part.centre, width / 2, 0.12)
        _disc(canvas, part.centre, width / 2 - 2.5, np.asarray(SOLDER) * part.shade)
        stripe = np.deg2rad(np.arange(120, 241, 10) + part.turn)
        edge = np.stack([np.cos(stripe), np.sin(stripe)], 1) * (width / 2 - 2.5) + np.asarray(part.centre)
        cv2.fillPoly(canvas, [_fixed(edge)], _level(0.14), cv2.LINE_AA, SUBPIXEL)
        _text(canvas, part.code, (part.centre[0] - 5, part.centre[1] + 3), 0.25)
    elif part.kind == "crystal":
        ends = turned(part, np.array([[-1, 0], [1, 0]]) * (width - height) / 2)
        for end in ends:
            _disc(canvas, end, height / 2, 0.5)
        _box(canvas, part, (width - height, height), np.asarray(SOLDER) * 0.75 * part.shade)
        _box(canvas, part, (width - height + 8, height - 7), np.asarray(SOLDER) * 0.95 * part.shade)
        _text(canvas, part.code, (part.centre[0] - 9, part.centre[1] + 3), 0.25)
    else:
        _box(canvas, part, (width, height), np.asarray(SOLDER) * part.shade)
        _box(canvas, part, (0.6 * width, height), np.asarray(BODIES[part.kind]) * part.shade)
        if part.kind == "resistor":
            _text(canvas, part.code[:2], (part.centre[0] - 5, part.centre[1] + 3), 0.75, 0.24)

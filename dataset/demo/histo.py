"""Drawn histopathology: lymph node stained with haematoxylin and eosin, healthy or with a metastasis.

The picture is made as the slide is: one map of haematoxylin (nuclei) and one of eosin (cytoplasm, fibres),
both in units of optical density; the light that the two let through gives the colours. Healthy tissue is
small round lymphocytes, follicles with larger pale cells, fibres, vessels, fat and clefts. A metastasis
replaces part of it by large irregular nuclei in more cytoplasm, in nests, sheets or glands; its mask is the
ground that it takes.
"""

import cv2
import numpy as np

from dataset.demo.draw import (
    SUBPIXEL,
    Drawing,
    blur,
    chance,
    fill,
    gradient,
    grain,
    noise,
    outline,
    pick,
    place_word,
    stroke,
    to_uint8,
    uniform,
    wander,
)

SHAPE = (256, 256)
HAEMATOXYLIN = (0.66, 0.72, 0.28)  # optical density in red, green and blue for one unit of stain
EOSIN = (0.10, 0.62, 0.34)
TISSUES = ("cortex", "mixed", "stroma", "fat")
FINDINGS = ("metastatic tumour nests", "sheets of tumour cells", "metastatic glands")


class Slide:
    """The two stain maps, float32 (H, W), and what all the cells of one slide share."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.blue = np.full(SHAPE, 0.06, np.float32)  # haematoxylin
        self.pink = np.full(SHAPE, 0.30, np.float32)  # eosin
        self.holes = np.zeros(SHAPE, np.float32)  # alpha of fat and clefts, where there is no tissue
        self.scale = uniform(rng, 0.9, 1.15)
        self.grain = uniform(rng, 0, np.pi)  # direction of the fibres


def draw(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """A patch of lymph node, uint8 (256, 256, 3) RGB; the mask is the ground that a metastasis takes."""
    slide = Slide(rng)
    tissue = pick(rng, TISSUES, (0.35, 0.3, 0.2, 0.15))
    if not abnormal:
        _tissue(rng, slide, tissue, np.zeros(SHAPE, bool))
        return Drawing(_stained(rng, slide), np.zeros(SHAPE, bool))
    faint = chance(rng, 0.2)
    region = _region(rng)
    _tissue(rng, slide, tissue, region)
    region &= slide.holes < 0.5
    finding, mask = _tumour(rng, slide, region, faint)
    place = "throughout the patch" if mask.mean() > 0.6 else place_word(mask)
    share = float(mask.mean())
    size = "small" if share < 0.15 else "large" if share > 0.5 else "medium"
    words = {"finding": finding, "place": place, "size": size, "contrast": "faint" if faint else "clear"}
    return Drawing(_stained(rng, slide), mask, words)


# Cells


def _scatter(rng: np.random.Generator, spacing: float, density: np.ndarray) -> np.ndarray:
    """Points (N, 2) of (x, y) about `spacing` pixels apart, each kept with probability `density` (H, W)."""
    rows, columns = int(SHAPE[0] / (0.87 * spacing)) + 3, int(SHAPE[1] / spacing) + 3
    y, x = np.mgrid[-1 : rows - 1, -1 : columns - 1].astype(np.float32)
    points = np.stack([(x + 0.5 * (y % 2)) * spacing, 0.87 * y * spacing], axis=-1).reshape(-1, 2)
    points += rng.normal(0, 0.2 * spacing, points.shape) + rng.uniform(0, spacing, 2)
    column = np.clip(points[:, 0], 0, SHAPE[1] - 1).astype(int)
    row = np.clip(points[:, 1], 0, SHAPE[0] - 1).astype(int)
    return points[rng.random(len(points)) < density[row, column]]


def _ovals(
    rng: np.random.Generator,
    canvas: np.ndarray,
    points: np.ndarray,
    radius: float,
    stretch: float = 1.15,
    level: tuple[float, float] = (0.75, 1.0),
    angle: float | None = None,
) -> None:
    """Round or spindle nuclei at the points, drawn into `canvas` (uint8, 255 is one unit of stain)."""
    count, unit = len(points), 2**SUBPIXEL
    size = radius * np.clip(rng.normal(1.0, 0.12, count), 0.7, 1.4)
    ratio = np.sqrt(np.clip(rng.normal(stretch, 0.1 * stretch, count), 1.0, None))
    turn = rng.uniform(0, 180, count) if angle is None else np.degrees(angle) + rng.normal(0, 12, count)
    grey = (255 * rng.uniform(*level, count)).astype(int)
    centres = np.round(points * unit).astype(int)
    axes = np.maximum(np.round(np.stack([size * ratio, size / ratio], axis=1) * unit).astype(int), unit)
    columns = (values.tolist() for values in (centres, axes, turn, grey))
    for centre, axis, degrees, value in zip(*columns, strict=True):
        cv2.ellipse(canvas, centre, axis, degrees, 0, 360, value, -1, cv2.LINE_AA, SUBPIXEL)


def _polygon(canvas: np.ndarray, points: np.ndarray) -> None:
    """Fill the closed curve `points` (N, 2) of (x, y) in `canvas` (uint8) with 255."""
    cv2.fillPoly(canvas, [np.round(points * 2**SUBPIXEL).astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL)


def _large_nuclei(
    rng: np.random.Generator,
    canvas: np.ndarray,
    points: np.ndarray,
    radius: float,
    variety: float,
    angles: np.ndarray,
) -> None:
    """Irregular tumour nuclei with cleared chromatin and nucleoli, drawn into `canvas` (as in `_ovals`).

    `variety` is the relative spread of size and shape; `angles` (N,) are the directions of the long axes.
    """
    count, unit = len(points), 2**SUBPIXEL
    size = radius * np.clip(rng.lognormal(0, variety, count), 0.65, 1.8)
    t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    order = np.arange(2, 5)[:, None]
    phase = rng.uniform(0, 2 * np.pi, (count, 3, 1))
    wave = rng.normal(0, 0.45 * variety, (count, 3, 1)) * np.cos(order * t + phase)
    reach = size[:, None] * np.clip(1 + wave.sum(1), 0.6, 1.5)
    ratio = np.sqrt(rng.uniform(1.05, 1.8, (count, 1)))
    along, across = reach * ratio * np.cos(t), reach / ratio * np.sin(t)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    shapes = np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)
    level = rng.uniform(0.55, 1.0, count)
    cleared = rng.random(count) < 0.65
    nucleoli = rng.integers(0, 3, count)
    gaps, bodies, insides = (
        np.round((points[:, None] + share * shapes) * unit).astype(np.int32) for share in (1.13, 1.0, 0.74)
    )
    corner = rng.integers(0, 20, (count, 2))
    spots = points[:, None] + shapes[np.arange(count)[:, None], corner] * rng.uniform(0, 0.45, (count, 2, 1))
    spots = np.round(spots * unit).astype(int).tolist()
    for i in range(count):
        # A pale gap sets the nucleus off from those below it.
        cv2.fillPoly(canvas, [gaps[i]], 0, cv2.LINE_AA, SUBPIXEL)
        cv2.fillPoly(canvas, [bodies[i]], 255 * level[i], cv2.LINE_AA, SUBPIXEL)
        if cleared[i]:  # the membrane stays dark, the inside is pale
            cv2.fillPoly(canvas, [insides[i]], 255 * 0.58 * level[i], cv2.LINE_AA, SUBPIXEL)
        for spot in spots[i][: nucleoli[i]]:
            cv2.circle(canvas, spot, int(unit * 0.2 * size[i]), 250, -1, cv2.LINE_AA, SUBPIXEL)


def _stain_nuclei(rng: np.random.Generator, slide: Slide, canvas: np.ndarray, strength: float = 1.0) -> None:
    """Lay drawn nuclei over the slide, with grainy chromatin."""
    alpha = np.clip(canvas.astype(np.float32) * (2.2 / 255), 0, 1)
    chromatin = canvas.astype(np.float32) / 255 * (1 + 0.22 * grain(rng, SHAPE, 0.9))
    slide.blue += alpha * (strength * chromatin - slide.blue)
    slide.pink += alpha * (0.28 - slide.pink)


# Healthy tissue


def _tissue(rng: np.random.Generator, slide: Slide, kind: str, region: np.ndarray) -> None:
    """Lymph node of one of TISSUES over the whole slide; no cells where `region` will hold a tumour."""
    crowd = {"cortex": 1.1, "mixed": 0.35, "stroma": -0.3, "fat": 0.2}[kind] + uniform(rng, -0.15, 0.15)
    density = np.clip(crowd + 0.35 * noise(rng, SHAPE, uniform(rng, 40, 90)), 0.02, 0.97)
    fibres = _fibres(rng, slide)
    firm = np.clip(1.1 - density, 0.1, 1)  # fibres show where the lymphocytes are few
    slide.pink += firm * (0.30 + 0.24 * fibres) - 0.06
    slide.blue += 0.05 * density
    if kind == "fat":
        _fat(rng, slide)
    if chance(rng, 0.5):
        _clefts(rng, slide)
    tissue = 1 - slide.holes
    free = tissue * ~region
    canvas = np.zeros(SHAPE, np.uint8)
    spindles = _scatter(rng, 17 * slide.scale, 0.75 * firm**2 * free)
    _ovals(rng, canvas, spindles, 3.3 * slide.scale, 3.2, (0.55, 0.9), slide.grain)
    if kind in ("cortex", "mixed") and chance(rng, 0.45):
        density = density * (1 - _follicle(rng, slide, canvas, free))
    lymphocytes = _scatter(rng, 8.2 * slide.scale, density * free)
    _ovals(rng, canvas, lymphocytes, 3.5 * slide.scale, 1.15, (0.72, 1.0))
    _stain_nuclei(rng, slide, canvas)
    for _ in range(int(rng.integers(0, 3))):
        _vessel(rng, slide, region)
    slide.pink *= 1 - 0.97 * slide.holes
    slide.blue *= 1 - 0.97 * slide.holes


def _fibres(rng: np.random.Generator, slide: Slide) -> np.ndarray:
    """Wavy streaks along the slide's grain, float32 (H, W), standard deviation about 1."""
    long = noise(rng, (420, 84), 3.5, 2)  # 5 times shorter along x, to be stretched
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(np.float32) - SHAPE[0] / 2
    cos, sin = np.float32(np.cos(slide.grain)), np.float32(np.sin(slide.grain))
    bend = uniform(rng, 4, 12) * noise(rng, SHAPE, uniform(rng, 35, 70))
    along, across = x * cos + y * sin, -x * sin + y * cos + bend
    return cv2.remap(long, (along + 210) / 5, across + 210, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _fat(rng: np.random.Generator, slide: Slide) -> None:
    """Fat cells: large clear rounds, walls thin between them, over a part of the slide."""
    radius = uniform(rng, 13, 24)
    where = (noise(rng, SHAPE, 110) > uniform(rng, -0.5, 0.8)).astype(np.float32)
    canvas = np.zeros(SHAPE, np.uint8)
    for centre in _scatter(rng, 2.15 * radius, where):
        radii = radius * rng.uniform(0.8, 1.08, 2)
        _polygon(canvas, outline(rng, tuple(centre), tuple(radii), 0.06, 3, 0.0, 32))
    slide.holes = np.maximum(slide.holes, canvas.astype(np.float32) / 255)


def _clefts(rng: np.random.Generator, slide: Slide) -> None:
    """Tears and sinus clefts: a few thin clear lines along the grain, or one clear hole."""
    for _ in range(int(rng.integers(1, 5))):
        start = tuple(rng.uniform(20, 236, 2))
        path = wander(rng, start, slide.grain + rng.normal(0, 0.4), uniform(rng, 20, 90), 0.1)
        slide.holes = np.maximum(slide.holes, stroke(SHAPE, path, uniform(rng, 1.5, 5), 0.7))
    if chance(rng, 0.35):
        centre, radii = tuple(rng.uniform(20, 236, 2)), tuple(rng.uniform(6, 22, 2))
        slide.holes = np.maximum(slide.holes, fill(SHAPE, outline(rng, centre, radii, 0.2), 0.6))


def _follicle(rng: np.random.Generator, slide: Slide, canvas: np.ndarray, free: np.ndarray) -> np.ndarray:
    """A germinal centre: larger, paler, loosely set cells; returns the alpha of its ground."""
    radii = rng.uniform(38, 75, 2)
    ground = fill(SHAPE, outline(rng, tuple(rng.uniform(30, 226, 2)), tuple(radii), 0.08), 4.0)
    cells = _scatter(rng, 10.8 * slide.scale, 0.85 * ground * free)
    _ovals(rng, canvas, cells, 4.5 * slide.scale, 1.2, (0.48, 0.8))
    slide.pink += 0.10 * ground * free
    return ground


def _vessel(rng: np.random.Generator, slide: Slide, region: np.ndarray) -> None:
    """A small vessel: a pink wall with flat nuclei around red cells, off the tumour's ground."""
    x, y = rng.uniform(15, 241, 2)
    if region[int(y), int(x)]:
        return
    radii = tuple(rng.uniform(7, 20, 2))
    points = outline(rng, (x, y), radii, 0.1, 4, uniform(rng, 0, np.pi), 48)
    inside = fill(SHAPE, points, 0.6) * ~region
    wall = stroke(SHAPE, points, uniform(rng, 3, 6), 0.8, closed=True) * ~region
    slide.blue *= 1 - 0.9 * np.maximum(inside, wall)
    slide.pink += inside * (0.06 - slide.pink)
    slide.pink += wall * (0.85 - slide.pink)
    cells = np.zeros(SHAPE, np.uint8)
    _ovals(rng, cells, _scatter(rng, 7.0, uniform(rng, 0.2, 1.0) * inside), 3.2, 1.1, (0.8, 1.0))
    red = cells.astype(np.float32) / 255 * inside
    slide.pink += red * (1.15 - slide.pink)
    rim = np.zeros(SHAPE, np.uint8)
    for i in rng.choice(48, 6, replace=False):
        heading = points[(i + 1) % 48] - points[i]
        angle = float(np.arctan2(heading[1], heading[0]))
        _ovals(rng, rim, points[i : i + 1], 2.8 * slide.scale, 3.0, (0.6, 0.9), angle)
    _stain_nuclei(rng, slide, rim * (~region).astype(np.uint8))


# Metastasis


def _region(rng: np.random.Generator) -> np.ndarray:
    """The tumour's ground, bool (H, W): an island, one side of the patch, or all of it."""
    kind = pick(rng, ("island", "side", "all"), (0.5, 0.35, 0.15))
    if kind == "all":
        return np.ones(SHAPE, bool)
    if kind == "island":
        radii = rng.uniform(36, 80, 2)
        centre = tuple(rng.uniform(55, 201, 2))
        return fill(SHAPE, outline(rng, centre, tuple(radii), 0.15, 7, uniform(rng, 0, np.pi))) > 0.5
    y, x = np.mgrid[-128:128, -128:128].astype(np.float32)
    angle = uniform(rng, 0, 2 * np.pi)
    edge = x * np.cos(angle) + y * np.sin(angle) + uniform(rng, 6, 14) * noise(rng, SHAPE, 35, 2)
    return edge > uniform(rng, -70, 50)


def _tumour(rng: np.random.Generator, slide: Slide, region: np.ndarray, faint: bool) -> tuple[str, np.ndarray]:
    """Draw a metastasis on `region`; its name and its exact ground, bool (H, W)."""
    kind = pick(rng, FINDINGS, (0.4, 0.35, 0.25))
    radius = slide.scale * (uniform(rng, 4.9, 5.6) if faint else uniform(rng, 5.7, 8.2))
    variety = uniform(rng, 0.12, 0.18) if faint else uniform(rng, 0.2, 0.36)
    spacing = radius * uniform(rng, 2.1, 2.7)
    ground = blur(region.astype(np.float32), 1.0)
    canvas = np.zeros(SHAPE, np.uint8)
    if kind == "metastatic glands":
        nests, lumens = _glands(rng, canvas, region, radius, variety)
    else:
        nests, lumens = ground, np.zeros(SHAPE, np.float32)
        if kind == "metastatic tumour nests":
            bands = np.abs(noise(rng, SHAPE, uniform(rng, 34, 60)))
            nests = ground * np.clip((bands - 0.14) * 8, 0, 1)
        points = _scatter(rng, spacing, 0.95 * (nests > 0.6))
        _large_nuclei(rng, canvas, points, radius, variety, rng.uniform(0, np.pi, len(points)))
    cytoplasm = uniform(rng, 0.40, 0.75)
    slide.pink += nests * (cytoplasm + 0.07 * noise(rng, SHAPE, 9, 2) - slide.pink)
    slide.blue += nests * (uniform(rng, 0.10, 0.24) + 0.04 * noise(rng, SHAPE, 7) - slide.blue)
    slide.pink *= 1 - 0.96 * lumens
    slide.blue *= 1 - 0.96 * lumens
    between = np.clip(ground - nests - lumens, 0, 1)
    small = np.zeros(SHAPE, np.uint8)  # stroma and leftover lymphocytes between the nests
    _ovals(rng, small, _scatter(rng, 13, 0.6 * between), 3.0 * slide.scale, 2.6, (0.6, 0.95))
    left = _scatter(rng, 19, uniform(rng, 0.0, 0.35) * ground * (lumens < 0.1))
    _ovals(rng, small, left, 3.4 * slide.scale)
    _stain_nuclei(rng, slide, small)
    _stain_nuclei(rng, slide, canvas, uniform(rng, 0.8, 1.05))
    return kind, region | (canvas > 80)


def _glands(
    rng: np.random.Generator,
    canvas: np.ndarray,
    region: np.ndarray,
    radius: float,
    variety: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Rings of crowded nuclei around a lumen: the alphas of the cells' ground and of the lumens."""
    size = uniform(rng, 3.2, 5.0) * radius
    nests, lumens = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for centre in _scatter(rng, 2.25 * size, region):
        radii = size * rng.uniform(0.75, 1.1, 2)
        ring = outline(rng, (0, 0), tuple(radii), 0.1, 4, uniform(rng, 0, np.pi), 64)
        _polygon(nests, centre + ring)
        _polygon(lumens, centre + ring * uniform(rng, 0.15, 0.5))
        count = max(int(2 * np.pi * 0.75 * float(radii.mean()) / (1.5 * radius)), 5)
        nuclei = ring[np.arange(count) * 64 // count] * rng.uniform(0.68, 0.86, (count, 1))
        points = centre + nuclei + rng.normal(0, 0.8, (count, 2))
        column, row = np.clip(points, 0, 255).astype(int).T
        inside = region[row, column]
        headings = np.arctan2(nuclei[:, 1], nuclei[:, 0])
        _large_nuclei(rng, canvas, points[inside], 0.85 * radius, variety, headings[inside])
    return blur(nests / np.float32(255), 0.8) * region, blur(lumens / np.float32(255), 0.8) * region


# Colour


def _stained(rng: np.random.Generator, slide: Slide) -> np.ndarray:
    """The slide as the scanner sees it, uint8 (H, W, 3): stain batch, folds, focus, light, noise."""
    thick = gradient(rng, SHAPE, uniform(rng, 0.02, 0.15)) * (1 + 0.05 * noise(rng, SHAPE, 60))
    if chance(rng, 0.15):  # a fold: the tissue lies double along a band
        start = tuple(rng.uniform(0, 256, 2))
        path = wander(rng, start, uniform(rng, 0, 2 * np.pi), 260, 0.06)
        thick = thick * (1 + uniform(rng, 0.4, 0.8) * stroke(SHAPE, path, uniform(rng, 6, 18), 2.0))
    texture = 1 + 0.05 * grain(rng, SHAPE, 1.2)
    blue = uniform(rng, 0.75, 1.35) * thick * slide.blue
    pink = uniform(rng, 0.6, 1.3) * thick * texture * slide.pink
    haematoxylin = np.asarray(HAEMATOXYLIN) * rng.uniform(0.88, 1.12, 3)
    eosin = np.asarray(EOSIN) * rng.uniform(0.85, 1.15, 3)
    density = blue[..., None] * haematoxylin.astype(np.float32) + pink[..., None] * eosin.astype(np.float32)
    image = uniform(rng, 0.86, 1.02) * rng.uniform(0.97, 1.02, 3).astype(np.float32) * np.exp(-density * 1.25)
    image = blur(image, uniform(rng, 0.45, 1.1))
    image += uniform(rng, 0.005, 0.02) * grain(rng, SHAPE, 0.5)[..., None]
    return to_uint8(image)

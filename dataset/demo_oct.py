"""Drawn optical coherence tomography: B-scans of a retina, healthy or with fluid, drusen or new vessels.

A scan is built from the bottom up. Bruch's membrane is a curve; every layer above it is a thickness along
the picture's columns. A lesion that lifts the retina (fluid, detachment, drusen) is a layer that has no
thickness in a healthy eye, so its mask is exactly the pixels that it fills; cysts are shapes cut into the
finished layers. `draw_resc` imitates wide, grainy scans; `draw_oct2017` squarer, averaged scans with the white
margins that straightening leaves.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from dataset.demo_draw import (
    Drawing,
    blob,
    chance,
    exposure,
    fill,
    gradient,
    grain,
    noise,
    outline,
    pick,
    place_word,
    size_word,
    speckle,
    stroke,
    to_uint8,
    uniform,
)

# Layer, from the vitreous down to Bruch's membrane: (share of the retina's thickness, grey level).
LAYERS = {
    "nerve fibre": (0.12, 0.66),
    "ganglion": (0.25, 0.47),
    "inner nuclear": (0.12, 0.31),
    "outer plexiform": (0.07, 0.50),
    "outer nuclear": (0.21, 0.24),
    "limiting membrane": (0.02, 0.44),
    "inner segments": (0.05, 0.30),
    "photoreceptor line": (0.045, 0.80),
    "outer segments": (0.055, 0.45),
    "subretinal fluid": (0.0, 0.08),
    "pigment epithelium": (0.06, 0.90),
    "detachment": (0.0, 0.12),
}
INNER = ("nerve fibre", "ganglion", "inner nuclear", "outer plexiform")
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


@dataclass
class Scan:
    """A retina before it is pictured; curves are float32 (W,) in pixels."""

    shape: tuple[int, int]
    bruch: np.ndarray  # height of Bruch's membrane, y downwards
    thickness: dict[str, np.ndarray]
    level: dict[str, np.ndarray]
    fovea: float | None  # its column
    holes: list[tuple[np.ndarray, float]] = field(default_factory=list)  # alpha (H, W) and grey level
    spots: list[tuple[np.ndarray, float]] = field(default_factory=list)  # the same, not part of the mask

    def tops(self) -> dict[str, np.ndarray]:
        """The upper boundary of every layer, float32 (W,)."""
        y, tops = self.bruch, {}
        for name in reversed(LAYERS):
            y = y - self.thickness[name]
            tops[name] = y
        return tops


def draw_resc(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """A wide, grainy macular scan, uint8 (256, 320); fluid under or in the retina, detached epithelium."""
    return _draw(rng, abnormal, RESC)


def draw_oct2017(rng: np.random.Generator, abnormal: bool) -> Drawing:
    """An averaged macular scan, uint8 (248, 256); drusen, choroidal new vessels, diabetic oedema."""
    return _draw(rng, abnormal, OCT2017)


def _draw(rng: np.random.Generator, abnormal: bool, protocol: Protocol) -> Drawing:
    scan = _retina(rng, protocol)
    words = {}
    if abnormal:
        faint = chance(rng, 0.2)
        finding = _resc_lesion(rng, scan, faint) if protocol is RESC else _oct2017_lesion(rng, scan, faint)
        words = {"finding": finding, "contrast": "faint" if faint else "clear"}
    clean = _layers(rng, scan)
    image = _picture(rng, scan, clean, protocol)
    mask = _mask(scan) if abnormal else np.zeros(scan.shape, bool)
    if chance(rng, protocol.margins):
        image, mask = _turned(rng, image, mask)
    if abnormal:
        words["place"], words["size"] = _place(scan, mask), size_word(mask)
    return Drawing(to_uint8(image), mask, words)


# Anatomy


def _retina(rng: np.random.Generator, protocol: Protocol) -> Scan:
    """A healthy retina: curved, tilted, with or without the foveal pit."""
    height, width = protocol.shape
    x = np.linspace(-1, 1, width, dtype=np.float32)
    bow = uniform(rng, -0.02, 0.09) * (x - uniform(rng, -0.2, 0.2)) ** 2
    bruch = height * (uniform(rng, 0.64, 0.74) - bow + protocol.tilt * uniform(rng, -1, 1) * x)
    bruch += uniform(rng, 0.3, 1.0) * noise(rng, (1, width), 45)[0]
    fovea = uniform(rng, -0.4, 0.4) if chance(rng, 0.85) else None
    pit = np.zeros_like(x)
    if fovea is not None:
        pit = uniform(rng, 0.6, 1.0) * np.exp(-(np.abs((x - fovea) / uniform(rng, 0.13, 0.24)) ** 1.7))
    total = height * uniform(rng, *protocol.thickness)
    nasal = uniform(rng, -0.6, 0.6)  # the nerve fibres thicken towards the optic disc
    thickness, level = {}, {}
    for name, (share, grey) in LAYERS.items():
        curve = total * share * uniform(rng, 0.85, 1.18) * (1 + 0.05 * noise(rng, (1, width), 40)[0])
        if name in INNER:
            curve = curve * (1 - 0.93 * pit)
        if name == "nerve fibre":
            curve = curve * (1 + nasal * x)
        if name == "outer nuclear":
            curve = curve * (1 + 0.45 * pit)
        thickness[name] = np.maximum(curve, 0).astype(np.float32)
        level[name] = np.full(width, grey * uniform(rng, 0.88, 1.12), np.float32)
    column = None if fovea is None else (fovea + 1) / 2 * width
    return Scan(protocol.shape, bruch.astype(np.float32), thickness, level, column)


def _bump(rng: np.random.Generator, width: int, centre: float, half: float, power: float) -> np.ndarray:
    """A dome along the columns, float32 (W,), 1 at its top and 0 outside centre +- half; a little uneven."""
    x = (np.arange(width, dtype=np.float32) - centre) / half
    inside = np.abs(x) < 1
    x = x + uniform(rng, -0.2, 0.2) * (1 - x * x)
    dome = np.clip(1 - x * x, 0, 1) ** power * inside
    return dome * (1 + 0.10 * noise(rng, (1, width), max(half / 2, 3.0))[0])


def _lift(scan: Scan, name: str, rise: np.ndarray) -> None:
    """Thicken a layer by `rise` (W,) pixels; softer layers above give way, so the surface rises smoothly."""
    scan.thickness[name] += rise
    slack = cv2.GaussianBlur(rise[None], (0, 0), sigmaX=12, borderType=cv2.BORDER_REPLICATE)[0] - rise
    for layer, share in (("outer nuclear", 0.5), ("inner nuclear", 0.1), ("ganglion", 0.4)):
        room = scan.thickness[layer]
        scan.thickness[layer] = np.maximum(room + share * slack, 0.3 * room)


def _centre(rng: np.random.Generator, scan: Scan, reach: float) -> float:
    """A column for a lesion that leaves it `reach` pixels to the sides, more often near the fovea."""
    width = scan.shape[1]
    column = rng.uniform(0.12, 0.88) * width
    if scan.fovea is not None and chance(rng, 0.5):
        column = rng.normal(scan.fovea, 0.06 * width)
    return float(np.clip(column, 0.8 * reach, width - 0.8 * reach))


# Lesions: each changes the scan in place


def _subretinal_fluid(rng: np.random.Generator, scan: Scan, faint: bool, centre: float | None = None) -> None:
    half = uniform(rng, 16, 32) if faint else uniform(rng, 26, 75)
    tall = uniform(rng, 7, 12) if faint else uniform(rng, 12, 38)
    centre = _centre(rng, scan, half) if centre is None else centre
    dome = _bump(rng, scan.shape[1], centre, half, uniform(rng, 0.7, 1.5))
    _lift(scan, "subretinal fluid", np.float32(tall) * dome)
    scan.level["subretinal fluid"][:] = uniform(rng, 0.15, 0.19) if faint else uniform(rng, 0.03, 0.10)
    scan.level["photoreceptor line"] *= 1 - 0.4 * np.clip(dome * 3, 0, 1)


def _detachment(rng: np.random.Generator, scan: Scan, faint: bool, centre: float | None = None) -> None:
    half = uniform(rng, 13, 22) if faint else uniform(rng, 17, 48)
    tall = uniform(rng, 7, 11) if faint else uniform(rng, 14, 42)
    centre = _centre(rng, scan, half) if centre is None else centre
    dome = _bump(rng, scan.shape[1], centre, half, uniform(rng, 0.45, 1.0))
    _lift(scan, "detachment", np.float32(tall) * dome)
    serous = chance(rng, 0.6) and not faint
    scan.level["detachment"][:] = uniform(rng, 0.05, 0.14) if serous else uniform(rng, 0.25, 0.38)
    # The epithelium is stretched over the dome, and the nuclear layer above it pressed flat.
    scan.thickness["outer nuclear"] *= 1 - 0.35 * np.clip(dome, 0, 1)


def _cysts(rng: np.random.Generator, scan: Scan, faint: bool, exudates: bool = False) -> None:
    """Fluid-filled holes in the nuclear layers of a swollen retina."""
    height, width = scan.shape
    half = uniform(rng, 22, 36) if faint else uniform(rng, 28, 75)
    centre = _centre(rng, scan, half)
    swell = uniform(rng, 0.3, 0.7) if faint else uniform(rng, 0.6, 1.5)
    dome = np.clip(_bump(rng, width, centre, 1.3 * half, 1.2), 0, 1.2)
    for name, share in (("inner nuclear", 0.07), ("outer plexiform", 0.02), ("outer nuclear", 0.12)):
        scan.thickness[name] += np.float32(swell * share * 0.75 * height) * dome
    tops = scan.tops()
    grey = uniform(rng, 0.13, 0.17) if faint else uniform(rng, 0.02, 0.09)
    alpha = np.zeros(scan.shape, np.float32)
    step = uniform(rng, 9, 17)
    for bottom, top in (("outer plexiform", "inner nuclear"), ("limiting membrane", "outer nuclear")):
        if top == "inner nuclear" and chance(rng, 0.3):
            continue
        x = centre - half + uniform(rng, 0, step)
        while x < centre + half:
            column = int(np.clip(x, 4, width - 5))
            room = float(tops[bottom][column] - tops[top][column])
            near = np.sqrt(max(1 - ((x - centre) / half) ** 2, 0.05))
            tall = room * 0.5 * uniform(rng, 0.55, 0.95) * near
            if tall > 2.0 and chance(rng, 0.88):
                middle = tops[top][column] + room * uniform(rng, 0.44, 0.56)
                wide = min(step * uniform(rng, 0.42, 0.7), 3.0 * tall)
                lean = uniform(rng, -0.2, 0.2)
                points = outline(rng, (column, float(middle)), (wide, tall), 0.12, 4, lean, 32)
                alpha = np.maximum(alpha, fill(scan.shape, points))
            x += step * uniform(rng, 0.8, 1.5)
    if not alpha.any():  # a thin retina leaves room for one hole only
        column = int(np.clip(centre, 10, width - 11))
        middle = float(tops["outer nuclear"][column] + scan.thickness["outer nuclear"][column] / 2)
        alpha = fill(scan.shape, outline(rng, (column, middle), (11.0, 7.0), 0.12, 4, 0.0, 32))
    scan.holes.append((alpha, grey))
    if exudates:
        _exudates(rng, scan, centre, half)


def _exudates(rng: np.random.Generator, scan: Scan, centre: float, half: float) -> None:
    """Bright dots of lipid around swollen retina; they belong to the disease but are not outlined."""
    top = scan.tops()["outer plexiform"]
    for _ in range(int(rng.integers(2, 8))):
        x = float(np.clip(rng.normal(centre, 0.7 * half), 3, scan.shape[1] - 4))
        size = uniform(rng, 1.0, 2.4)
        y = float(top[int(x)]) + rng.normal(0, 6)
        scan.spots.append((blob(scan.shape, (x, y), (1.3 * size, size)), uniform(rng, 0.7, 0.95)))


def _drusen(rng: np.random.Generator, scan: Scan, faint: bool) -> None:
    """A row of small domes under the pigment epithelium."""
    width = scan.shape[1]
    centre, spread = _centre(rng, scan, 40), uniform(rng, 20, 75)
    count = int(rng.integers(3, 6)) if faint else int(rng.integers(4, 10))
    total = np.zeros(width, np.float32)
    for place in centre + spread * rng.uniform(-1, 1, count):
        half = uniform(rng, 8, 12) if faint else uniform(rng, 8, 20)
        tall = uniform(rng, 5, 7) if faint else min(uniform(rng, 0.65, 1.3) * half, 20)
        dome = _bump(rng, width, float(np.clip(place, 8, width - 8)), half, uniform(rng, 0.6, 1.1))
        total = np.maximum(total, np.float32(tall) * dome)
    _lift(scan, "detachment", total)
    scan.level["detachment"][:] = uniform(rng, 0.34, 0.55)
    raised = np.clip(total / 5, 0, 1)
    scan.level["photoreceptor line"] *= 1 - uniform(rng, 0.2, 0.6) * raised
    scan.thickness["outer segments"] *= 1 - 0.6 * raised
    scan.thickness["outer nuclear"] *= 1 - 0.25 * raised


def _new_vessels(rng: np.random.Generator, scan: Scan, faint: bool) -> None:
    """A ragged, bright membrane that breaks through the pigment epithelium, often with fluid beside it."""
    width = scan.shape[1]
    half = uniform(rng, 22, 32) if faint else uniform(rng, 26, 62)
    centre = _centre(rng, scan, half)
    ragged = 1 + 0.35 * noise(rng, (1, width), 9, 2)[0]
    dome = np.clip(_bump(rng, width, centre, half, 0.8) * ragged, 0, 1.6)
    tall = uniform(rng, 9, 13) if faint else uniform(rng, 14, 32)
    _lift(scan, "detachment", np.float32(tall) * dome)
    scan.level["detachment"][:] = uniform(rng, 0.42, 0.66)
    loss = np.clip(1.5 * dome, 0, 1)
    for name in ("photoreceptor line", "pigment epithelium"):
        scan.level[name] -= loss * uniform(rng, 0.15, 0.3)
    scan.thickness["pigment epithelium"] *= 1 + 0.6 * loss * np.clip(noise(rng, (1, width), 7)[0], -0.9, 1.5)
    scan.thickness["outer segments"] *= 1 - 0.8 * loss
    if not faint and chance(rng, 0.55):
        beside = float(np.clip(centre + rng.choice([-1, 1]) * 0.7 * half, 20, width - 20))
        _subretinal_fluid(rng, scan, chance(rng, 0.4), beside)
    if not faint and chance(rng, 0.3):
        _cysts(rng, scan, faint)


def _resc_lesion(rng: np.random.Generator, scan: Scan, faint: bool) -> str:
    kinds = ("subretinal fluid", "pigment epithelial detachment", "intraretinal cystic fluid", "both")
    kind = pick(rng, kinds, (0.35, 0.2, 0.3, 0.15))
    if kind == "subretinal fluid":
        _subretinal_fluid(rng, scan, faint)
    elif kind == "pigment epithelial detachment":
        _detachment(rng, scan, faint)
    elif kind == "intraretinal cystic fluid":
        _cysts(rng, scan, faint)
    else:
        centre = _centre(rng, scan, 45)
        _detachment(rng, scan, faint, centre)
        _subretinal_fluid(rng, scan, faint, float(centre + rng.uniform(-30, 30)))
        return "pigment epithelial detachment with subretinal fluid"
    return kind


def _oct2017_lesion(rng: np.random.Generator, scan: Scan, faint: bool) -> str:
    kind = pick(rng, ("drusen", "choroidal neovascularisation", "diabetic macular oedema"), (0.3, 0.37, 0.33))
    if kind == "drusen":
        _drusen(rng, scan, faint)
    elif kind == "choroidal neovascularisation":
        _new_vessels(rng, scan, faint)
    else:
        _cysts(rng, scan, faint, exudates=chance(rng, 0.6))
        if chance(rng, 0.2):
            _subretinal_fluid(rng, scan, faint)
    return kind


def _mask(scan: Scan) -> np.ndarray:
    """Every pixel of fluid, of a detachment or of a cyst, bool (H, W)."""
    y = np.arange(scan.shape[0], dtype=np.float32)[:, None] + 0.5
    mask, tops = np.zeros(scan.shape, bool), scan.tops()
    for name, below in (("subretinal fluid", "pigment epithelium"), ("detachment", None)):
        bottom = scan.bruch if below is None else tops[below]
        mask |= (y >= tops[name]) & (y < bottom) & (scan.thickness[name] > 1.5)
    for alpha, _ in scan.holes:
        mask |= alpha > 0.5
    return mask


def _place(scan: Scan, mask: np.ndarray) -> str:
    if scan.fovea is None:
        return place_word(mask)
    offset = (float(np.flatnonzero(mask.any(0)).mean()) - scan.fovea) / scan.shape[1]
    if abs(offset) < 0.1:
        return "at the fovea"
    return "left of the fovea" if offset < 0 else "right of the fovea"


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

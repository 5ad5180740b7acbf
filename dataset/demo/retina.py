"""The drawn retina behind the optical coherence tomography objects: its layers and its lesions.

A retina is built from the bottom up. Bruch's membrane is a curve; every layer above it is a thickness along
the picture's columns. A lesion that lifts the retina (fluid, detachment, drusen) is a layer that has no
thickness in a healthy eye, so its mask is exactly the pixels that it fills; cysts are shapes cut into the
finished layers.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from dataset.demo.draw import blob, chance, fill, noise, outline, pick, place_word, uniform

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


# Anatomy


def retina(rng: np.random.Generator, shape: tuple[int, int], thick: tuple[float, float], tilt: float) -> Scan:
    """A healthy retina, curved and tilted, with or without the foveal pit, on a picture of `shape` (H, W).

    `thick` is the range of its thickness, `tilt` the greatest rise from the centre to a side: shares of H.
    """
    height, width = shape
    x = np.linspace(-1, 1, width, dtype=np.float32)
    bow = uniform(rng, -0.02, 0.09) * (x - uniform(rng, -0.2, 0.2)) ** 2
    bruch = height * (uniform(rng, 0.64, 0.74) - bow + tilt * uniform(rng, -1, 1) * x)
    bruch += uniform(rng, 0.3, 1.0) * noise(rng, (1, width), 45)[0]
    fovea = uniform(rng, -0.4, 0.4) if chance(rng, 0.85) else None
    pit = np.zeros_like(x)
    if fovea is not None:
        pit = uniform(rng, 0.6, 1.0) * np.exp(-(np.abs((x - fovea) / uniform(rng, 0.13, 0.24)) ** 1.7))
    total = height * uniform(rng, *thick)
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
    return Scan(shape, bruch.astype(np.float32), thickness, level, column)


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
    scan.level["detachment"][:] = uniform(rng, 0.34, 0.55)
    raised = np.clip(total / 5, 0, 1)
    scan.level["photoreceptor line"] *= 1 - uniform(rng, 0.2, 0.6) * raised
    scan.thickness["outer segments"] *= 1 - 0.6 * raised
    _lift(scan, "detachment", total)


def _new_vessels(rng: np.random.Generator, scan: Scan, faint: bool) -> None:
    """A ragged, bright membrane that breaks through the pigment epithelium, often with fluid beside it."""
    width = scan.shape[1]
    half = uniform(rng, 22, 32) if faint else uniform(rng, 26, 62)
    centre = _centre(rng, scan, half)
    ragged = 1 + 0.28 * noise(rng, (1, width), 13, 2)[0]
    dome = np.clip(_bump(rng, width, centre, half, 0.8) * ragged, 0, 1.6)
    tall = uniform(rng, 9, 13) if faint else uniform(rng, 14, 32)
    scan.level["detachment"][:] = uniform(rng, 0.42, 0.66)
    loss = np.clip(1.5 * dome, 0, 1)
    for name in ("photoreceptor line", "pigment epithelium"):
        scan.level[name] -= loss * uniform(rng, 0.15, 0.3)
    scan.thickness["pigment epithelium"] *= 1 + 0.6 * loss * np.clip(noise(rng, (1, width), 7)[0], -0.9, 1.5)
    scan.thickness["outer segments"] *= 1 - 0.8 * loss
    _lift(scan, "detachment", np.float32(tall) * dome)
    if not faint and chance(rng, 0.55):
        beside = float(np.clip(centre + rng.choice([-1, 1]) * 0.7 * half, 20, width - 20))
        _subretinal_fluid(rng, scan, chance(rng, 0.4), beside)
    if not faint and chance(rng, 0.3):
        _cysts(rng, scan, faint)


def add_resc_lesion(rng: np.random.Generator, scan: Scan, faint: bool) -> str:
    """Put one of the lesions of wide scans into the scan, in place; returns its name."""
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


def add_oct2017_lesion(rng: np.random.Generator, scan: Scan, faint: bool) -> str:
    """Put drusen, new vessels or diabetic oedema into the scan, in place; returns the name."""
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


def lesion_mask(scan: Scan) -> np.ndarray:
    """Every pixel of fluid, of a detachment or of a cyst, bool (H, W)."""
    y = np.arange(scan.shape[0], dtype=np.float32)[:, None] + 0.5
    mask, tops = np.zeros(scan.shape, bool), scan.tops()
    for name, below in (("subretinal fluid", "pigment epithelium"), ("detachment", None)):
        bottom = scan.bruch if below is None else tops[below]
        mask |= (y >= tops[name]) & (y < bottom) & (scan.thickness[name] > 1.5)
    for alpha, _ in scan.holes:
        mask |= alpha > 0.5
    return mask


def lesion_place(scan: Scan, mask: np.ndarray) -> str:
    """Where a mask lies: from the fovea when the scan has one, else in the picture."""
    if scan.fovea is None:
        return place_word(mask)
    offset = (float(np.flatnonzero(mask.any(0)).mean()) - scan.fovea) / scan.shape[1]
    if abs(offset) < 0.1:
        return "at the fovea"
    return "left of the fovea" if offset < 0 else "right of the fovea"

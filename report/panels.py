"""Pictures to look at: one panel per test image.

A panel shows input | ground truth | anomaly map | overlay | predicted mask at the image's own resolution,
above a strip with the file's name, the score, the verdict and the colour bar. Colours mean the same in every
panel of a run, since the caller gives one scale for all (the support's calibrated range): a normal image
stays dark.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, count
from math import isfinite
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.images import read_rgb
from report.colours import COLOURS, OUTLINE, ColourScale, heat, overlay, share, truth
from runtime.files import atomic_write, suffix_of

TITLES = ("input", "ground truth", "anomaly map", "overlay", "predicted mask")
SMALLEST_TILE = 160  # narrower images are centred in tiles of this width, so that the words fit
SMALLEST_TEXT = 14
PAPER, EMPTY, INK, FAINT = (255, 255, 255), (228, 228, 228), (30, 30, 30), (120, 120, 120)
RED, GREEN = (190, 30, 30), (20, 110, 60)
NAME_BYTES = 200  # file systems allow 255


def save_panel(
    path: str | Path,
    image: str | Path,
    mask: str | Path | None,
    anomaly_map: np.ndarray,
    scale: ColourScale,
    *,
    score: float,
    label: int | None = None,
) -> None:
    """Write one test image's panel as a PNG, whole or not at all.

    image, mask: files; without a mask the tile says so, or stays empty if `label` is 0 (normal).
    anomaly_map: (S, S) float32, resized (bilinear) to the image. label: 0, 1 or None where nobody knows.
    Raises InputError for unreadable files.
    """
    picture = read_rgb(image)  # (H, W, 3)
    height, width = picture.shape[:2]
    full = cv2.resize(np.asarray(anomaly_map, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    called = full >= scale.pixel_threshold if isfinite(scale.pixel_threshold) else None
    marked = truth(mask, label, (height, width))
    tiles = (
        picture,
        "no mask given" if marked is None else _black_white(marked),
        heat(full, scale),
        overlay(picture, full, called, scale),
        "no threshold known" if called is None else _black_white(called),
    )
    canvas = _lay_out(tiles, (height, width))
    _caption(canvas, Path(image).name, scale, score, label, _text_size(width))
    with atomic_write(path) as draft:
        canvas.save(draft, format="PNG", compress_level=3)


def panel_names(images: Iterable[str | Path], root: str | Path | None = None) -> list[str]:
    """A file name for every image's panel, all different also where a file system folds case.

    The folders below `root` (or, outside it, the last three) stay in the name, since a normal and an abnormal
    image may share their own: `test/Ungood/img/0001.png` -> `test_Ungood_img_0001.png`.
    """
    names, taken = [], set()
    for image in map(Path, images):
        inside = root is not None and image.is_relative_to(root)
        parts = image.relative_to(root).parts if inside else image.relative_to(image.anchor).parts[-4:]
        suffix = suffix_of(image)
        stem = _shortened("_".join(part for part in parts if part != "..").removesuffix(suffix))
        choices = chain([stem, stem + suffix.replace(".", "_")], (f"{stem}_{n}" for n in count(2)))
        name = next(choice for choice in choices if choice.lower() not in taken)
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def _shortened(stem: str) -> str:
    """A name that is too long for a file keeps its end, behind a digest of the whole."""
    raw = stem.encode("utf-8", "surrogateescape")  # a name need not be UTF-8; what is made of it is
    if len(raw) <= NAME_BYTES:
        return raw.decode(errors="replace")
    return f"{hashlib.sha256(raw).hexdigest()[:10]}_{raw[-NAME_BYTES:].decode(errors='ignore')}"


def _black_white(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _text_size(width: int) -> int:
    return max(SMALLEST_TEXT, width // 22)


def _lay_out(tiles: Sequence[np.ndarray | str], size: tuple[int, int]) -> Image.Image:
    """The titled tiles in a row, with room for the caption below; a string is an empty tile that says it."""
    height, width = size
    text, tile = _text_size(width), max(width, SMALLEST_TILE)
    gap, head, strip = text // 2, 3 * text // 2, 7 * text // 2
    canvas = Image.new("RGB", (len(tiles) * (tile + gap) + gap, head + height + strip), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (title, content) in enumerate(zip(TITLES, tiles, strict=True)):
        left = gap + index * (tile + gap)
        middle = left + tile / 2
        draw.text((middle, head / 2), title, INK, _font(text), anchor="mm")
        if isinstance(content, str):
            draw.rectangle((left, head, left + tile - 1, head + height - 1), EMPTY)
            draw.text((middle, head + height / 2), content, FAINT, _font(text), anchor="mm")
        else:
            canvas.paste(Image.fromarray(content), (left + (tile - width) // 2, head))
    return canvas


def _caption(canvas: Image.Image, name: str, scale: ColourScale, score: float, label: int | None, text: int) -> None:
    """File name and verdict on the left of the bottom strip, the colour bar with its numbers on the right."""
    draw, font, gap = ImageDraw.Draw(canvas), _font(text), text // 2
    room = _colour_bar(canvas, scale, text) - 3 * gap
    draw.text((gap, canvas.height - 5 * text // 2), _fitted(name, font, room), INK, font, anchor="lm")
    words = [(f"score {score:.4g}", INK)]
    if isfinite(scale.score_threshold):
        words.append((f"(abnormal from {scale.score_threshold:.4g})", FAINT))
        words.append(("ABNORMAL", RED) if score >= scale.score_threshold else ("normal", GREEN))
    if label is not None:
        words.append((f"labelled {'abnormal' if label else 'normal'}", FAINT))
    left = gap
    for word, colour in words:
        draw.text((left, canvas.height - text), word, colour, font, anchor="lm")
        left += font.getlength(word + "  ")


def _colour_bar(canvas: Image.Image, scale: ColourScale, text: int) -> int:
    """Draw the bar at the right of the strip, and return where its numbers begin."""
    draw, font, gap = ImageDraw.Draw(canvas), _font(text), text // 2
    low, high = f"{scale.low:.3g}", f"{scale.high:.3g}"
    wide, top = 10 * text, canvas.height - 3 * text
    right = canvas.width - 2 * gap - int(font.getlength(high))
    left, middle = right - wide, top + text / 2
    canvas.paste(Image.fromarray(COLOURS[None]).resize((wide, text)), (left, top))
    draw.text((left - gap, middle), low, INK, font, anchor="rm")
    draw.text((right + gap, middle), high, INK, font, anchor="lm")
    if scale.low <= scale.pixel_threshold <= scale.high:
        mark = left + (wide - 1) * float(share(np.float32(scale.pixel_threshold), scale))
        draw.line((mark, top - 2, mark, top + text + 2), OUTLINE, width=max(2, text // 8))
        words = f"mask from {scale.pixel_threshold:.3g}"
        draw.text((left + wide / 2, top + 2 * text), words, FAINT, font, anchor="mm")
    return left - gap - int(font.getlength(low))


def _fitted(words: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The words, or as much of their end as has room."""
    if font.getlength(words) <= width:
        return words
    start = next((cut for cut in range(1, len(words)) if font.getlength("..." + words[cut:]) <= width), -1)
    return "..." + words[start:]

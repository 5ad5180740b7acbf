"""A volume's scores, slice by slice, as a picture."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from report.panels import FAINT, GREEN, INK, PAPER, RED
from runtime.files import atomic_write

WIDTH, HEIGHT = 960, 320
LEFT, TOP, RIGHT, BOTTOM = 70, 40, 20, 50  # margins
TEXT, DOT, TICKS = 14, 3, 10


def save_chart(path: Path, scores: Sequence[float], threshold: float, name: str) -> None:
    """Write a PNG: scores (N,) over slice numbers from 0, the threshold as a line, slices from it on in red."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TEXT)
    values = [0.0, 1.0, *scores, *([threshold] if isfinite(threshold) else [])]
    low, high = min(values), max(values)  # 0 and 1, or further where scores or the threshold lie beyond

    def x(number: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (number / max(1, len(scores) - 1))

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (score - low) / (high - low)

    draw.text((LEFT, TOP / 2), f"{name}: score by slice", INK, font, anchor="lm")
    draw.line([(LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], INK)
    for score in (low, (low + high) / 2, high):
        draw.text((LEFT - 8, y(score)), f"{score:.3g}", INK, font, anchor="rm")
        draw.line([(LEFT - 4, y(score)), (LEFT, y(score))], INK)
    for number in range(0, len(scores), 1 + (len(scores) - 1) // TICKS):
        draw.text((x(number), HEIGHT - BOTTOM + 8), str(number), INK, font, anchor="mt")
    draw.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8), "slice", FAINT, font, anchor="ms")
    if isfinite(threshold):
        for start in range(LEFT, WIDTH - RIGHT, 12):
            draw.line([(start, y(threshold)), (start + 6, y(threshold))], RED)
        draw.text((WIDTH - RIGHT, TOP / 2), f"abnormal from {threshold:.4g}", RED, font, anchor="rm")
    draw.line([(x(number), y(score)) for number, score in enumerate(scores)], FAINT, width=2)
    for number, score in enumerate(scores):
        draw.circle((x(number), y(score)), DOT, RED if score >= threshold else GREEN)
    with atomic_write(path) as draft:
        canvas.save(draft, format="PNG")

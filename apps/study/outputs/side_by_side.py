"""The images of an object on which the methods err most and least, with the map of every method: for the page."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from apps.study.outputs.maps import HALF, KEPT, KeptMap, read_maps
from apps.study.outputs.rows import Row
from apps.study.outputs.summary import Block
from runtime.errors import InputError

SCORES = "scores.csv"


def side_by_side(folder: Path, block: Block, obj: str) -> dict[str, Any] | None:
    """What the page shows of one object, None where no run kept maps.

    {"seed", "worst": [image], "best": [image]}, an image {"name", "label", "image", "methods": {method: {"score",
    "error", "map" or None}}}: images that most methods have among their own worst (best) come first, then by the mean
    error over methods. Damaged or missing files leave their run out.
    """
    seed, runs = _most_complete(block, obj)
    kept = {method: found for method, row in runs.items() if (found := _kept(folder, row))}
    if not kept:
        return None
    scores = {method: _scores(folder, row) for method, row in runs.items()}
    worst = _rows({method: found[:KEPT] for method, found in kept.items()}, kept, scores, -1)
    taken = {image["name"] for image in worst}
    best = _rows({method: found[KEPT:] for method, found in kept.items()}, kept, scores, 1)
    return {"seed": seed, "worst": worst, "best": [image for image in best if image["name"] not in taken]}


def _most_complete(block: Block, obj: str) -> tuple[int, dict[str, Row]]:
    """The seed of which most methods have maps, the first of several, and its runs by method."""
    by_seed: dict[int, dict[str, Row]] = {}
    for method in block.methods:
        for row in block.rows.get((obj, method), ()):
            if row.get("maps") and row.get("main") and row["selected"] == "last":
                by_seed.setdefault(row["seed"], {})[method] = row
    return max(sorted(by_seed.items()), key=lambda item: len(item[1]), default=(0, {}))


def _kept(folder: Path, row: Row) -> list[KeptMap]:
    try:
        return read_maps(folder / row["maps"])
    except InputError:
        return []


def _scores(folder: Path, row: Row) -> dict[str, tuple[float, float]]:
    """By image: the score and the error of the run's branch at the last epoch; {} where the file gives none."""
    import pandas as pd  # 30 MB that are only needed here

    if not row["folder"]:
        return {}
    try:
        table = pd.read_csv(folder / row["folder"] / SCORES)
        table = table[table["selected"] == "last"]
        numbers = [table[name].astype(float) for name in (row["branch"], "label", "threshold")]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return {
        str(name): (score, _error(score, label, threshold))
        for name, score, label, threshold in zip(table["image"], *numbers, strict=True)
        if isfinite(score) and label in (0, 1)
    }


def _error(score: float, label: float, threshold: float) -> float:
    limit = threshold if isfinite(threshold) else HALF
    return limit - score if label else score - limit


def _rows(
    chosen: dict[str, list[KeptMap]],
    kept: dict[str, list[KeptMap]],
    scores: dict[str, dict[str, tuple[float, float]]],
    sign: int,
) -> list[dict[str, Any]]:
    """The KEPT first images. sign: -1 the largest errors first, 1 the smallest."""
    votes: dict[str, int] = {}
    for images in chosen.values():
        for one in images:
            votes[one.name] = votes.get(one.name, 0) + 1
    made = [_image(name, kept, scores) for name in votes]
    made.sort(key=lambda image: (-votes[image["name"]], sign * _mean_error(image)))
    return made[:KEPT]


def _image(
    name: str, kept: dict[str, list[KeptMap]], scores: dict[str, dict[str, tuple[float, float]]]
) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    first = None
    for method, images in kept.items():
        one = next((image for image in images if image.name == name), None)
        first = first or one
        found = scores[method].get(name, None if one is None else (one.score, one.error))
        if found is not None:
            methods[method] = {"score": found[0], "error": found[1], "map": one.map if one else None}
    return {"name": name, "label": first.label, "image": first.image, "methods": methods}


def _mean_error(image: dict[str, Any]) -> float:
    errors: Sequence[float] = [found["error"] for found in image["methods"].values()]
    return sum(errors) / len(errors)

"""Rows of runs as tables: blocks of objects x methods, a mean and a deviation over seeds in each cell, and differences.

Every figure here is in percent, every difference in points of percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, sqrt

import numpy as np

from apps.study.outputs.rows import MAIN, STATES, Row, StudyInfo, in_order, percent, shot_words
from apps.study.outputs.statistics import holm, paired

MEAN = "mean"  # what the row over objects is called


@dataclass(frozen=True)
class View:
    """Which figures a table shows. branch: MAIN, "zero", "few" or "fused"."""

    metric: str = "image_auroc"
    branch: str = MAIN
    selected: str = "last"


@dataclass(frozen=True)
class Cell:
    """What the runs of one object and method gave: by seed, in percent; without any, why."""

    values: Mapping[int, float]
    state: str = ""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fsum(self.values.values()) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample deviation over seeds; None of fewer than two."""
        if len(self.values) < 2:
            return None
        mean = self.mean
        return sqrt(fsum((value - mean) ** 2 for value in self.values.values()) / (len(self.values) - 1))


@dataclass(frozen=True)
class Difference:
    """A method less the reference, over `pairs` seeds that both have: points of percent with their 95 % interval.

    p: of the one test. adjusted: after Holm over the method's objects (of the mean over objects p itself). Both None
    where no test can be made; then the interval is infinite.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p: float | None
    adjusted: float | None


@dataclass(frozen=True)
class Block:
    """One table: runs of one group at one number of shots. methods: its columns, compared with `reference`."""

    group: str
    shot: int | None
    objects: tuple[str, ...]
    methods: tuple[str, ...]
    reference: str
    rows: Mapping[tuple[str, str], Sequence[Row]]  # by object and method

    @property
    def title(self) -> str:
        """The group and the shots in words."""
        shots = shot_words(self.shot)
        return shots if self.group in (MAIN, shots) else f"{self.group}, {shots}"


def blocks_of(rows: Sequence[Row], study: StudyInfo) -> list[Block]:
    """The study's own tables first, then those of the other groups, each by shots."""
    groups = in_order([MAIN], (row["group"] for row in rows))
    made = []
    for group in groups:
        inside = [row for row in rows if row["group"] == group]
        for shot in in_order(study.shots, (row["shot"] for row in inside)):
            made.append(_block(group, shot, [row for row in inside if row["shot"] == shot], study))
    return made


def _block(group: str, shot: int | None, rows: Sequence[Row], study: StudyInfo) -> Block:
    by_cell: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_cell.setdefault((row["obj"], row["method"]), []).append(row)
    methods = in_order(study.methods, (row["method"] for row in rows))
    reference = study.reference if study.reference in methods else methods[0]
    return Block(group, shot, in_order(study.objects, (row["obj"] for row in rows)), methods, reference, by_cell)


def is_in(row: Row, view: View) -> bool:
    """Whether a row's figures belong to a view."""
    return row["selected"] == view.selected and (row["main"] if view.branch == MAIN else row["branch"] == view.branch)


def cells_of(block: Block, view: View) -> dict[tuple[str, str], Cell]:
    """A cell for every object and method, those without figures too."""
    return {
        (obj, method): _cell(block.rows.get((obj, method), ()), view)
        for obj in block.objects
        for method in block.methods
    }


def _cell(rows: Sequence[Row], view: View) -> Cell:
    values = {row["seed"]: percent(row, view.metric) for row in rows if row["selected"] and is_in(row, view)}
    values = {seed: value for seed, value in sorted(values.items()) if value is not None}
    if values:
        return Cell(values)
    states = {row["state"] for row in rows}
    return Cell({}, next((words for state, words in STATES.items() if state in states), "n/a" if rows else "-"))


def means_of(block: Block, cells: Mapping[tuple[str, str], Cell]) -> tuple[tuple[str, ...], dict[str, Cell]]:
    """The objects that all columns with figures have, and by method the mean over them, seed by seed.

    A seed that one of these objects lacks is left out of the method's mean.
    """
    columns = [method for method in block.methods if any(cells[obj, method].values for obj in block.objects)]
    common = tuple(obj for obj in block.objects if columns and all(cells[obj, method].values for method in columns))
    return common, {method: _mean([cells[obj, method] for obj in common]) for method in block.methods}


def _mean(cells: Sequence[Cell]) -> Cell:
    seeds = set.intersection(*(set(cell.values) for cell in cells)) if cells else set()
    values = {seed: fsum(cell.values[seed] for cell in cells) / len(cells) for seed in sorted(seeds)}
    return Cell(values, "" if values else "-")


def differences_of(
    block: Block, cells: Mapping[tuple[str, str], Cell], means: Mapping[str, Cell]
) -> dict[tuple[str, str], Difference]:
    """By object (MEAN for that over objects) and method: the method less the block's reference."""
    pairs = {}
    for method in block.methods:
        if method != block.reference:
            for obj in block.objects:
                pairs[obj, method] = _paired(cells[obj, method], cells[obj, block.reference])
            pairs[MEAN, method] = _paired(means[method], means[block.reference])
    return compared({key: values for key, values in pairs.items() if values})


def _paired(ours: Cell, theirs: Cell) -> list[float]:
    return [ours.values[seed] - theirs.values[seed] for seed in ours.values if seed in theirs.values]


def compared(differences: Mapping[tuple[str, str], Sequence[float]]) -> dict[tuple[str, str], Difference]:
    """The test of every key's differences, not empty; Holm over the keys of one second part, MEAN left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for count in {len(values) for values in differences.values()}:
        keys = [key for key, values in differences.items() if len(values) == count]
        tested = paired(np.array([differences[key] for key in keys]))
        columns = (tested.mean, tested.low, tested.high, tested.p)
        found |= {key: list(map(float, numbers)) for key, *numbers in zip(keys, *columns, strict=True)}
    adjusted = {key: of[3] for key, of in found.items() if key[0] == MEAN}
    for method in dict.fromkeys(method for _, method in found):
        family = [key for key in found if key[1] == method and key[0] != MEAN]
        adjusted |= zip(family, holm(np.array([found[key][3] for key in family])).tolist(), strict=True)
    return {
        key: Difference(len(differences[key]), *found[key][:3], _known(found[key][3]), _known(adjusted[key]))
        for key in differences
    }


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def ranks(values: Mapping[str, float], digits: int = 1) -> dict[str, int]:
    """1 for the largest and 2 for the second of what is printed, ties alike, of at least two methods; else nothing."""
    shown = {name: round(value, digits) for name, value in values.items()}
    best = sorted(set(shown.values()), reverse=True)[:2]
    return {name: best.index(value) + 1 for name, value in shown.items() if value in best} if len(shown) > 1 else {}

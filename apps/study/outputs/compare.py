"""Two sets of runs against each other, seed by seed: what `study.py compare A B` prints."""

from collections.abc import Sequence
from math import isfinite

from apps.study.outputs.rows import AUROC, MAIN, Row, in_order, percent, shot_words
from apps.study.outputs.statistics import LEVEL, TEST
from apps.study.outputs.summary import MEAN, Difference, View, compared, is_in
from apps.study.outputs.tables import metric_words
from runtime.errors import InputError

Column = tuple[str, str, int | None]  # group, method, shots
Seeds = dict[str, dict[int, float]]  # by object and seed, in percent


def compare(a: Sequence[Row], b: Sequence[Row], names: tuple[str, str]) -> list[str]:
    """Lines: by metric (image and pixel AUROC) and method the differences a - b, per object and their mean.

    Of the main branch at the last epoch. Methods of one name, group and number of shots are held against each other;
    where each side has one method only, these two, by shots. Raises InputError where nothing fits together.
    """
    lines = [f"{names[0]} less {names[1]}, in points: {TEST} over seeds, main branch, last epoch"]
    for metric in AUROC:
        ours, theirs = _by_column(a, metric), _by_column(b, metric)
        for title, first, second in _partners(ours, theirs):
            lines += _lines(f"{metric_words(metric)}, {title}", ours[first], theirs[second])
    if len(lines) == 1:
        raise InputError(
            f"{names[0]} and {names[1]} have no method, object and seed in common with figures of its last epoch; "
            "name two that do, or wait for their runs"
        )
    return [*lines, f"* different at the level {LEVEL:g}, after Holm's correction over the objects"]


def _by_column(rows: Sequence[Row], metric: str) -> dict[Column, Seeds]:
    found: dict[Column, Seeds] = {}
    for row in rows:
        value = percent(row, metric)
        if value is not None and is_in(row, View(metric)):
            column = (row["group"], row["method"], row["shot"])
            found.setdefault(column, {}).setdefault(row["obj"], {})[row["seed"]] = value
    return found


def _partners(ours: dict[Column, Seeds], theirs: dict[Column, Seeds]) -> list[tuple[str, Column, Column]]:
    """What is held against what, with a title."""
    if len({column[:2] for column in ours}) == len({column[:2] for column in theirs}) == 1:
        by_shot = {column[2]: column for column in theirs}
        pairs = [(column, by_shot[column[2]]) for column in ours if column[2] in by_shot]
    else:
        pairs = [(column, column) for column in ours if column in theirs]
    return [(_title(first, second), first, second) for first, second in pairs]


def _title(first: Column, second: Column) -> str:
    methods = first[1] if first[1] == second[1] else f"{first[1]} less {second[1]}"
    groups = "" if first[0] == MAIN else f" ({first[0]})"
    return f"{methods}{groups}, {shot_words(first[2])}"


def _lines(title: str, ours: Seeds, theirs: Seeds) -> list[str]:
    """A title and a line for every object that both have, and for their mean; nothing where they share none."""
    pairs = {
        obj: {seed: ours[obj][seed] - theirs[obj][seed] for seed in ours[obj] if seed in theirs[obj]}
        for obj in in_order(ours, ours)
        if obj in theirs
    }
    pairs = {obj: found for obj, found in pairs.items() if found}
    if not pairs:
        return []
    if len(pairs) > 1:
        seeds = set.intersection(*map(set, pairs.values()))
        means = {seed: sum(found[seed] for found in pairs.values()) / len(pairs) for seed in sorted(seeds)}
        pairs |= {MEAN: means} if means else {}
    tested = compared({(obj, ""): list(found.values()) for obj, found in pairs.items()})
    wide = max(map(len, pairs))
    return ["", title, *(f"  {obj:<{wide}}  {_words(found)}" for (obj, _), found in tested.items())]


def _words(found: Difference) -> str:
    start = f"{found.mean:+7.2f}"
    end = f"{found.pairs} pair{'s' if found.pairs > 1 else ''}"
    if found.p is None:
        return f"{start}  no test can be made, {end}"
    interval = f"[{found.low:+.2f}, {found.high:+.2f}]" if isfinite(found.low) else "[too few pairs]"
    sure = " *" if found.adjusted is not None and found.adjusted <= LEVEL else ""
    return f"{start}  95 % {interval}  p {found.p:.4f}  Holm {found.adjusted:.4f}  {end}{sure}"

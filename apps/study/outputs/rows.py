"""What a study's outputs are made of: its description, and a row for every run, branch and selection."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report.tables import COLUMNS

Row = Mapping[str, Any]
METRICS = tuple(name for name, (group, _) in COLUMNS.items() if group in ("image", "pixel"))
AUROC = ("image_auroc", "pixel_auroc")
SELECTION = "published selection"  # the group of runs on the support that the published figures are of
MAIN = "main"  # the group of the study's own table, and the branch that stands for a run
SELECTIONS = ("last", "best")
STATES = {"failed": "failed", "missing data": "no data", "waiting": "waiting"}  # what a cell without figures says


@dataclass(frozen=True)
class StudyInfo:
    """What is said of a study as a whole.

    methods: column labels in order. reference: the label that the others are compared with. objects: in the order of
    their rows. shots: K, None for zero-shot. command: what was typed. notes: sentences that the page shows first.
    """

    name: str
    title: str
    command: str
    methods: tuple[str, ...]
    reference: str
    objects: tuple[str, ...]
    shots: tuple[int | None, ...]
    seeds: tuple[int, ...]
    demo: bool = False
    notes: tuple[str, ...] = ()


def percent(row: Row, metric: str) -> float | None:
    """A figure in percent, None where it is not defined."""
    value = row.get(metric)
    return 100 * value if value is not None and math.isfinite(value) else None


def in_order(first: Iterable[Any], found: Iterable[Any]) -> tuple[Any, ...]:
    """What was found, in the order of `first`; what is not in it comes after, in the order in which it was found."""
    found = dict.fromkeys(found)
    return tuple(dict.fromkeys([name for name in first if name in found] + list(found)))


def shot_words(shot: int | None) -> str:
    """In words: 4-shot, zero-shot."""
    return "zero-shot" if shot is None else f"{shot}-shot"


def said(rows: Sequence[Row], name: str) -> str:
    """All values of a column, as a sentence has them."""
    return ", ".join(sorted({str(row[name]) for row in rows if row.get(name) is not None}))


def machines(rows: Sequence[Row]) -> str:
    """On what the finished runs ran, and with which code."""
    done = [row for row in rows if row["state"] == "finished"]
    if not done:
        return "no run is finished"
    seconds = {row["job"]: row.get("seconds") or 0.0 for row in done}
    named = {"cpu": "", "device": "device ", "threads": "threads a run ", "torch": "torch ", "commit": "commit "}
    parts = [words + said(done, name) for name, words in named.items() if said(done, name)]
    return "; ".join([*parts, f"{sum(seconds.values()) / 60:,.0f} minutes of runs"])

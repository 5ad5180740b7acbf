"""Studies that were made: their folders below the results, and what is done with them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apps.study.journal import Journal
from apps.study.outputs.files import PARQUET, write_outputs
from apps.study.outputs.rows import StudyInfo
from apps.study.plan import AGAIN, FEW, Cell, Plan
from apps.study.rows import rows_of
from report.tables import COLUMNS
from runtime.errors import InputError
from runtime.files import atomic_write

STUDIES, ABOUT = "studies", "study.json"  # folder below the results; what each study's folder says of it
LEADERBOARD = Path("docs/leaderboard.md")


def write_study(
    plan: Plan, folder: Path, command: str, demo: bool, journal: Journal, cells: Sequence[Cell]
) -> list[dict[str, Any]]:
    """Write all that comes out of a study as far as it is; gives its rows."""
    rows = rows_of(journal, cells)
    few = any(column.script in (FEW, AGAIN) for column in plan.columns)
    shots = [shot for column in plan.columns if column.script == FEW for shot in column.shots or plan.shots]
    zero = [None] * any(column.script not in (FEW, AGAIN) for column in plan.columns)
    info = StudyInfo(
        name=plan.name,
        title=plan.title,
        command=command,
        methods=tuple(dict.fromkeys(column.label for column in plan.columns)),
        reference=plan.reference or plan.columns[0].label,
        objects=tuple(dict.fromkeys(cell.run.spec.obj for cell in cells)),
        shots=(*sorted(set(shots)),) * few + (*zero,),
        seeds=plan.seeds,
        demo=demo,
        notes=plan.notes,
    )
    write_outputs(folder, info, rows)
    states: dict[str, set[tuple]] = {}
    for row in rows:
        states.setdefault(row["state"], set()).add(
            tuple(row[name] for name in ("group", "method", "obj", "shot", "seed"))
        )
    about = {"title": plan.title, "command": command, "cells": {name: len(found) for name, found in states.items()}}
    with atomic_write(folder / ABOUT) as draft:
        draft.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return rows


def list_studies(results_path: Path) -> list[str]:
    """A line a study, by name: how far it is and what it is."""
    lines = []
    for path in sorted((results_path / STUDIES).glob(f"*/{ABOUT}")):
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            how_far = ", ".join(f"{int(count)} {name}" for name, count in about["cells"].items())
            lines.append(f"{path.parent.name}: {about['title']} ({how_far} results); {about['command']}")
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            lines.append(f"{path.parent.name}: {path} is damaged; run the study again")
    return lines or [f"no studies in {results_path / STUDIES}"]


def read_rows(results_path: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a study that was made. InputError where there is none, or its file is damaged."""
    path = results_path / STUDIES / name / PARQUET
    if not path.is_file():
        raise InputError(f"no study {name} in {results_path / STUDIES}; python study.py list shows those there are")
    try:
        import pandas as pd
        from pyarrow import ArrowException
    except ImportError as fault:
        raise InputError(f"{path} needs pyarrow: pip install -r requirements/study.txt") from fault
    try:
        rows = pd.read_parquet(path).to_dict("records")
    except (OSError, ValueError, ArrowException) as fault:
        raise InputError(f"{path} is damaged; run the study again") from fault
    rows = [{key: None if _is_missing(value) else value for key, value in row.items()} for row in rows]
    for row in rows:
        if not {"method", "obj", "seed", "shot", "group", "main", "selected", "state"} <= row.keys() or not all(
            row.get(metric) is None or 0 <= row[metric] <= 1 for metric in COLUMNS
        ):
            raise InputError(f"{path} is not what a study writes; run the study again")
    return rows


def _is_missing(value: object) -> bool:
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))


def compare_stored(results_path: Path, names: Sequence[str]) -> list[str]:
    """Two studies seed by seed, in words."""
    if len(names) != 2:
        raise InputError("compare takes two studies, or two prompt sets or files: python study.py compare A B")
    one, other = names
    return compare(read_rows(results_path, one), read_rows(results_path, other), (one, other))


def write_leaderboard(results_path: Path, names: Sequence[str], place: Path = LEADERBOARD) -> Path:
    """Write the leaderboard from a study and from published numbers; gives its place."""
    if len(names) != 1:
        raise InputError("leaderboard takes the name of one study: python study.py leaderboard paper-demo")
    rows = read_rows(results_path, names[0])
    with atomic_write(place) as draft:
        draft.write_text(leaderboard(rows, names[0]), encoding="utf-8")
    return place

"""A study's rows: one a run, branch and selection, read from the folders of its runs."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apps.study.journal import Journal, State, read_record, state_of
from apps.study.outputs.maps import FILE as MAPS
from apps.study.plan import ZERO, Cell
from engine.run_folder import about
from report.tables import COLUMNS
from scoring.patch_scores import BRANCHES

MACHINE = ("cpu", "device", "threads", "torch", "commit")


def rows_of(journal: Journal, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Every cell's rows; a run that gave nothing has one, which says why."""
    states = {run: state_of(journal, run) for run in dict.fromkeys(cell.run for cell in cells)}
    return [row for cell in cells for row in _cell_rows(journal, cell, states[cell.run])]


def _cell_rows(journal: Journal, cell: Cell, state: State) -> Iterator[dict[str, Any]]:
    row = _head(cell, state)
    if state.folder is None:
        yield row | dict.fromkeys(("job", "branch", "selected", "epoch", *COLUMNS, "folder", "maps"))
        return
    record = read_record(state.folder)
    machine = record.get("environment", {})
    row |= {name: record.get(name) for name in ("seconds", "peak_memory_mb")}
    row |= {name: machine.get(name) for name in MACHINE}
    row["job"] = str(about(state.folder).get("key", ""))[:8]
    row["folder"] = Path(os.path.relpath(state.folder, journal.folder)).as_posix()
    row["maps"] = f"{row['folder']}/{MAPS}" if (state.folder / MAPS).is_file() else None
    for result in record["results"]:
        branches = result["branches"]
        chosen = cell.column.branch or next(name for name in reversed(BRANCHES) if name in branches)
        for branch, figures in branches.items():
            found = {name: figures.get(name) for name in COLUMNS}
            place = {"branch": branch, "main": branch == chosen}
            yield row | place | {"selected": result["selected"], "epoch": result["epoch"]} | found


def _head(cell: Cell, state: State) -> dict[str, Any]:
    """What is known of a run before it is made: its place in the tables, its settings, and how far it is."""
    run, column = cell.run, cell.column
    settings = run.spec.plain()
    again = {"trained_with": run.spec.prompts, "prompts": run.scored_with or run.spec.prompts}
    place = {"group": column.group, "method": column.label, "script": run.script, "scored_by": settings.get("method")}
    shot = {"shot": None if run.script == ZERO else run.spec.shot}
    return {**settings, **again, **place, **shot, "main": True, "state": state.name, "reason": state.reason}

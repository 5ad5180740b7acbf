"""Studies that were made: their folders below the results, and what is done with them."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apps.study.journal import Journal
from apps.study.outputs.compare import compare
from apps.study.outputs.files import PAGE, PARQUET, write_outputs
from apps.study.outputs.leaderboard import leaderboard
from apps.study.outputs.rows import StudyInfo
from apps.study.outputs.study_page import page_of
from apps.study.outputs.tables import markdown
from apps.study.plan import ZERO, Cell, Plan
from apps.study.rows import rows_of
from report.tables import COLUMNS
from runtime.errors import InputError
from runtime.files import atomic_write

STUDIES, ABOUT = "studies", "study.json"  # folder below the results; what each study's folder says of it
LEADERBOARD = Path("docs/leaderboard.md")


def info_of(plan: Plan, command: str, demo: bool, cells: Sequence[Cell]) -> StudyInfo:
    """What the outputs say of a study as a whole."""
    shots = {cell.run.spec.shot for cell in cells if cell.run.script != ZERO}
    zero_shot = (None,) if any(cell.run.script == ZERO for cell in cells) else ()
    return StudyInfo(
        name=plan.name,
        title=plan.title,
        command=command,
        methods=tuple(dict.fromkeys(column.label for column in plan.columns)),
        reference=plan.reference or plan.columns[0].label,
        objects=tuple(dict.fromkeys(cell.run.spec.obj for cell in cells)),
        shots=(*sorted(shots), *zero_shot),
        seeds=plan.seeds,
        demo=demo,
        notes=plan.notes,
    )


def write_study(folder: Path, info: StudyInfo, journal: Journal, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Write all that comes out of a study as far as it is; gives its rows."""
    rows = rows_of(journal, cells)
    write_outputs(folder, info, rows)
    with atomic_write(folder / ABOUT) as draft:
        draft.write_text(json.dumps(asdict(info), indent=1) + "\n", encoding="utf-8")
    return rows


def list_studies(results_path: Path) -> list[str]:
    """A line a study, by name: what it is and how it was asked for."""
    lines = []
    for path in sorted((results_path / STUDIES).glob(f"*/{ABOUT}")):
        try:
            info = read_info(path)
            lines.append(f"{info.name}: {info.title}; {info.command}; {path.with_name(PAGE)}")
        except InputError as fault:
            lines.append(f"{path.parent.name}: {fault}")
    return lines or [f"no studies in {results_path / STUDIES}"]


def read_info(path: Path) -> StudyInfo:
    """A study's description. InputError for a file that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        made = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
        info = StudyInfo(**made)
        texts = (info.name, info.title, info.command, info.reference, *info.methods, *info.objects, *info.notes)
        if not all(isinstance(text, str) for text in texts) or not isinstance(info.demo, bool):
            raise TypeError("not texts")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as fault:
        raise InputError(f"{path} is damaged; run the study again") from fault
    return info


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


def publish(results_path: Path, names: Sequence[str]) -> list[Path]:
    """Write a study's page, without links to runs, and its tables into a folder, to be handed on; gives the files."""
    if len(names) != 2:
        raise InputError("publish takes a study and a folder: python study.py publish paper-demo docs/studies")
    name, place = names[0], Path(names[1])
    rows, info = read_rows(results_path, name), read_info(results_path / STUDIES / name / ABOUT)
    alone = [{**row, "folder": None} for row in rows]
    texts = {".html": page_of(results_path / STUDIES / name, info, alone), ".md": markdown(rows, info)}
    for suffix, text in texts.items():
        with atomic_write(place / f"{name}{suffix}") as draft:
            draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return [place / f"{name}{suffix}" for suffix in texts]


def compare_columns(rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[str]:
    """The columns of one study, each against the first, seed by seed, in words."""
    first, *others = methods
    of = {method: [row for row in rows if row["method"] == method] for method in methods}
    return [line for other in others for line in compare(of[other], of[first], (other, first))]


def write_leaderboard(results_path: Path, names: Sequence[str], place: Path = LEADERBOARD) -> Path:
    """Write the leaderboard from a demo study and from published numbers; gives its place."""
    if len(names) != 1:
        raise InputError("leaderboard takes the name of one study: python study.py leaderboard paper-demo")
    rows, info = read_rows(results_path, names[0]), read_info(results_path / STUDIES / names[0] / ABOUT)
    if not info.demo:
        raise InputError(
            f"{names[0]} is no study on the demo, whose figures stand in {place}; name one made with --demo"
        )
    with atomic_write(place) as draft:
        draft.write_text(leaderboard(rows, info), encoding="utf-8")
    return place

"""The files of a study's folder."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.study.outputs import study_page
from apps.study.outputs.rows import Row, StudyInfo
from apps.study.outputs.tables import latex, markdown
from runtime.errors import InputError
from runtime.files import atomic_write, no_formula

PARQUET, CSV, MARKDOWN, LATEX, PAGE = "runs.parquet", "runs.csv", "table.md", "table.tex", "study.html"


def write_outputs(folder: Path, study: StudyInfo, rows: Sequence[Row]) -> None:
    """Write runs.parquet, runs.csv, table.md, table.tex and study.html into the folder, each whole or not at all.

    Raises InputError where pyarrow is missing, before anything is written.
    """
    frame = _frame(rows)
    texts = {MARKDOWN: markdown(rows, study), LATEX: latex(rows, study), PAGE: study_page.page_of(folder, study, rows)}
    with atomic_write(folder / PARQUET) as draft:
        frame.to_parquet(draft, index=False, engine="pyarrow")
    with atomic_write(folder / CSV) as draft:
        frame.map(no_formula).to_csv(draft, index=False, errors="backslashreplace")
    for name, text in texts.items():
        with atomic_write(folder / name) as draft:
            draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def _frame(rows: Sequence[Row]) -> Any:
    """The rows as a table of pandas; lists as words, and a column of numbers and words as words."""
    try:
        import pyarrow  # noqa: F401 (what pandas writes Parquet with)
    except ImportError as fault:
        raise InputError(
            "runs.parquet needs pyarrow, which is missing: pip install -r requirements/study.txt"
        ) from fault
    import pandas as pd  # 30 MB that are only needed here

    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(plain, columns=list(dict.fromkeys(name for row in plain for name in row)))
    return frame.apply(lambda column: _of_one_kind(column, [row.get(column.name) for row in plain]))


def _of_one_kind(column: Any, values: Sequence[Any]) -> Any:
    """Whole numbers stay whole beside empty cells; what is numbers here and words there is words."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return column.astype("Int64")
    if kinds == {bool}:
        return column.astype("boolean")
    if len(kinds) > 1 and not kinds <= {int, float}:
        return column.map(lambda value: None if value is None or value != value else str(value)).astype("string")
    return column


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):  # a file's name that is no Unicode can be written nowhere
        return value.encode("utf-8", "backslashreplace").decode()
    return value

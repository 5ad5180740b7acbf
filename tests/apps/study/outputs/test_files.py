"""The files of a study's folder: the same rows in both tables, whole or not at all."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers import study_rows

from apps.study.outputs.files import CSV, LATEX, MARKDOWN, PAGE, PARQUET, write_outputs
from apps.study.outputs.rows import METRICS
from runtime.errors import InputError

NAMES = {CSV, LATEX, MARKDOWN, PAGE, PARQUET}


def rows() -> list[dict]:
    """Runs with settings of all kinds, one failed, and a method that spreadsheets take for a formula."""
    made = [
        *study_rows.rows(methods=("MADFF", "=cmd()")),
        study_rows.failed("Liver", "MADFF", 9, reason="@no \udcff memory"),
    ]
    for place, row in enumerate(made):
        row |= {"mixed": [1, "all", None][place % 3], "on": place % 2 == 0, "bank_cap": [None, 5][place % 2]}
    return made


def test_all_files_are_there_and_nothing_else(tmp_path):
    write_outputs(tmp_path / "made_up", study_rows.study(), rows())
    assert {path.name for path in (tmp_path / "made_up").iterdir()} == NAMES


def test_both_tables_hold_every_row_and_figure(tmp_path):
    made = rows()
    write_outputs(tmp_path, study_rows.study(), made)
    parquet, csv = pd.read_parquet(tmp_path / PARQUET), pd.read_csv(tmp_path / CSV)
    assert list(parquet.columns) == list(csv.columns) == list(made[0]) and len(parquet) == len(csv) == len(made)
    for metric in METRICS:
        expected = [row[metric] for row in made]
        for table in (parquet, csv):
            assert [None if pd.isna(value) else value for value in table[metric]] == pytest.approx(expected)
    assert set(parquet["features_list"]) == set(csv["features_list"]) == {"6 12 18 24"}
    assert str(parquet["bank_cap"].dtype) == "Int64" and parquet["bank_cap"].dropna().unique().tolist() == [5]
    assert parquet["mixed"].dropna().unique().tolist() == ["1", "all"] and parquet["on"].tolist()[:2] == [True, False]
    assert parquet["state"].tolist() == csv["state"].tolist() == [row["state"] for row in made]


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    write_outputs(tmp_path, study_rows.study(), rows())
    csv = pd.read_csv(tmp_path / CSV)
    assert set(csv["method"]) == {"MADFF", "'=cmd()"} and csv["reason"].iloc[-1] == "'@no \\udcff memory"
    assert set(pd.read_parquet(tmp_path / PARQUET)["method"]) == {"MADFF", "=cmd()"}


def test_without_pyarrow_one_line_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pyarrow.*pip install -r requirements/study\.txt"):
        write_outputs(tmp_path, study_rows.study(), rows())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_outputs(tmp_path, study_rows.study(), rows())
    old = (tmp_path / CSV).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="No space"):
        write_outputs(tmp_path, study_rows.study(), rows()[:10])
    assert (tmp_path / CSV).read_bytes() == old and {path.name for path in tmp_path.iterdir()} == NAMES


@pytest.mark.parametrize("made", [[], [study_rows.failed("Brain", "MADFF", 111, state="waiting")]])
def test_a_study_that_has_just_begun_is_written_too(tmp_path: Path, made: list[dict]):
    write_outputs(tmp_path, study_rows.study(), made)
    assert {path.name for path in tmp_path.iterdir()} == NAMES and len(pd.read_parquet(tmp_path / PARQUET)) == len(made)

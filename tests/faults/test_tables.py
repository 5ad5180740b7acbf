"""Every bad input of the tables is refused with one line that names its cause; nothing is written."""

import random

import pytest
from helpers.lab import Lab

from faults.trying import Case, Taken, judge, tables, take, take_apart, trained_lab

TABLES = tables()
CASES = [(table, case) for table, found in TABLES.items() for case in found]
APART = random.Random(0).sample(CASES, 20)
USUAL = (
    "test_few",
    "test_zero",
    "predict",
    "predict bare",
    "prompt rank",
    "prompt show",
    "dataset.check",
    "engine.runs",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return trained_lab(tmp_path_factory.mktemp("faults"))


def test_tables_are_large_and_every_case_has_its_own_name():
    assert len(CASES) >= 600
    assert [name for name, found in TABLES.items() if len({case.name for case in found}) < len(found)] == []


@pytest.mark.parametrize("part", range(40))
def test_is_refused_with_one_line(part, lab):
    wrong = {
        f"{table}: {case.name}": taken
        for table, case in CASES[part::40]
        if (taken := take(case, lab)).kind != "refused"
    }
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for _, case in APART], ids=[case.name for _, case in APART])
def test_is_refused_by_a_process_of_its_own(case, lab):
    assert take_apart(case, lab).kind == "refused", take_apart(case, lab)


@pytest.mark.parametrize("script", USUAL)
def test_usual_flags_are_no_fault(script, lab):
    """So it is the case's own flag or damage that is refused."""
    assert take(Case(script, script, ()), lab).kind == "silent"


def test_what_is_no_clear_line_is_seen():
    line = "error: x.png can't be read"
    assert judge(2, [line], ["x.png"], []) == Taken("refused", line)
    assert judge(0, [], [], []).kind == "silent"
    assert judge("hang", [], [], []).kind == "hang"
    assert judge("traceback", [line], [], []).kind == "traceback"
    for code, lines, words, written in (
        (1, [line], [], []),
        (2, [], [], []),
        (2, [line, "warning: y"], [], []),
        (2, ["x.png can't be read"], [], []),
        (2, [line], ["y.png"], []),
        (2, [line], [], ["out/scores.csv"]),
    ):
        assert judge(code, lines, words, written).kind == "unclear"

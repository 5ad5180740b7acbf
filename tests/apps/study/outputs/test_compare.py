"""Two sets of runs against each other."""

import re

import pytest
from helpers import study_rows

from apps.study.outputs.compare import compare
from runtime.errors import InputError


def of(rows: list[dict], method: str) -> list[dict]:
    return [row for row in rows if row["method"] == method]


def test_two_methods_are_held_against_each_other_by_object_and_seed():
    rows = study_rows.rows()
    lines = compare(of(rows, "MADFF"), of(rows, "memory bank"), ("A", "B"))
    assert lines[0].startswith("A less B") and "image AUROC, MADFF less memory bank, 4-shot" in lines
    brain = next(line for line in lines if line.startswith("  Brain"))
    pairs = [
        100 * (row["image_auroc"] - other["image_auroc"])
        for row, other in zip(of(rows, "MADFF"), of(rows, "memory bank"), strict=True)
        if row["main"] and row["obj"] == "Brain"
    ]
    assert f"{sum(pairs) / 5:+7.2f}" in brain and brain.endswith("5 pairs *")
    low, high = map(float, re.search(r"\[(.*), (.*)\]", brain).groups())
    assert low < sum(pairs) / 5 < high
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [
        *("Brain", "Liver", "Chest", "mean"),
        *("Brain", "Liver", "mean"),  # Chest has no masks
    ]


def test_turned_round_the_signs_turn():
    rows = study_rows.rows(objects=("Brain",))
    there, back = (compare(of(rows, a), of(rows, b), (a, b)) for a, b in (("MADFF", "MVFA"), ("MVFA", "MADFF")))
    first, second = (next(line for line in lines if line.startswith("  Brain")) for lines in (there, back))
    assert first.split()[1] == second.split()[1].replace("-", "+") and "-" in second


def test_studies_are_compared_by_methods_of_one_name():
    a, b = study_rows.rows(shots=(4, 8)), study_rows.rows(shots=(8,), seeds=(111, 222, 999))
    lines = compare(a, b, ("A", "B"))
    assert [line for line in lines if line.startswith("image")] == [
        f"image AUROC, {method}, 8-shot" for method in study_rows.METHODS
    ]
    assert all("2 pairs" in line and "p 1.0000" in line for line in lines if line.startswith("  "))


def test_one_pair_makes_no_test_and_few_no_interval():
    rows = study_rows.rows(objects=("Brain",))
    one = compare(of(rows, "MADFF"), [row for row in of(rows, "MVFA") if row["seed"] == 111], ("A", "B"))
    assert "no test can be made, 1 pair" in one[3] and "*" not in one[3]
    few = compare(of(rows, "MADFF"), [row for row in of(rows, "MVFA") if row["seed"] < 400], ("A", "B"))
    assert "too few pairs" in few[3]


@pytest.mark.parametrize(
    "other", [study_rows.rows(seeds=(1,)), study_rows.rows(shots=(2,)), [study_rows.failed("Brain", "MVFA", 111)], []]
)
def test_nothing_in_common_is_one_line(other):
    with pytest.raises(InputError, match="in common"):
        compare(study_rows.rows(), other, ("A", "B"))

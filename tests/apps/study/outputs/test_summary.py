"""Cells, means over objects, blocks and ranks of a study's rows."""

import statistics

import pytest
from helpers import study_rows

from apps.study.outputs.rows import machines
from apps.study.outputs.summary import (
    MEAN,
    Cell,
    View,
    blocks_of,
    cells_of,
    compared,
    differences_of,
    means_of,
    ranks,
)


def by_hand(rows: list[dict], obj: str, method: str, **wanted: object) -> list[float]:
    wanted = {"branch": "fused", "selected": "last"} | wanted
    return [
        100 * row["image_auroc"]
        for row in rows
        if (row["obj"], row["method"]) == (obj, method) and wanted.items() <= row.items()
    ]


def test_a_cell_is_mean_and_sample_deviation_over_seeds():
    rows = study_rows.rows(selections=("last", "best"))
    (block,) = blocks_of(rows, study_rows.study())
    for view, wanted in ((View(), {}), (View(branch="zero", selected="best"), {"branch": "zero", "selected": "best"})):
        cell = cells_of(block, view)["Liver", "MVFA"]
        expected = by_hand(rows, "Liver", "MVFA", **wanted)
        assert len(expected) == 5
        assert cell.mean == pytest.approx(statistics.mean(expected))
        assert cell.deviation == pytest.approx(statistics.stdev(expected))


def test_columns_and_rows_keep_the_studys_order_and_what_it_does_not_name_comes_last():
    rows = study_rows.rows(objects=("Chest", "own", "Brain"), methods=("new", "MVFA", "MADFF"))
    (block,) = blocks_of(rows, study_rows.study())
    assert block.objects == ("Brain", "Chest", "own") and block.methods == ("MADFF", "MVFA", "new")


def test_groups_and_shots_are_tables_of_their_own():
    rows = study_rows.rows(methods=("base", "all"), group="prompts") + study_rows.rows(shots=(None, 8, 4))
    blocks = blocks_of(rows, study_rows.study(shots=(4, 8, None)))
    assert [block.title for block in blocks] == ["4-shot", "8-shot", "zero-shot", "prompts, 4-shot"]
    assert [block.reference for block in blocks] == ["MVFA"] * 3 + ["base"]
    assert all(set(block.methods) == {"base", "all"} for block in blocks[3:])


@pytest.mark.parametrize(
    ("state", "words"), [("failed", "failed"), ("missing data", "no data"), ("waiting", "waiting")]
)
def test_cells_without_figures_say_why(state, words):
    rows = [*study_rows.rows(objects=("Brain",)), study_rows.failed("Liver", "MADFF", 111, state=state)]
    (block,) = blocks_of(rows, study_rows.study())
    cells = cells_of(block, View())
    assert cells["Liver", "MADFF"] == Cell({}, words) and cells["Liver", "MVFA"] == Cell({}, "-")
    assert cells_of(block, View(selected="best"))["Brain", "MADFF"] == Cell({}, "n/a")


def test_the_mean_is_over_common_objects_seed_by_seed():
    rows = study_rows.rows()
    rows = [row for row in rows if (row["obj"], row["method"]) != ("Chest", "MVFA")]
    rows = [row for row in rows if (row["obj"], row["method"], row["seed"]) != ("Liver", "MADFF", 333)]
    (block,) = blocks_of(rows, study_rows.study())
    cells = cells_of(block, View())
    common, means = means_of(block, cells)
    assert common == ("Brain", "Liver")
    assert list(means["MADFF"].values) == [111, 222, 444, 555] and len(means["MVFA"].values) == 5
    liver, brain = (cells[obj, "MADFF"].values[444] for obj in ("Liver", "Brain"))
    assert means["MADFF"].values[444] == pytest.approx((liver + brain) / 2)


def test_a_method_that_failed_everywhere_does_not_take_the_mean_from_the_others():
    rows = [row for row in study_rows.rows() if row["method"] != "memory bank"]
    rows += [study_rows.failed(obj, "memory bank", 111) for obj in study_rows.OBJECTS]
    (block,) = blocks_of(rows, study_rows.study())
    common, means = means_of(block, cells_of(block, View()))
    assert common == study_rows.OBJECTS and means["memory bank"].values == {} and len(means["MADFF"].values) == 5


def test_differences_are_of_the_seeds_that_both_have():
    rows = [row for row in study_rows.rows() if (row["method"], row["seed"]) != ("MADFF", 222)]
    (block,) = blocks_of(rows, study_rows.study())
    cells = cells_of(block, View())
    found = differences_of(block, cells, means_of(block, cells)[1])
    assert {method for _, method in found} == {"MADFF", "memory bank"} and found["Brain", "MADFF"].pairs == 4
    pairs = [
        cells["Brain", "memory bank"].values[seed] - cells["Brain", "MVFA"].values[seed] for seed in study_rows.SEEDS
    ]
    worse = found["Brain", "memory bank"]
    assert worse.mean == pytest.approx(statistics.mean(pairs)) and worse.low < worse.mean < worse.high < 0
    assert worse.adjusted == pytest.approx(3 * worse.p) and found[MEAN, "memory bank"].adjusted < 0.05


def test_holm_goes_over_the_objects_of_one_method_alone():
    sure, unsure = [1.0, 1.1, 0.9, 1.05, 0.95], [0.5, -0.4, 0.1, -0.2, 0.3]
    found = compared({("a", "x"): sure, ("b", "x"): unsure, ("a", "y"): sure, (MEAN, "x"): sure})
    assert found["a", "x"].adjusted == pytest.approx(2 * found["a", "y"].adjusted)
    assert found[MEAN, "x"].adjusted == found[MEAN, "x"].p == found["a", "y"].p
    assert compared({("a", "x"): [0.1]})["a", "x"].p is None


def test_ranks_go_by_what_is_printed():
    assert ranks({"a": 90.01, "b": 90.04, "c": 89.0, "d": 88.0}) == {"a": 1, "b": 1, "c": 2}
    assert ranks({"a": 90.0}) == {} and ranks({}) == {}


def test_machines_are_those_of_finished_runs():
    rows = [*study_rows.rows(), study_rows.failed("Brain", "MVFA", 111)]
    assert "Intel Xeon; device cpu; threads a run 1; torch 2.14.1; commit 0123456789abcdef" in machines(rows)
    assert machines(rows[-1:]) == "no run is finished"

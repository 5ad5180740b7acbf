"""Plans: which runs a table needs, what they share, what is refused before anything runs."""

import pytest

from apps.study import plans
from apps.study.plan import AGAIN, FEW, ZERO, Column, Plan, cells_of, restricted, runs_of, units_of
from dataset.demo import OBJECTS
from runtime.errors import InputError


def plan(*columns: Column, **changes: object) -> Plan:
    known = {"name": "made", "title": "", "columns": columns, "objects": ("Brain", "Chest"), "seeds": (1, 2)}
    return Plan(**known | changes)


def test_every_column_object_shot_and_seed_is_a_cell():
    made = plan(Column("a"), Column("b", {"adapter": "mvfa"}), shots=(2, 4))
    cells = cells_of(made)
    assert len(cells) == 2 * 2 * 2 * 2
    assert {(cell.run.spec.adapter, cell.column.label) for cell in cells} == {("madff", "a"), ("mvfa", "b")}
    assert {cell.run.spec.shot for cell in cells} == {cell.run.spec.abnormal_shot for cell in cells} == {2, 4}


def test_columns_that_need_the_same_run_share_it():
    made = plan(Column("all"), Column("few alone", branch="few"), Column("x", group="other"))
    assert len(cells_of(made)) == 12 and len(runs_of(cells_of(made))) == 4


def test_scoring_under_other_prompts_needs_the_training_first():
    made = plan(Column("own", {"prompts": "base"}), Column("llm", {"prompts": "base"}, scored_with="llm"))
    runs = runs_of(cells_of(made))
    again = [run for run in runs if run.script == AGAIN]
    assert len(runs) == 8 and len(again) == 4
    for run in again:
        assert runs.index(run.trained_by) < runs.index(run) and run.trained_by.script == FEW
        assert "llm" in run.words and run.spec.prompts == "base"
    same = plan(Column("own", {"prompts": "base"}, scored_with="base"))
    assert {run.script for run in runs_of(cells_of(same))} == {FEW}


def test_a_unit_is_an_object_and_a_draw_with_every_method():
    made = plan(Column("a"), Column("b", {"adapter": "mvfa"}), Column("c", {"prompts": "base"}, scored_with="llm"))
    units = units_of(runs_of(cells_of(made)))
    assert [len(unit) for unit in units] == [4] * 4
    for unit in units:
        assert len({(run.spec.obj, run.spec.seed) for run in unit}) == 1
        assert all(run.trained_by is None or run.trained_by in unit for run in unit)
    other = plan(Column("a"), Column("larger", {"img_size": 336}))
    assert len(units_of(runs_of(cells_of(other)))) == 8


def test_transfer_takes_what_it_knows_of_the_settings():
    made = plan(Column("zero", script=ZERO), settings={"epoch": 3, "bank_cap": "100", "iterate": -1})
    runs = runs_of(cells_of(made))
    assert {run.script for run in runs} == {ZERO} and {run.spec.epoch for run in runs} == {3}
    assert "zero-shot" in runs[0].words


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"columns": (Column("a"), Column("a"))}, "two columns of the table main are called a"),
        ({"objects": ()}, "its objects are none"),
        ({"seeds": (1, 1)}, "its seeds are not all different"),
    ],
)
def test_plans_that_contradict_themselves_are_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        plan(Column("b"), **wrong)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"epohc": 3}, "column b: no setting epohc; did you mean epoch"),
        ({"epoch": -3}, "column b: --epoch -3"),
        ({"method": "linear", "adapter": "mvfa"}, "--adapter means nothing for --method linear"),
    ],
)
def test_settings_are_checked_when_specs_are_made(settings, says):
    with pytest.raises(InputError, match=says):
        cells_of(plan(Column("b", settings)))


def test_a_plan_for_some_objects_and_for_the_demo():
    made = plan(Column("a"), Column("b", objects=("Liver",)), objects=("Brain", "Liver", "btad/01"))
    some = restricted(made, ["Brain"], demo=False)
    assert some.objects == ("Brain",) and [column.label for column in some.columns] == ["a"]
    assert restricted(made, ["btad"], demo=False).objects == ("btad/01", "btad/02", "btad/03")
    demo = restricted(made, None, demo=True)
    assert demo.objects == ("Brain", "Liver") and demo.settings["demo"]
    with pytest.raises(InputError, match="none of its objects is in the demo"):
        restricted(made, ["btad"], demo=True)


def test_the_papers_study_has_every_object_and_method():
    made = plans.paper(demo=False)
    assert len(made.objects) == 6 + 15 + 6 + 3
    main = [column.label for column in made.columns if column.group == "main"]
    assert main == ["MADFF", "MVFA", "memory bank", "PatchCore", "WinCLIP", "linear"]
    runs = runs_of(cells_of(made))
    assert len(runs) == 5 * (30 * 6 + 6 * 2)
    assert {run.spec.eval_every for run in runs} == {0}  # nothing is chosen on a test set
    assert plans.paper(demo=True).objects == tuple(OBJECTS)


def test_the_ablation_has_every_part():
    made = plans.ablation(demo=True, prompts=["mine.json"])
    groups = {group: [one for one in made.columns if one.group == group] for group in {c.group for c in made.columns}}
    assert {name: len(of) for name, of in groups.items()} == {
        "attention branches": 8,
        "taps": 8,
        "adapters": 5,
        "branches": 6,
        "prompts": 4 * 4 + 4,
    }
    swapped = {(one.settings["prompts"], one.scored_with) for one in groups["prompts"] if one.scored_with}
    assert len(swapped) == 16 and ("mine.json", "llm") in swapped
    assert all(any(one.label == "MADFF" for one in of) for name, of in groups.items() if name != "prompts")
    assert {one.settings["madff"] for one in groups["attention branches"] if one.label != "MADFF"} >= {(), ("fab",)}


def test_the_reproduction_has_both_tables_and_the_skin_objects():
    made = plans.reproduction(demo=False)
    runs = runs_of(cells_of(made))
    skin = {run.spec.shot for run in runs if run.spec.obj.startswith("Skin") and run.script == FEW}
    assert skin == set(plans.SKIN_SHOTS) and {run.script for run in runs} == {FEW, ZERO}
    assert {one.group for one in made.columns} == {"main", "skin"}  # published figures stand beside main tables alone
    assert all(run.spec.iterate == 0 and run.spec.eval_every is None for run in runs if run.script == FEW)


def test_names_of_no_study():
    with pytest.raises(InputError, match="no study papper"):
        plans.named("papper", False, [])

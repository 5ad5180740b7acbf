"""Studies of one's own in YAML: what they say, and what is refused with one line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.study.own import read_plan
from apps.study.plan import cells_of, runs_of
from runtime.errors import InputError


def read(tmp_path: Path, text: str):
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return read_plan(file)


def test_prompt_a_against_prompt_b_is_two_lines(tmp_path):
    made = read(tmp_path, "objects: [Brain]\ncolumns: {A: {prompts: a.json}, B: {prompts: b.json}}")
    assert made.name == made.title == "mine" and made.reference == "A" and len(made.seeds) == 5
    assert {run.spec.prompts for run in runs_of(cells_of(made))} == {"a.json", "b.json"}


def test_a_grid_crosses_its_values_beside_the_columns(tmp_path):
    made = read(
        tmp_path,
        "title: Mine\nobjects: [Brain, mvtec/bottle]\nshots: [2, 4]\nseeds: [7]\nsettings: {epoch: 3}\n"
        "columns: {bank: {adapter: none, branch: few, group: untrained}}\nreference: bank\nnotes: [a note]\n"
        "grid: {adapter: [madff, mvfa], features_list: [[6, 12], [24]]}\n",
    )
    labels = [column.label for column in made.columns]
    assert labels == ["bank", *(f"adapter {a}, features_list {t}" for a in ("madff", "mvfa") for t in ("6 12", "24"))]
    assert (made.columns[0].branch, made.columns[0].group) == ("few", "untrained")
    runs = runs_of(cells_of(made))
    assert len(runs) == 5 * 2 * 2 and {run.spec.epoch for run in runs} == {3}
    assert {run.spec.features_list for run in runs} == {None, (6, 12), (24,)}


WRONG = {
    "": "it is no mapping",
    "columns: {a: {}}\nobjcts: [Brain]": "no key objcts; a study has title, objects",
    "objects: [Brain]": "neither columns nor a grid",
    "columns: [a]": "columns is no mapping",
    "columns: {a: 3}": "column a is no mapping",
    "columns: {a: {epohc: 2}}": "no setting epohc; did you mean epoch",
    "columns: {a: {seed: 2}}": "seed is no setting of a column: say it by seeds",
    "columns: {a: {demo: true}}": "demo is no setting of a column: say it by --demo",
    "columns: {a: {}}\nsettings: {results_path: x}": "results_path is no setting",
    "columns: {a: {}, b: {}, a: {adapter: mvfa}}": "a is there twice in line 1",
    "columns:\n  a: {epoch: 1, epoch: 2}": "epoch is there twice in line 2",
    "columns: {a: {script: rm}}": "its script rm is none of train_few, train_zero",
    "columns: {a: {branch: all}}": "its branch all is none of zero, few, fused",
    "columns: {a: {}}\nobjects: Brain": "objects is no list",
    "columns: {a: {}}\nobjects: [[Brain]]": "objects: .* is no line of text",
    "columns: {a: {}}\nseeds: [1.5]": "seeds: 1.5 is no whole number",
    "columns: {a: {}}\nseeds: [true]": "seeds: True is no whole number",
    "columns: {a: {}}\nreference: b": "the reference b is none of its columns",
    "columns: {a: {}\nb": r"is no YAML in line \d+",
    "columns: !!python/object/apply:os.system [ls]": "is no YAML",
    "grid: {adapter: madff}": "grid adapter is no list",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_wrong_files_are_refused_by_name(tmp_path, text):
    with pytest.raises(InputError, match=WRONG[text]) as fault:
        read(tmp_path, text)
    assert "mine.yaml" in str(fault.value) and "\n" not in str(fault.value)


def test_what_columns_have_in_common_may_be_said_once(tmp_path):
    made = read(tmp_path, "columns: {a: &all {epoch: 2}, b: {<<: *all, adapter: mvfa}, c: {<<: *all, epoch: 3}}")
    assert [column.settings["epoch"] for column in made.columns] == [2, 2, 3]


def test_a_family_stands_for_its_classes(tmp_path):
    made = read(tmp_path, "objects: [Brain, btad]\ncolumns: {a: {}}")
    assert made.objects == ("Brain", "btad/01", "btad/02", "btad/03")


def test_transfer_is_not_scored_with_other_prompts(tmp_path):
    made = read(tmp_path, "columns: {a: {script: train_zero, scored_with: llm}}")
    with pytest.raises(InputError, match="column a: scored_with is for train_few"):
        cells_of(made)


def test_shots_of_a_column_are_its_own(tmp_path):
    made = read(tmp_path, "shots: [2, 4]\ncolumns: {a: {}, b: {shot: 8}}\nseeds: [1]")
    assert [(cell.column.label, cell.run.spec.shot) for cell in cells_of(made)] == [("a", 2), ("a", 4), ("b", 8)]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"no study .*none\.yaml"):
        read_plan(tmp_path / "none.yaml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["title", "objects", "shots", "seeds", "settings", "columns", "grid", "reference", "notes"])


@settings(deadline=None)
@given(st.dictionaries(KEYS, PLAIN, max_size=5))
def test_whatever_a_file_holds_it_is_a_plan_or_one_line(tmp_path_factory, content):
    import yaml

    file = tmp_path_factory.mktemp("own") / "any.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        cells_of(read_plan(file))
    except InputError as fault:
        assert "\n" not in str(fault)

"""The result table, the lines that people grep, the written files, and the published numbers."""

import json
import math
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataset.registry import FAMILIES
from report.published import CLIPMPCAD, MVFA_AD, PATCHCORE, published
from report.tables import COLUMNS, DEMO_NOTE, Result, grep_lines, group_of, mean_of, table, write_results
from runtime.environment import commit, environment


def metrics(value: float, masks: bool = True) -> dict[str, float]:
    return {name: value if masks or not name.startswith("pixel") else math.nan for name in COLUMNS}


def result(obj: str = "Brain", value: float = 0.5, selected: str = "last", epoch: int = 50, **kind) -> Result:
    branches = {"zero": metrics(value - 0.1, **kind), "few": metrics(value - 0.2, **kind)}
    return Result(obj, epoch, selected, branches | {"fused": metrics(value, **kind)})


def rows_of(text: str, label: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip().startswith(label)]


@pytest.mark.parametrize("shot", ["zero", 4])
@pytest.mark.parametrize("source", [0, 1])
@pytest.mark.parametrize("metric", ["image_auroc", "pixel_auroc"])
def test_published_averages_are_those_of_the_objects(shot, source, metric):
    objects = MVFA_AD[shot]
    assert set(objects) == {*PATCHCORE, "medical"}
    values = [row[metric][source] for name, row in objects.items() if name != "medical" and metric in row]
    assert len(values) == (6 if metric == "image_auroc" else 3)
    assert objects["medical"][metric][source] == pytest.approx(np.mean(values), abs=0.011)


def test_published_by_object_and_shot():
    brain = published("Brain", 4)
    assert brain["MVFA-AD 4-shot, paper"] == {"image_auroc": 92.44, "pixel_auroc": 97.3}
    assert brain["MVFA-AD 4-shot, rerun"] == {"image_auroc": 92.31, "pixel_auroc": 97.3}
    assert brain["PatchCore, full-shot"] == {"image_auroc": 91.55, "pixel_auroc": 96.97}
    assert published("Chest", "zero")["MVFA-AD zero-shot, paper"] == {"image_auroc": 71.11}
    assert list(published("Brain", 16)) == ["PatchCore, full-shot"]
    assert CLIPMPCAD["medical"] in published("medical", 4).values()
    assert CLIPMPCAD["medical"] not in published("medical", "zero").values()
    assert list(published("mvtec", 4).values()) == [CLIPMPCAD["industrial"]]
    assert published("Solar", 4) == published("mvtec/bottle", 4) == published("visa", 4) == {}


def test_grep_lines_are_rounded_as_python_prints():
    found = Result("Brain", 50, "last", {"fused": metrics(0.0) | {"image_auroc": 0.92441, "pixel_auroc": 0.97299}})
    assert grep_lines(found) == ["Brain pAUC : 0.973", "Brain AUC : 0.9244"]
    numpy = Result("Brain", 50, "last", {"fused": {"image_auroc": np.float64(0.92441), "pixel_auroc": np.float32(0.5)}})
    assert grep_lines(numpy) == ["Brain pAUC : 0.5", "Brain AUC : 0.9244"]


def test_grep_lines_take_the_fusion_or_what_there_is():
    both = result(value=0.9)
    assert grep_lines(both) == ["Brain pAUC : 0.9", "Brain AUC : 0.9"]
    zero = Result("Brain", 50, "last", {"zero": metrics(0.7)})
    assert grep_lines(zero) == ["Brain pAUC : 0.7", "Brain AUC : 0.7"]
    assert grep_lines(result("Chest", 0.9, masks=False)) == ["Chest AUC : 0.9"]
    assert grep_lines(Result("Chest", 50, "last", {"few": {"image_auroc": math.nan}})) == []


def test_table_has_a_block_for_each_selection():
    text = table([result(value=0.91234), result(value=0.95, selected="best", epoch=17)], 4)
    last, best = text.split("\n\n")
    assert last.startswith("Brain, last epoch: chosen before seeing the test set (epoch 50)\n")
    assert best.startswith("Brain, best epoch 17: SELECTED ON THE TEST SET, as published\n")
    for block in (last, best):
        assert [line.split()[0] for line in block.splitlines()[3:6]] == ["zero", "few", "fused"]
        assert rows_of(block, "MVFA-AD 4-shot, paper")[0].split("|")[1].split() == ["92.44"]
        assert rows_of(block, "MVFA-AD 4-shot, paper")[0].split("|")[2].split() == ["97.30"]
    assert [part.split() for part in rows_of(last, "fused")[0].split("|")[1:]] == [["91.23"] * n for n in (3, 4, 2, 2)]
    assert last.splitlines()[-2:] == ["Brain pAUC : 0.9123", "Brain AUC : 0.9123"]
    assert best.splitlines()[-2:] == ["Brain pAUC : 0.95", "Brain AUC : 0.95"]


def test_table_columns_stand_under_their_headings():
    lines = table([result(value=1.0)], 4).splitlines()
    bars = [[at for at, sign in enumerate(line) if sign == "|"] for line in lines if "|" in line]
    assert len(bars[0]) == 4 and all(row == bars[0] for row in bars)
    headings = [name for part in lines[2].split("|") for name in part.split()]
    assert headings == [heading for _, heading in COLUMNS.values()]


def test_missing_values_are_printed_as_such():
    text = table([result("Chest", 0.9, masks=False)])
    assert rows_of(text, "fused")[0].split("|")[2].split() == ["n/a"] * 4
    assert "nan" not in text
    assert "published" not in text
    assert "n/a" in table([Result("Brain", 50, "last", {"few": {"image_auroc": 0.9}})])


def test_demo_runs_say_so_and_show_nothing_published():
    text = table([result()], 4, demo=True)
    assert text.splitlines()[-1] == DEMO_NOTE == "demo data: generated pictures; says nothing about medical images"
    assert "MVFA" not in text and "PatchCore" not in text
    assert DEMO_NOTE not in table([result()], 4)


def test_several_classes_have_a_row_each_and_a_mean():
    classes = FAMILIES["mvtec"]
    text = table([result(name, 0.5 + 0.01 * index) for index, name in enumerate(classes)], 4)
    assert text.startswith("15 objects, last epoch: chosen before seeing the test set (epoch 50)")
    assert len(rows_of(text, "fused")) == 16
    assert rows_of(text, "fused  mean")[0].split("|")[1].split() == ["57.00"] * 3
    assert rows_of(text, "mvtec: ClipMPCAD")[0].split("|")[1].split() == ["93.11"]
    assert "mvtec/bottle AUC : 0.5\n" in text
    assert text.splitlines()[-2:] == ["mvtec pAUC : 0.57", "mvtec AUC : 0.57"]


def test_part_of_a_set_is_not_compared_with_the_published_average():
    text = table([result("mvtec/bottle"), result("mvtec/cable", epoch=3)], 4)
    assert "ClipMPCAD" not in text
    assert "(epoch of each object)" in text
    assert text.splitlines()[-1] == "mean AUC : 0.5"


def test_groups():
    assert group_of(PATCHCORE) == "medical"
    assert group_of([*PATCHCORE, "Solar"]) == group_of(["Brain", "Liver"]) == "mean"
    assert group_of(FAMILIES["visa"]) == "visa"
    three = [name for family in ("btad", "mvtec", "mpdd") for name in FAMILIES[family]]
    assert group_of(three) == "industrial"


def test_mean_is_over_objects_that_have_the_metric_and_says_so():
    parts = [result("Brain", 0.9), result("Chest", 0.5, masks=False, epoch=9)]
    mean = mean_of(parts)
    assert mean.epoch is None
    assert mean.branches["fused"]["image_auroc"] == pytest.approx(0.7)
    assert mean.branches["fused"]["pixel_auroc"] == 0.9
    assert math.isnan(mean_of([parts[1]]).branches["fused"]["pixel_auroc"])
    assert "(pixel means: over the 1 of 2 objects that have them)" in table(parts)
    assert "means: over" not in table([parts[0], result("Liver", 0.8)])


def test_results_are_written_whole(tmp_path):
    @dataclass
    class Part:
        names: tuple[str, ...]

    found = [result("Brain", 0.123456789012345), result("Chest", 0.5, masks=False)]
    found.append(result("Brain", 0.6, "best", 17))
    record = {"results": found, "options": {"shot": np.int64(4), "path": Path("a") / "b"}, "seed": 111}
    record |= {
        "support": Part(("x.png",)),
        "kinds": {"b", "a"},
        "scale": np.float32([0.5, np.inf]),
        "none": None,
    }
    write_results(tmp_path / "run", record)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["results.csv", "results.json"]

    read = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)
    assert read["results"][0] == {
        "obj": "Brain",
        "epoch": 50,
        "selected": "last",
        "branches": {branch: dict(row) for branch, row in found[0].branches.items()},
    }
    assert read["results"][1]["branches"]["few"]["pixel_aupro"] is None
    assert read["options"] == {"shot": 4, "path": str(Path("a") / "b")}
    assert read["support"] == {"names": ["x.png"]}
    assert (read["kinds"], read["scale"], read["none"]) == (["a", "b"], [0.5, None], None)
    assert [mean["selected"] for mean in read["means"]] == ["last"]

    frame = pd.read_csv(tmp_path / "run" / "results.csv")
    assert list(frame.columns[:5]) == ["obj", "shot", "selected", "epoch", "branch"] and set(frame["shot"]) == {4}
    assert list(frame.obj) == ["Brain"] * 3 + ["Chest"] * 3 + ["Brain"] * 3 + ["mean"] * 3
    assert frame.image_auroc[2] == 0.123456789012345
    assert math.isnan(frame.pixel_ap[3])


def test_a_name_is_no_formula(tmp_path):
    write_results(tmp_path, {"results": [result("=1+1"), result("Brain")]})
    assert set(pd.read_csv(tmp_path / "results.csv").obj) == {"'=1+1", "Brain", "mean"}


def test_results_that_cannot_be_written_leave_the_old_ones(tmp_path):
    write_results(tmp_path, {"results": [result()]})
    before = (tmp_path / "results.json").read_text()
    with pytest.raises(TypeError):
        write_results(tmp_path, {"results": [result()], "mixed": {1, "a"}})
    assert (tmp_path / "results.json").read_text() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_environment_names_what_ran():
    found = environment("cpu")
    assert found["numpy"] == np.__version__
    assert {"torch", "torchvision", "scipy", "safetensors", "pillow", "opencv", "python"} <= set(found)
    assert found["device"] == "cpu" and found["cpu"] and found["platform"]
    assert json.dumps(found)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_of_a_checkout_and_of_none(tmp_path):
    assert commit(tmp_path) is None

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    git("init")
    assert commit(tmp_path) is None
    (tmp_path / "code.py").write_text("1\n")
    (tmp_path / "inner").mkdir()
    git("add", "code.py")
    git("commit", "-m", "first")
    assert len(commit(tmp_path)) == 40
    assert commit(tmp_path / "inner") is None
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "table.md").write_text("1\n")
    git("add", ".")
    git("commit", "-m", "second")
    (tmp_path / "benchmarks" / "table.md").write_text("2\n")  # a benchmark's own output
    assert len(commit(tmp_path)) == 40
    (tmp_path / "code.py").write_text("2\n")
    assert commit(tmp_path).endswith(" and changes")


def test_no_git_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) is None
    assert environment()["commit"] is None

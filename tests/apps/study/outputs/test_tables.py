"""table.md and table.tex: figures, marks, published columns, and that names are names."""

import re

import pytest
from helpers import study_rows

from apps.study.outputs.tables import latex, markdown
from report.tables import DEMO_NOTE

HOSTILE = 'a|b <i> & "c" $x_1$ 50% #{~^\\} `d`\n*e*'


def section(text: str, title: str) -> list[list[str]]:
    """The rows of a Markdown table as cells."""
    (part,) = re.findall(rf"^#+ {re.escape(title)}\n\n(.*?)(?=\n\n|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return [re.split(r" (?<!\\)\| ", line[2:-2]) for line in part.splitlines() if not line.startswith("|---")]


def test_best_is_bold_and_second_underlined():
    rows = study_rows.rows()
    (*_, brain, liver, chest, mean) = section(markdown(rows, study_rows.study()), "image AUROC, 4-shot")
    for row in (brain, liver, chest, mean):
        assert re.fullmatch(r"\*\*\d\d\.\d ± \d\.\d\*\*", row[1]) and re.fullmatch(r"<u>\d\d\.\d ± \d\.\d</u>", row[2])
        assert re.fullmatch(r"\d\d\.\d ± \d\.\d", row[3])
    cells = [
        100 * row["image_auroc"] for row in rows if row["main"] and (row["obj"], row["method"]) == ("Brain", "MADFF")
    ]
    assert brain[1].startswith(f"**{sum(cells) / 5:.1f} ±")


def test_published_figures_stand_beside_with_how_they_came_about():
    text = markdown(study_rows.rows(), study_rows.study())
    head, brain, *_ = section(text, "image AUROC, 4-shot")
    assert head[4:] == ["MVFA-AD 4-shot, paper †", "MVFA-AD 4-shot, rerun †", "PatchCore, full-shot ‡"]
    assert brain[4:] == ["92.44", "92.31", "91.55"]
    assert "† published, epoch selected on the test set" in text and "‡ published, trained on all" in text
    six = study_rows.rows(objects=("Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology"))
    *_, mean = section(markdown(six, study_rows.study()), "image AUROC, 4-shot")
    assert mean[4:6] == ["88.97", "88.95"] and "90.78" in mean
    *_, few = section(text, "image AUROC, 4-shot")
    assert few[0] == "mean" and few[4:] == [""] * 3  # nobody published a mean over these three


@pytest.mark.parametrize("changes", [{"demo": True}, {}])
def test_demo_data_stands_beside_nothing_published(changes):
    rows, study = study_rows.rows(), study_rows.study(**changes)
    for text in (markdown(rows, study), latex(rows, study)):
        assert ("published" in text) == (not study.demo) and (DEMO_NOTE in text) == study.demo


def test_ablations_have_no_published_columns():
    text = markdown(study_rows.rows(group="prompts"), study_rows.study())
    assert "published" not in text and "image AUROC, prompts, 4-shot" in text


def test_missing_seeds_and_failed_cells_are_told():
    rows = [row for row in study_rows.rows() if (row["obj"], row["method"], row["seed"]) != ("Brain", "MADFF", 333)]
    rows = [row for row in rows if (row["obj"], row["method"]) != ("Liver", "MVFA")]
    rows += [study_rows.failed("Brain", "MADFF", 333), study_rows.failed("Liver", "MVFA", 111)]
    rows += [study_rows.failed("Skin", "MVFA", 111, state="missing data")]
    text = markdown(rows, study_rows.study())
    _, brain, liver, _, skin, mean = section(text, "image AUROC, 4-shot")
    assert brain[1].endswith("** (4)") and liver[2] == "failed" and skin[1:4] == ["-", "no data", "-"]
    assert mean[0] == "mean" and "mean: over the 2 of 4 objects that all columns have" in text
    assert "}$^{(4)}$ &" in latex(rows, study_rows.study())


def test_one_seed_has_no_deviation_and_one_object_no_mean():
    rows, study = study_rows.rows(objects=("Brain",), seeds=(111,)), study_rows.study(seeds=(111,))
    text = markdown(rows, study)
    assert "one run a cell, of seed 111" in text and "| mean |" not in text
    assert "±" not in "".join(section(text, "image AUROC, 4-shot")[1])


def test_nothing_is_ranked_where_one_method_stands_alone():
    text = markdown(study_rows.rows(methods=("MADFF",)), study_rows.study())
    assert "**9" not in text and "<u>" not in text


def test_other_metrics_are_in_markdown_alone():
    rows, study = study_rows.rows(), study_rows.study()
    for metric in ("image AP", "image F1-max", "pixel AUPRO"):
        assert f"## {metric}, 4-shot" in markdown(rows, study) and metric not in latex(rows, study)


def test_the_caption_says_how_and_on_what():
    for text in (markdown(study_rows.rows(), study_rows.study()), latex(study_rows.rows(), study_rows.study())):
        for words in (
            "111, 222, 333, 444, 555",
            "last epoch, which no test set chooses",
            "Intel Xeon",
            "0123456789abcdef",
        ):
            assert words in text
        assert "threads a run 1" in text and "python study.py" in text


def test_a_study_without_a_figure_has_tables_that_say_so():
    rows = [study_rows.failed("Brain", method, 111) for method in study_rows.METHODS]
    text = markdown(rows, study_rows.study())
    assert section(text, "image AUROC, 4-shot")[1][1:4] == ["failed"] * 3 and "no run is finished" in text
    assert latex(rows, study_rows.study()).count(r"\begin{table}") == 1


def balanced(text: str) -> bool:
    depth = 0
    for sign in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.parametrize("name", ["plain", HOSTILE])
def test_latex_is_balanced_and_has_as_many_cells_as_columns(name):
    rows = study_rows.rows(objects=("Brain", f"own {name}"), methods=("MADFF", f"m {name}"), shots=(4, None))
    text = latex(rows, study_rows.study(title=name, shots=(4, None), notes=(name,)))
    assert balanced(text) and text.count(r"\begin{") == text.count(r"\end{")
    tables = re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL)
    assert len(tables) == 4
    for columns, body in tables:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(lines) == 4 and {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(columns)}
    bare = re.sub(r"\\[&%$#_{}]|\$\\pm\$|\$\^\{\(\d\)\}\$", "", text.partition("\n")[2])
    assert not re.search(r"[%$#_~^]", bare)


def test_markdown_rows_have_one_number_of_cells_whatever_names_hold():
    rows = study_rows.rows(objects=("Brain", HOSTILE), methods=("MADFF", HOSTILE))
    text = markdown(rows, study_rows.study(title=HOSTILE))
    counts = {
        len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|") and "---" not in line
    }
    assert len(counts) <= 2 and "<i>" not in text.replace(r"\<i\>", "")

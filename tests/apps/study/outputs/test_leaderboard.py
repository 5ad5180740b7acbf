"""The leaderboard: protocols apart, caveats in place, figures as the record has them."""

import json
import re

import pytest
from helpers import study_rows

from apps.study.outputs.leaderboard import FIGURES, SELECTIONS, leaderboard
from report.published import CLIPMPCAD, MVFA_AD
from report.tables import DEMO_NOTE

PAGE = leaderboard(study_rows.rows(), study_rows.study(demo=True))
SETTINGS = json.loads(FIGURES.read_text(encoding="utf-8"))


def test_every_protocol_is_a_table_of_its_own():
    published = PAGE.partition("## Demo study")[0]
    titles = re.findall(r"^### (.*)$", published, flags=re.MULTILINE)
    assert len(titles) == len(set(titles)) == sum(len({row["selection"] for row in one["rows"]}) for one in SETTINGS)
    for part in published.split("### ")[1:]:
        selection = next(name for name, words in SELECTIONS.items() if part.partition("\n")[0].endswith(words))
        methods = [line.split(" | ")[0].strip("| ‡") for line in part.splitlines()[4:] if line.startswith("|")]
        chosen = {row["method"]: row["selection"] for one in SETTINGS for row in one["rows"] if one["title"] in part}
        assert methods and all(chosen[method] == selection for method in methods)


def test_no_row_is_lost_and_second_hand_is_marked():
    for setting in SETTINGS:
        for row in setting["rows"]:
            name = f"| {row['method']} ‡ |" if row["second_hand"] else f"| {row['method']} |"
            lines = [line for line in PAGE.splitlines() if line.startswith(name)]
            figures = [f"{value:.{digits}f}" for value in row["figures"].values() for digits in (1, 2)]
            assert any(sum(f"| {figure} |" in line for figure in figures) == len(row["figures"]) for line in lines)


def test_it_says_of_this_method_what_the_tables_of_runs_say():
    rows = {row["method"]: row["figures"] for row in SETTINGS[0]["rows"]}
    assert rows["MVFA-AD, paper"]["Brain"] == MVFA_AD[4]["Brain"]["image_auroc"][0]
    assert rows["ClipMPCAD, claimed"]["mean"] == CLIPMPCAD["medical"]["image_auroc"]


def test_the_demo_part_begins_with_its_caveat_and_has_no_published_figure():
    demo = PAGE.partition("## Demo study\n\n")[2]
    assert demo.startswith(f"**{DEMO_NOTE}**") and "92.44" not in demo and "| Brain | **" in demo
    with pytest.raises(ValueError, match="demo"):
        leaderboard(study_rows.rows(), study_rows.study())

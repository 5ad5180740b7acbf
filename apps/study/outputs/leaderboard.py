"""docs/leaderboard.md: published figures, a table for every protocol, and what the demo study gave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apps.study.outputs.rows import AUROC, MAIN, Row, StudyInfo
from apps.study.outputs.tables import caption, md_lines, tables_of, words_of
from report import published
from report.tables import DEMO_NOTE

FIGURES = Path(published.__file__).with_name("leaderboard.json")
SELECTIONS = {  # how a row's epoch was chosen -> the table that it stands in
    "test": "epoch chosen on the test set",
    "none": "nothing chosen, fixed in advance",
    "unknown": "how the epoch was chosen is not known",
}
MEANS = {"mean": "mean", "pixel_mean": "pixel AUROC, mean"}
SECOND_HAND = "‡"

ABOUT = f"""# Leaderboard

Written by study.py. Two parts that must not be read together: what others published, and what this code gives on
generated pictures.

## Published

AUROC in percent, as printed in the papers or read in their repositories; none of it was run here. A table holds one
protocol: figures of two tables are not comparable, and within one only as far as the trunk is the same. Rows are in no
order of rank. {SECOND_HAND}: read in another paper's table, not in the method's own. An empty cell: not published, or
not read. An epoch chosen on the test set flatters: [study.md](study.md#what-comes-out).
"""


def leaderboard(rows: Sequence[Row], study: StudyInfo) -> str:
    """The page's Markdown. rows, study: of the demo study; raises ValueError for another."""
    if not study.demo:
        raise ValueError("the leaderboard's own rows are those of a demo study")
    lines = [ABOUT]
    for setting in json.loads(FIGURES.read_text(encoding="utf-8")):
        lines += _setting(setting)
    return "\n".join([*lines, *_demo(rows, study)]) + "\n"


def _setting(setting: dict[str, Any]) -> list[str]:
    """One table for every way of choosing the epoch."""
    lines = []
    for selection, words in SELECTIONS.items():
        rows = [row for row in setting["rows"] if row["selection"] == selection]
        if rows:
            title = "; ".join(filter(None, (setting["title"], setting["images"], words)))
            lines += [f"### {title}", "", *_table(rows), ""]
    return lines


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    names.sort(key=lambda name: name in MEANS)
    heads = ["method", *(MEANS.get(name, name) for name in names), "trunk"]
    digits = max(len(str(value).partition(".")[2]) for row in rows for value in row["figures"].values())
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        mark = f" {SECOND_HAND}" if row["second_hand"] else ""
        figures = [f"{row['figures'][name]:.{digits}f}" if name in row["figures"] else "" for name in names]
        lines.append(f"| {words_of(row['method'])}{mark} | {' | '.join(figures)} | {row['trunk'] or 'not known'} |")
    return lines


def _demo(rows: Sequence[Row], study: StudyInfo) -> list[str]:
    """What the demo study gave, with its caveat before anything else."""
    lines = ["## Demo study", "", f"**{DEMO_NOTE}**", "", f"`{study.command}`: {words_of(caption(rows, study))}"]
    own = [row for row in rows if row["group"] == MAIN]
    for table in tables_of(own, study, AUROC):
        lines += ["", f"### {words_of(table.title)}", "", *md_lines(table)]
    return lines

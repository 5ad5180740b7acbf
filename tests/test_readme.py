"""What readme.md shows is what the benchmarks wrote, and what it names is there."""

import re
from pathlib import Path

import pytest
from helpers.lab import ROOT

README = (ROOT / "readme.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["demo_table.md", "speed.md"])
def test_tables_are_those_that_were_measured(name):
    measured = (ROOT / "benchmarks" / name).read_text(encoding="utf-8")
    rows = [line for line in measured.splitlines() if line.startswith("|")]
    assert rows and [row for row in rows if row not in README] == []


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_commands_name_files_that_are_there():
    scripts = set(re.findall(r"python (\w[\w/]*\.py)", README))
    modules = re.findall(r"python -m ((?:benchmarks|dataset|CLIP)\.\w+)", README)
    paths = [ROOT / name.replace(".", "/") for name in modules]
    assert {"train_few.py", "predict.py"} <= scripts and modules
    assert [name for name in sorted(scripts) if not Path(ROOT, name).is_file()] == []
    assert [path for path in paths if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file())] == []

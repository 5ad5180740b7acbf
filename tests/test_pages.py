"""readme.md, docs/ and data/readme.md: tables as measured, links that lead somewhere, commands that are understood."""

import argparse
import re
import runpy
import shlex
import sys
from unittest.mock import patch

import pytest
from helpers.lab import ROOT

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "readme.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "readme.md")
}
TABLES = {  # what a benchmark wrote -> the page that shows it
    "demo_table.md": "docs/results.md",
    "solar_table.md": "docs/results.md",
    "transfer_background.md": "docs/results.md",
    "speed_amd.md": "docs/speed.md",
    "speed_amd_avx2.md": "docs/speed.md",
    "speed_amx.md": "docs/speed.md",
    "exported.md": "docs/tools.md",
    "flops.md": "docs/gpu.md",
    "paired_tests.md": "docs/study.md",
    "sharing.md": "docs/study.md",
}
LONGEST = 10 * 1024  # bytes of the readme


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_that_were_measured(name):
    measured = (ROOT / "benchmarks" / name).read_text(encoding="utf-8")
    rows = [line for line in measured.splitlines() if line.startswith("|")]
    assert rows and [row for row in rows if row not in PAGES[TABLES[name]]] == []


def test_the_readmes_row_is_the_tables_mean():
    measured = (ROOT / "benchmarks" / "demo_table.md").read_text(encoding="utf-8")
    means = [line.removeprefix("| mean ") for line in measured.splitlines() if line.startswith("| mean ")]
    assert len(means) == 2 and all(
        f"| {level} {row}" in PAGES["readme.md"] for level, row in zip(("image", "pixel"), means, strict=True)
    )


def test_the_readme_is_short():
    assert len(PAGES["readme.md"].encode()) <= LONGEST


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []


BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every `python ...` of the pages: lines of code blocks, and words in backticks."""
    found = []
    for text in PAGES.values():
        lines = [
            line
            for kind, block in BLOCK.findall(text)
            if kind in ("", "bash")
            for line in block.replace("\\\n", " ").splitlines()
        ]
        lines += re.findall(r"`([^`\n]*python [^`\n]+)`", BLOCK.sub("", text))
        for line in lines:
            parts = [part.strip() for part in re.sub(r"\s#.*", "", line).split("&&")]
            found += [part for part in parts if re.match(r"python (\w[\w/]*\.py|-m (?!venv|pytest))", part)]
    return list(dict.fromkeys(found))


class Understood(BaseException):
    """Raised where a command has parsed its options, so that nothing is done."""


PARSE = argparse.ArgumentParser.parse_args


def parse_args(self: argparse.ArgumentParser, *given: object) -> argparse.Namespace:
    """As the parser's own; but for that of prompt.py, which hands the rest to its commands, that is the end."""
    parsed = PARSE(self, *given)
    if self.prog == "prompt.py":
        return parsed
    raise Understood


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command, monkeypatch, capsys):
    words = shlex.split(command)[1:]
    module = words[0] == "-m"
    name, flags = (words[1], words[2:]) if module else (words[0], words[1:])
    monkeypatch.setattr(sys, "argv", [name, *flags])
    if name.startswith("benchmarks."):  # some take no options, and would run
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file()
        return
    with (
        patch.object(argparse.ArgumentParser, "parse_args", parse_args),
        pytest.raises((Understood, SystemExit)) as end,
    ):
        if module:
            runpy.run_module(name, run_name="__main__")
        else:
            runpy.run_path(str(ROOT / name), run_name="__main__")
    if end.type is SystemExit:  # help, words in a text without what is required, or the two that parse late
        said = capsys.readouterr()
        required = end.value.code == 2 and "the following arguments are required" in said.err
        assert end.value.code == 0 or required, said.err


def test_there_are_commands_of_every_script():
    scripts = {command.split()[1] for command in commands()}
    assert {
        "train_few.py",
        "test_few.py",
        "train_zero.py",
        "test_zero.py",
        "predict.py",
        "app.py",
        "prompt.py",
    } <= scripts

"""Progress bars: on a terminal as tqdm draws them, in a log one line a minute."""

import ast
import io
import os
import pty
import subprocess
import sys

import pytest
from helpers.lab import ROOT

from runtime import bars
from runtime.bars import Bar, LogLines


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    told = Clock()
    monkeypatch.setattr(bars.time, "monotonic", told)
    monkeypatch.setattr("tqdm.std.time", told)
    monkeypatch.setattr(LogLines, "last", None)
    return told


def lines(log: io.StringIO) -> list[str]:
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()
    return log.getvalue().splitlines()


def test_a_log_gets_a_line_a_minute(clock):
    log = io.StringIO()
    for _ in Bar(range(100), desc="scoring", unit="file", leave=False, file=log):
        clock.now += 6.5  # 650 seconds in all
    found = lines(log)
    assert 9 <= len(found) <= 10 and all(line.startswith("scoring: ") and "/100 [" in line for line in found)


@pytest.mark.parametrize("leave", [False, True])
def test_what_is_quick_leaves_nothing(clock, leave):
    log = io.StringIO()
    for _ in range(10):
        for _ in Bar(range(3), desc="reading", leave=leave, file=log):
            clock.now += 5
    assert lines(log) == []


def test_what_stays_ends_with_its_last_line(clock):
    log = io.StringIO()
    for _ in Bar(range(30), desc="training", file=log):
        clock.now += 5
    assert [line.partition(" [")[0] for line in lines(log)][-1] == "training: 100% 30/30" and len(lines(log)) == 3


def test_bars_within_bars_share_the_minute(clock):
    log = io.StringIO()
    for _ in Bar(range(20), desc="outer", leave=False, file=log):
        for _ in Bar(range(5), desc="inner", leave=False, file=log):
            clock.now += 4  # 400 seconds in all
    assert 1 <= len(lines(log)) <= 7


def test_words_that_change_do_not_hurry_the_log(clock):
    log = io.StringIO()
    with Bar(total=50, desc="demo data", leave=False, file=log) as bar:
        for number in range(50):
            bar.set_postfix_str(f"object {number}")
            bar.update()
            clock.now += 2
    assert len(lines(log)) == 1


def test_a_terminal_gets_the_bar_itself():
    main, other = pty.openpty()
    code = "from runtime.bars import Bar\nfor _ in Bar(range(3), desc='reading', ncols=60, nrows=20): pass"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=other, check=True)
    os.close(other)
    drawn = os.read(main, 10_000).decode()
    assert "\r" in drawn and "reading: 100%|" in drawn


def test_all_bars_are_these():
    """No file beside this one takes tqdm's own."""
    folders = ("apps", "engine", "report", "scoring", "dataset", "runtime", "CLIP")
    found = [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("*.py"), *(file for name in folders for file in (ROOT / name).rglob("*.py"))]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "tqdm"
    ]
    assert found == ["runtime/bars.py"]

"""The layout: who may import whom, no circles, what stands at the top, how long scripts are (docs/tour.md)."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from helpers.lab import ROOT

SCRIPTS = ("train_few", "test_few", "train_zero", "test_zero", "predict", "study", "app")
FLOORS = (  # a floor uses those below it (further down), never those above
    SCRIPTS,
    ("apps",),
    ("engine",),
    ("report",),
    ("scoring",),
    ("dataset",),
    ("loss", "decoder", "madff", "CLIP", "prompt", "utils"),
    ("runtime",),
)
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
AT_THE_TOP = 30  # visible entries at most
SCRIPT_LINES = 60


def modules() -> dict[str, Path]:
    """The product's modules by their dotted names."""
    found = {}
    for name in LEVEL:
        folder = ROOT / name
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{name}.py"]:
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[dotted.removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The product's modules that a file imports, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            module = name if name in known else name.rpartition(".")[0]
            if module in known:
                yield module


@cache
def graph() -> dict[str, frozenset[str]]:
    known = modules()
    return {name: frozenset(imported(path, known)) - {name} for name, path in known.items()}


def test_every_floor_uses_those_below_it_alone():
    above = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if LEVEL[other.partition(".")[0]] < LEVEL[name.partition(".")[0]]
    ]
    assert graph() and above == []


def test_scripts_import_no_script():
    assert [name for name in SCRIPTS if graph()[name] & set(SCRIPTS)] == []


def test_there_are_no_circles():
    """Modules whose imports are all taken away, again and again: what is left is in a circle or leads to one."""
    left = {name: set(others) for name, others in graph().items()}
    while free := [name for name, others in left.items() if not others]:
        for name in free:
            del left[name]
        for others in left.values():
            others.difference_update(free)
    assert left == {}


def test_circles_and_floors_would_be_seen(tmp_path):
    """The reading of imports itself: plain, from, inside a function."""
    file = tmp_path / "x.py"
    file.write_text("import engine.run\nfrom report import tables\ndef f():\n    from scoring.maps import Scale\n")
    assert set(imported(file, modules())) == {"engine.run", "report.tables", "scoring.maps"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_short(script):
    assert len((ROOT / f"{script}.py").read_text(encoding="utf-8").splitlines()) < SCRIPT_LINES


def test_nothing_below_the_scripts_is_given_a_namespace():
    named = [
        name
        for name, path in modules().items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "Namespace"
    ]
    assert named == []


def test_few_entries_stand_at_the_top():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    entries = {line.partition("/")[0] for line in listed.splitlines()}
    visible = sorted(name for name in entries if not name.startswith("."))
    assert 20 < len(visible) <= AT_THE_TOP, visible

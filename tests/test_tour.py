"""docs/tour.md leads to what is there: every `file:name` is defined in that file."""

import ast
import re

from helpers.lab import ROOT

PAGE = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")


def defined(path: str) -> set[str]:
    """Functions, classes, their methods and constants of a file, by dotted names."""
    names = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def test_every_step_exists():
    steps = re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)
    assert len(steps) > 30
    assert [f"{path}:{name}" for path, name in steps if name not in defined(path)] == []

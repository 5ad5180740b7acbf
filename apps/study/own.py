"""A study of one's own from a YAML file."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from apps.study.plan import KINDS, MAIN, SEEDS, Column, Plan
from dataset import expand
from engine.spec import FewShotSpec
from runtime.errors import InputError, naming
from scoring.patch_scores import BRANCHES

KEYS = ("title", "objects", "shots", "seeds", "settings", "columns", "grid", "reference", "notes")
OWN = ("group", "script", "scored_with", "branch")  # of a column, beside settings of its spec
SAID_BY = {"obj": "objects", "seed": "seeds", "demo": "--demo", "results_path": "--results_path"}
INSTALL = "a study of your own in YAML needs PyYAML: pip install -r requirements/study.txt"


def read_plan(path: Path) -> Plan:
    """The plan in a YAML file (docs/study.md). InputError names what in it is not as it should be."""
    try:
        import yaml
    except ImportError as fault:
        raise InputError(INSTALL) from fault
    try:
        with naming(path):
            content = yaml.load(path.read_text(encoding="utf-8"), _strict(yaml.SafeLoader))
    except FileNotFoundError as fault:
        raise InputError(f"no study {path}; name paper, ablation, reproduction, or a file that is there") from fault
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as fault:
        where = getattr(fault, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise InputError(f"{path} is no YAML{line}; mend it (docs/study.md has examples)") from fault
    with naming(path):
        return _plan(path.stem, content)


def _strict(loader: type) -> type:
    """A loader of YAML that refuses what it would pass over in silence: a second column, say, of the same label."""

    class Strict(loader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            names = [key.value for key, _ in node.value if isinstance(key.value, str) and key.value != "<<"]
            twice = [name for number, name in enumerate(names) if name in names[:number]]
            if twice:
                raise InputError(f"{twice[0]} is there twice in line {node.start_mark.line + 1}; rename one")
            return super().construct_mapping(node, deep)

    return Strict


def _plan(name: str, content: object) -> Plan:
    told = _mapping(content, "it")
    for key in told:
        if key not in KEYS:
            raise InputError(f"no key {key}; a study has {', '.join(KEYS)}")
    columns = [
        _column(label, _mapping(of, f"column {label}"))
        for label, of in _mapping(told.get("columns", {}), "columns").items()
    ]
    columns += _grid(_mapping(told.get("grid", {}), "grid"), columns)
    if not columns:
        raise InputError("neither columns nor a grid: say what is to be compared")
    reference = told.get("reference", columns[0].label)
    if reference not in [column.label for column in columns]:
        raise InputError(f"the reference {reference} is none of its columns")
    return Plan(
        name,
        _text(told.get("title", name), "title"),
        tuple(columns),
        tuple(
            name for one in _list(told.get("objects", ["Brain"]), "objects") for name in expand(_text(one, "objects"))
        ),
        tuple(_whole(one, "shots") for one in _list(told.get("shots", [4]), "shots")),
        tuple(_whole(one, "seeds") for one in _list(told.get("seeds", list(SEEDS)), "seeds")),
        _settings(_mapping(told.get("settings", {}), "settings")),
        reference,
        tuple(_text(one, "notes") for one in _list(told.get("notes", []), "notes")),
    )


def _column(label: Any, told: Mapping[str, Any]) -> Column:
    own = {key: _text(told[key], key) for key in OWN if told.get(key) is not None}
    if own.get("script", "train_few") not in KINDS:
        raise InputError(f"column {label}: its script {own['script']} is none of {', '.join(KINDS)}")
    if own.get("branch", "zero") not in BRANCHES:
        raise InputError(f"column {label}: its branch {own['branch']} is none of {', '.join(BRANCHES)}")
    settings = {key: value for key, value in told.items() if key not in OWN}
    return Column(_text(label, "columns"), _settings(settings), **{"group": MAIN, **own})


def _grid(grid: Mapping[str, Any], columns: Sequence[Column]) -> list[Column]:
    """A column for every way to choose one value of each setting."""
    if not grid:
        return []
    values = [[(name, one) for one in _list(several, f"grid {name}")] for name, several in grid.items()]
    chosen = [dict(one) for one in product(*values)]
    return [Column(", ".join(f"{name} {_words(one)}" for name, one in of.items()), _settings(of)) for of in chosen]


def _settings(told: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by flags' names; values are checked when specs are made of them."""
    for name, place in SAID_BY.items():
        if name in told:
            raise InputError(f"{name} is no setting of a column: say it by {place}")
    known = {name for kind in KINDS.values() for name in kind.__dataclass_fields__}
    for name in told:
        if name not in known:
            FewShotSpec.refuse_unknown([name])
    return {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, (str, int, float)) for key in value):
        raise InputError(f"{what} is no mapping of names to values")
    return {str(key): one for key, one in value.items()}


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{what} is no list: write [one, two]")
    return value


def _text(value: object, what: str) -> str:
    if (
        not isinstance(value, (str, int, float))
        or isinstance(value, bool)
        or not str(value).strip()
        or "\n" in str(value)
    ):
        raise InputError(f"{what}: {value!r} is no line of text")
    return str(value)


def _whole(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{what}: {value!r} is no whole number")
    return value

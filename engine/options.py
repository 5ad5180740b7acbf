"""Specs from a command line, and from what a checkpoint was trained with."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from inspect import get_annotations
from pathlib import Path
from typing import Any, TypeVar

from engine.checkpoint import Checkpoint, recognise
from engine.recipe import PAPER, PARTS
from engine.settings import Spec
from engine.spec import ADAPTED, METHODS, check_method
from runtime.errors import InputError, Parser, naming

S = TypeVar("S", bound=Spec)
# What decides the numbers of a trained model: it is recalled from the checkpoint, and nothing else is taken.
FITTED = (
    *("model_name", "pretrain", "img_size", "features_list", "adapter", "madff", "madff_axis", "ensemble", "protocol"),
    *("shot", "abnormal_shot", "iterate", "seed", "classname", "demo", "method", "recipe", "folds", *PARTS),
)
FOLLOWED = (
    "data_path",
    "clip_path",
    "prompts",
    "branches",
    "bank_cap",
    "threshold_rule",
)  # recalled too, but free to be given anew


def parse(kind: type[Spec], argv: Sequence[str] | None = None, *, prog: str | None = None) -> dict[str, Any]:
    """The settings that a command line asks for, and no others; `kind.of` makes a spec of them.

    Raises InputError for flags that the spec lacks, values that it does not take, and flags that contradict --method.
    """
    parser = Parser(prog=prog, description=(kind.__doc__ or "").partition("\n")[0], argument_default=argparse.SUPPRESS)
    groups: dict[str, Any] = {}
    for one in fields(kind):
        if not one.metadata.get("fixed"):
            title = next(part.GROUP for part in reversed(kind.__mro__) if one.name in get_annotations(part))
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            _add(groups[title], one)
    asked = vars(parser.parse_args(argv))
    check_method(asked.get("method", METHODS[0]), asked)  # also what is asked for as it is by default
    return asked


def _add(group: Any, one: Field) -> None:
    """The flag of a field."""
    flag = dict(one.metadata)
    if isinstance(one.default, bool):
        flag["action"] = "store_true"
    elif one.default is not None and "default" not in flag["help"]:
        shown = " ".join(map(str, one.default)) if isinstance(one.default, tuple) else one.default
        flag["help"] += f" (default: {shown})"
    flag["help"] = flag["help"].replace("%", "%%")
    group.add_argument(f"--{one.name}", **flag)


def recall(kind: type[S], asked: Mapping[str, Any], checkpoint: Checkpoint, source: Path, obj: str) -> S:
    """The spec by which a checkpoint is used on `obj`: what it was trained with, and what is asked for where that fits.

    A file published by others says its adapters' kind and no more. Raises InputError when a setting that decides the
    numbers is asked for otherwise than the checkpoint (the file `source`) has it.
    """
    record = checkpoint.record
    trained_by = method_of(record)
    if (method := asked.get("method", trained_by)) != trained_by:
        raise InputError(f"{source} was trained with --method {trained_by}, not {method}; leave --method out")
    check_method(trained_by, asked)
    if record is None:
        kinds = {} if "adapter" in asked else recognise(checkpoint.last.adapters)
        return kind.of({"recipe": PAPER, **asked, **kinds, "obj": obj})
    trained = {name: value for name, value in record["options"].items() if name in (*FITTED, *FOLLOWED)}
    trained.setdefault("recipe", PAPER)  # there was but one
    if record["obj"] != obj:
        trained.pop("classname", None)  # the words of another object
    with naming(source):
        known = kind.of({**trained, "obj": obj})
    spec = kind.of({**trained, **asked, "obj": asked.get("obj", obj)})
    for name in FITTED:
        if name in asked and name in trained and getattr(spec, name) != getattr(known, name):
            then, now = (_words(getattr(one, name)) for one in (known, spec))
            raise InputError(f"{source} was trained with --{name} {then}, not {now}; leave --{name} out")
    return spec


def method_of(record: Mapping[str, Any] | None) -> str:
    """The method that a checkpoint's record is of; there was but one, and adapters published by others are of it."""
    return METHODS[0] if record is None else record["options"].get("method", METHODS[0])


def without_adapters(asked: Mapping[str, Any]) -> None:
    """Raise InputError for settings of adapters where there is no checkpoint to have any."""
    for name in ADAPTED:
        if name in asked:
            raise InputError(f"--{name} says which adapters, and without a checkpoint there are none; leave it out")
    if "method" in asked:
        raise InputError("--method says what made a checkpoint, and there is none; leave it out")


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)

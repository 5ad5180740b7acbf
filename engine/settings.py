"""What a setting is: its default and its flag in one place, and specs, which check every value they are given."""

import argparse
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from numbers import Number
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from runtime.errors import InputError
from runtime.flags import path, words
from scoring.memory_bank import BankLimit
from scoring.reliability import ThresholdRule


def bank_limit(text: str) -> str:
    """A reader of what `BankLimit.parse` takes; gives it as it was."""
    BankLimit.parse(text)
    return text


def threshold_rule(text: str) -> str:
    """A reader of what `ThresholdRule.parse` takes; gives it as it was."""
    ThresholdRule.parse(text)
    return text


def setting(default: Any, help: str, **flag: Any) -> Any:
    """A field with its flag: what argparse must know of it. Without a `type` it is one line of text."""
    kind = {} if isinstance(default, bool) else {"type": words}
    return field(default=default, metadata={"help": help, **kind, **flag})


def fixed(default: Any) -> Any:
    """A field that has no flag."""
    return field(default=default, metadata={"fixed": True})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Settings of the right types and ranges: InputError names one that is not, wherever it came from."""

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _checked(one, getattr(self, one.name)))

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it: paths are text, tuples lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, asked: Mapping[str, Any] = MappingProxyType({}), **more: Any) -> Self:
        """From what is asked for by name; settings that this spec lacks are passed over, `demo` brings its own."""
        cls.refuse_unknown(more)
        asked, names = {**asked, **more}, {one.name for one in fields(cls) if not one.metadata.get("fixed")}
        implied = cls.implied_by(asked)
        if asked.get("clip_path") is not None:
            implied.pop("pretrain", None)  # nobody said whose the file is
        return cls(**{name: value for name, value in {**implied, **asked}.items() if name in names})

    @classmethod
    def refuse_unknown(cls, names: Iterable[str]) -> None:
        """Raise InputError for a name that is none of this spec's settings."""
        known = [one.name for one in fields(cls)]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise InputError(f"no setting {name}" + (f"; did you mean {near[0]}?" if near else ""))

    @classmethod
    def implied_by(cls, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What the settings asked for bring along, where nothing else is asked for."""
        return dict(cls.demo_settings()) if asked.get("demo") is True else {}

    @classmethod
    def demo_settings(cls) -> dict[str, Any]:
        """What --demo stands for, where nothing else is asked for."""
        return {}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _checked(one: Field, value: Any) -> Any:
    """The value as the setting's flag would give it."""
    if value is None and one.default is None:
        return None
    if isinstance(one.default, bool):
        if not isinstance(value, bool):
            raise InputError(f"--{one.name} {value!r} is neither true nor false")
        return value
    several = "nargs" in one.metadata
    if several != isinstance(value, (list, tuple)) or (several and not value and one.metadata["nargs"] == "+"):
        raise InputError(f"--{one.name} takes {'a list of values' if several else 'one value'}, not {value!r}")
    return tuple(_read(one, part) for part in value) if several else _read(one, value)


def _read(one: Field, value: Any) -> Any:
    kind, choices = one.metadata.get("type", words), one.metadata.get("choices")
    takes = (str, PathLike) if kind in (words, path) else (str, PathLike, Number)
    if isinstance(value, bool) or not isinstance(value, takes):
        raise InputError(f"--{one.name} {value!r} is not what it takes")
    try:
        found = kind(str(value))
    except (ValueError, argparse.ArgumentTypeError) as fault:
        raise InputError(f"--{one.name} {fault}") from fault
    if choices and found not in choices:
        raise InputError(f"--{one.name} {value} is none of {', '.join(map(str, choices))}")
    return found

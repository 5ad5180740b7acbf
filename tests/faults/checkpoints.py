"""Checkpoints: records, options, calibrations and tensors of other types and ranges than training writes."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faults.files import JUNK
from faults.trying import Case, Place
from runtime.tensors import digest

NAN, INF = float("nan"), float("inf")
GONE = object()  # the entry is taken away


def deep(levels: int = 100_000) -> list:
    """A list in a list in a list."""
    whole: list = []
    for _ in range(min(levels, 400)):  # as deep as pickle writes
        whole = [whole]
    return whole


ODD: dict[str, Any] = {
    "nothing": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "a fraction": 0.5,
    "nan": NAN,
    "infinity": INF,
    "huge": 10**400,
    "a text": "x",
    "no text": "",
    "no UTF-8": "\udcff",
    "a list": [1],
    "a list of texts": ["x"],
    "no list": [],
    "a dict": {"x": 1},
    "a dict by numbers": {1: "x"},
    "deep": deep(),
    "a tensor": torch.ones(3),
    "a scalar tensor": torch.tensor(2.0),
    "bytes": b"x",
}
FEW, ZERO = "ckpt/Brain_1-shot.pth", "zero/Brain.pth"
VALID = {  # place -> odd values that are none there: what the entry may well be, and what no one reads
    "record": {"nothing"},  # as published files
    "record obj": {"a text", "no UTF-8"},
    "record trained_on": {"a list of texts", "no list"},
    "record support": set(),
    "epoch": {"nothing", "zero", "a fraction"},
    "calibration": {"nothing"},
    "best": {"nothing"},
    "sha256": {"nothing"},
}
RECORD = ("obj", "masks", "options", "weights_sha256", "prompts_sha256", "support")
OPTIONS = (
    *("model_name", "img_size", "features_list", "adapter", "madff", "madff_axis", "protocol", "shot"),
    *("abnormal_shot", "iterate", "seed", "classname", "demo", "data_path", "clip_path", "prompts", "branches"),
)
ALLOWED = {  # options for which these are fine
    "features_list": {"nothing"},
    "classname": {"nothing", "a text"},
    "madff": {"no list"},
    "iterate": {"zero", "negative"},
    "seed": {"zero"},
    "demo": {"true"},
    "abnormal_shot": {"nothing", "zero"},
    "clip_path": {"nothing"},
    "bank_cap": {"nothing"},
}
ELSEWHERE = ("model_name", "data_path", "clip_path", "prompts")  # names that may be right, of what is gone
CALIBRATION = ("maps", "means", "image", "pixel", "maps zero", "maps few", "image fused", "pixel fused", "image few")
HEADS = ("seg_adapters", "det_adapters")
TENSORS: dict[str, Callable[[Tensor], object]] = {
    "nan": lambda one: torch.full_like(one, NAN),
    "infinity": lambda one: torch.full_like(one, INF),
    "zeros": torch.zeros_like,
    "int8": lambda one: one.to(torch.int8),
    "int64": lambda one: one.long(),
    "bool": lambda one: one > 0,
    "complex": lambda one: one.to(torch.complex64),
    "sparse": lambda one: one.to_sparse(),
    "meta": lambda one: one.to("meta"),
    "flat": torch.flatten,
    "empty": lambda one: one[:0],
    "far away": lambda one: one.double() * 1e300,
    "a list": Tensor.tolist,
    "a text": lambda one: "x",
    "nothing": lambda one: None,
}


def changed(source: str, where: tuple[str, ...], value: object, sealed: bool = True) -> Callable[[Place], object]:
    """Writes @here/c.pth, a trained one with another entry at `where`; sealed: its sha256 holds for what it is now."""

    def write(place: Place) -> None:
        content = torch.load(place.lab.root / source, weights_only=True)
        part = content
        for name in where[:-1]:
            part = part[name]
        if value is GONE:
            part.pop(where[-1], None)
        else:
            made = value(part[where[-1]]) if callable(value) else copy.deepcopy(value)
            part[where[-1]] = made
        if sealed and "sha256" not in where:
            content.pop("sha256", None)
            with contextlib.suppress(TypeError, ValueError, RuntimeError, NotImplementedError, RecursionError):
                content["sha256"] = digest(content)  # else it is an older file, which has none
        torch.save(content, place.here / "c.pth")

    return write


SCRIPTS = {FEW: ("test_few", "predict", "apps.export"), ZERO: ("test_zero", "predict")}


def _scripts(source: str, number: int) -> Iterator[str]:
    """One of the scripts, in turn: all share the reader."""
    yield SCRIPTS[source][number % len(SCRIPTS[source])]


def entries() -> Iterator[tuple[str, tuple[str, ...], str, object]]:
    """(source, where, what, value) of everything that is tried."""
    for name in RECORD:
        for what, value in (ODD | {"gone": GONE}).items():
            fine = (
                VALID.get(f"record {name}", set())
                | ({"a dict"} if name == "options" else set())
                | ({"true"} if name == "masks" else set())
            )
            if name in ("weights_sha256", "prompts_sha256"):
                fine = {"a text", "no text", "no UTF-8"} if name.startswith("prompts") else set()
            if name == "support":
                fine = {"gone", "nothing"}
            if what not in fine:
                yield FEW, ("record", name), what, value
    for what, value in ODD.items():
        if what not in VALID["record trained_on"] | {"nothing"}:
            yield ZERO, ("record", "trained_on"), what, value
        if what not in VALID["record"]:
            yield FEW, ("record",), what, value
        for name in OPTIONS:
            if what not in ALLOWED.get(name, set()):
                yield FEW, ("record", "options", name), what, value
        for place in CALIBRATION:
            where = ("calibration", *place.split())
            numbers = {"zero", "negative", "a fraction"} if place.startswith(("image ", "pixel ")) else set()
            if place in ("image", "pixel"):
                numbers = set()
            if what not in numbers and not (place.startswith("maps ") and what == "nothing"):
                yield FEW, where, what, value
        for name in ("epoch", "calibration", "best", "sha256"):
            if what not in VALID[name]:
                yield FEW, (name,), what, value
        for head in HEADS:
            yield FEW, (head,), what, value
            yield ZERO, (head,), what, value
        yield FEW, ("format",), what, value
    pairs = {
        "turned": (1.0, 0.0),
        "nan": (NAN, 1.0),
        "infinite": (0.0, INF),
        "three": (0, 1, 2),
        "bools": (False, True),
    }
    for what, pair in (pairs | {"texts": ("0", "1"), "one": (1.0,), "no": ()}).items():
        for branch in ("zero", "few"):
            yield FEW, ("calibration", "maps", branch), what, pair
            yield FEW, ("calibration", "means", branch), what, pair


def cases() -> Iterator[Case]:
    """Every entry with every odd value, by one of the scripts that read checkpoints."""
    flag = ("--ckpt", "@here/c.pth")
    for number, (source, where, what, value) in enumerate(entries()):
        for script in _scripts(source, number):
            name = f"{script} {Path(source).stem} {' '.join(where)}: {what}"
            words = () if what == "a text" and where[-1] in ELSEWHERE else ("c.pth",)
            yield Case(name, script, flag, words, changed(source, where, value))
    for head in HEADS:
        for weight in ("0.fc1.0.weight", "3.fc2.0.weight"):
            for what, change in TENSORS.items():
                for source, script in ((FEW, "predict"), (ZERO, "test_zero")):
                    damage = changed(source, (head, weight), change)
                    yield Case(f"{script} {head} {weight}: {what}", script, flag, ("c.pth",), damage)
            damage = changed(FEW, (head, weight), lambda one: one + 1e-3, sealed=False)
            yield Case(f"{head} {weight}: moved a little", "test_few", flag, ("c.pth", "sha256"), damage)
    for script in ("test_few", "test_zero", "predict", "apps.export", "prompt rank"):
        for kind, content in JUNK.items():
            damage = lambda place, content=content: (place.here / "c.pth").write_bytes(content)  # noqa: E731
            yield Case(f"{script}: {kind}", script, flag, ("c.pth",), damage)
        for kind, damage in {
            "missing": lambda place: None,
            "a folder": lambda place: (place.here / "c.pth").mkdir(),
            "a loop": lambda place: (place.here / "c.pth").symlink_to("c.pth"),
            "cut": lambda place: _cut(place, 0.7),
            "cut late": lambda place: _cut(place, 0.99),
            "a number": lambda place: torch.save(7, place.here / "c.pth"),
            "a tensor": lambda place: torch.save(torch.ones(3), place.here / "c.pth"),
            "a list": lambda place: torch.save([1], place.here / "c.pth"),
            "an empty dict": lambda place: torch.save({}, place.here / "c.pth"),
            "deep": lambda place: torch.save({"seg_adapters": deep(), "det_adapters": deep()}, place.here / "c.pth"),
            "by numbers": lambda place: torch.save({1: 2}, place.here / "c.pth"),
        }.items():
            yield Case(f"{script}: {kind}", script, flag, ("c.pth",), damage)


def _cut(place: Place, share: float) -> None:
    content = (place.lab.root / FEW).read_bytes()
    (place.here / "c.pth").write_bytes(content[: int(share * len(content))])

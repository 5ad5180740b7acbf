"""Weights, model configs, prompts, selections, tables and images that are damaged or of another kind."""

import csv
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from helpers.lab import CONFIG, PROMPTS
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from faults.trying import Case, Place

JUNK: dict[str, bytes] = {
    "empty": b"",
    "text": b"no such thing",
    "a page": b"<html>404</html>",
    "zeros": bytes(4000),
    "ones": b"\xff" * 4000,
    "a zip's head": b"PK\x03\x04",
    "a pickle's head": b"\x80\x02",
    "a pickle that calls": b"cos\nsystem\n(S'true'\ntR.",
    "a header too long": struct.pack("<Q", 1 << 62) + b"{}",
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}


def junk(name: str) -> Iterator[tuple[str, Callable[[Place], object]]]:
    """Ways to make @here/NAME something that it is not: (words, what to do)."""
    for kind, content in JUNK.items():
        yield kind, lambda place, content=content: (place.here / name).write_bytes(content)
    yield "a folder", lambda place: (place.here / name).mkdir()
    yield "a loop", lambda place: (place.here / name).symlink_to(place.here / name)
    yield "missing", lambda place: None


def put(name: str, content: object) -> Callable[[Place], object]:
    """Writes @here/NAME: text, bytes, or anything else as JSON."""

    def write(place: Place) -> None:
        made = content if isinstance(content, (str, bytes)) else json.dumps(content)
        (place.here / name).write_bytes(made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass"))

    return write


# Weights: what is done to one tensor of the file
MATRICES = ("visual.conv1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight", "visual.positional_embedding")
TEXT = ("token_embedding.weight", "text_projection")
CHANGES: dict[str, Callable[[Tensor], object]] = {
    "nan": lambda one: one.clone().fill_(torch.nan),
    "one nan": lambda one: one.clone().index_fill_(0, torch.tensor([0]), torch.nan),
    "inf": lambda one: one.clone().index_fill_(0, torch.tensor([0]), torch.inf),
    "zero": torch.zeros_like,
    "one": torch.ones_like,
    "float64 far away": lambda one: one.double() * 1e300,
    "int8": lambda one: one.to(torch.int8),
    "int64": lambda one: one.to(torch.int64),
    "bool": lambda one: one > 0,
    "complex": lambda one: one.to(torch.complex64),
    "float8": lambda one: one.to(torch.float8_e4m3fn),
    "flat": torch.flatten,
    "empty": lambda one: one[:0],
    "a scalar": lambda one: one.sum(),
}
PICKLED: dict[str, Callable[[Tensor], object]] = {
    "sparse": lambda one: one.to_sparse(),
    "compressed": lambda one: one.flatten(1).to_sparse_csr(),
    "quantised": lambda one: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8),
    "meta": lambda one: one.to("meta"),
    "a list": Tensor.tolist,
    "a text": lambda one: "weights",
    "nothing": lambda one: None,
}


def changed_weights(name: str, change: Callable[[Tensor], object], suffix: str) -> Callable[[Place], object]:
    """Writes @here/w.SUFFIX, in which one tensor is changed."""

    def write(place: Place) -> None:
        state = load_file(place.lab.weights)
        state[name] = change(state[name])
        if suffix == "safetensors":
            save_file({key: value.contiguous() for key, value in state.items()}, place.here / "w.safetensors")
        else:
            torch.save(state, place.here / "w.pt")

    return write


def weights() -> Iterator[Case]:
    """Files for --clip_path."""
    few, given = "predict bare", ("--clip_path", "@here/w.pt")
    for kind, damage in junk("w.pt"):
        yield Case(f"weights: {kind}", few, given, ("w.pt",), damage)
    for name in (*MATRICES, *TEXT):
        for kind, change in CHANGES.items():
            suffix = "pt" if kind in ("complex", "float8") else "safetensors"
            flags = ("--clip_path", f"@here/w.{suffix}", "--cache_gb", "0")
            yield Case(
                f"weights: {name} {kind}", few, flags, (f"w.{suffix}", name), changed_weights(name, change, suffix)
            )
        for kind, change in PICKLED.items():
            if kind != "compressed" or "conv1" not in name:
                flags = (*given, "--cache_gb", "0")
                yield Case(f"weights: {name} {kind}", few, flags, ("w.pt",), changed_weights(name, change, "pt"))
    for kind in ("nan", "zero", "int8", "sparse", "bool"):
        change, name = (CHANGES | PICKLED)[kind], MATRICES[1]
        flags = ("--clip_path", "@here/w.pt", "--precision", "int8")
        yield Case(f"weights as int8: {kind}", few, flags, ("w.pt", name), changed_weights(name, change, "pt"))


# Model configs
SIZES = {
    "zero": 0,
    "negative": -1,
    "a fraction": 1.5,
    "text": "16",
    "nothing": None,
    "true": True,
    "nan": float("nan"),
    "infinity": float("inf"),
    "a billion": 10**9,
    "64 bits": 1 << 63,
    "a list": [16],
    "a dict": {},
}


def configs() -> Iterator[Case]:
    """Files for --model_name."""
    script, given = "predict bare", ("--model_name", "@here/m.json")
    for kind, damage in junk("m.json"):
        yield Case(f"config: {kind}", script, given, ("m.json",), damage)
    texts = {
        "deep lists": "[" * 100_000,
        "deep dicts": '{"a":' * 100_000,
        "a list": "[]",
        "a number": "7",
        "nothing": "null",
        "a dict without": "{}",
        "towers are lists": '{"embed_dim": 16, "vision_cfg": [], "text_cfg": []}',
        "towers are text": '{"embed_dim": 16, "vision_cfg": "a", "text_cfg": "b"}',
        "5,000 digits": '{"embed_dim": ' + "1" * 5000 + "}",
        "UTF-16": json.dumps(CONFIG).encode("utf-16"),
        "cut": json.dumps(CONFIG)[:-20],
        "long": " " * 2_000_000,
    }
    for kind, text in texts.items():
        yield Case(f"config: {kind}", script, given, ("m.json",), put("m.json", text))
    keys = [(None, "embed_dim"), *((part, key) for part in ("vision_cfg", "text_cfg") for key in CONFIG[part])]
    for part, key in keys:
        for kind, value in SIZES.items():
            config = CONFIG | ({key: value} if part is None else {part: CONFIG[part] | {key: value}})
            yield Case(f"config: {part or 'top'} {key} {kind}", script, given, ("m.json",), put("m.json", config))
        if part is not None:
            config = CONFIG | {part: {name: size for name, size in CONFIG[part].items() if name != key}}
            optional = key in ("head_width", "context_length", "vocab_size")
            words = () if optional else ("m.json", key)
            if not optional:
                yield Case(f"config: {part} without {key}", script, given, words, put("m.json", config))
    for part in ("vision_cfg", "text_cfg"):
        config = CONFIG | {part: CONFIG[part] | {"more": 1}}
        yield Case(f"config: {part} with more", script, given, ("m.json", "more"), put("m.json", config))


# Prompts
def prompts() -> Iterator[Case]:
    """Files for --prompts."""
    words = {"normal": PROMPTS["normal"], "abnormal": PROMPTS["abnormal"]}
    texts: dict[str, object] = {
        "deep lists": "[" * 100_000,
        "deep dicts": '{"normal":' * 100_000,
        "a list": [],
        "a number": 7,
        "nothing": None,
        "a text": "prompts",
        "UTF-16": json.dumps(words).encode("utf-16"),
        "Latin-1": b'{"normal": {"prompts": ["caf\xe9"]}, "abnormal": {"prompts": ["b"]}}',
        "cut": json.dumps(words)[:-9],
        "a surrogate": words | {"normal": {"prompts": ["a \udcff"]}},
        "no abnormal": {"normal": words["normal"]},
        "no normal": {"abnormal": words["abnormal"]},
        "no prompts": words | {"normal": {}},
        "prompts are text": words | {"normal": {"prompts": "a"}},
        "prompts are a dict": words | {"normal": {"prompts": {}}},
        "none": words | {"normal": {"prompts": []}},
        "numbers": words | {"normal": {"prompts": [1]}},
        "lists": words | {"normal": {"prompts": [["a"]]}},
        "an empty one": words | {"abnormal": {"prompts": [""]}},
        "a blank one": words | {"abnormal": {"prompts": ["  "]}},
        "nothing among them": words | {"abnormal": {"prompts": ["a", None]}},
    }
    for script in ("predict bare", "train_few", "prompt check", "prompt show"):
        given = ("--prompts", "@here/p.json")
        for kind, damage in junk("p.json"):
            yield Case(f"{script} prompts: {kind}", script, given, ("p.json",), damage)
        for kind, content in texts.items():
            damage = put(
                "p.json",
                content if isinstance(content, bytes) or kind.startswith(("deep", "cut")) else json.dumps(content),
            )
            if not (script == "prompt check" and kind.endswith("one")):  # a finding, no fault
                yield Case(f"{script} prompts: {kind}", script, given, ("p.json",), damage)


# Data sets
def brain(place: Place) -> Path:
    """A copy of the lab's Brain below @here."""
    return Path(shutil.copytree(place.lab.data / "Brain_AD", place.here / "Brain_AD"))


def with_brain(inner: str, change: Callable[[Path], object]) -> Callable[[Place], object]:
    return lambda place: change(brain(place) / inner)


def _png(mode: str, size: tuple[int, int]) -> Callable[[Path], object]:
    return lambda path: Image.new(mode, size).save(path)


def _half(path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(content).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def _huge(path: Path) -> None:
    """The header of a picture of a terapixel."""
    _png("L", (8, 8))(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 1 << 20, 1 << 20)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


IMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"no picture"),
    "zeros": lambda path: path.write_bytes(bytes(500)),
    "the signature alone": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
    "cut": _half,
    "a terapixel": _huge,
    "a loop": lambda path: (path.unlink(), path.symlink_to(path)),
    "a broken link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}
MASKS = IMAGES | {
    "of another size": _png("L", (9, 9)),
    "missing": Path.unlink,
}


def images() -> Iterator[Case]:
    """Pictures and masks of a data set."""
    places = {"test/good/img/test_n0.png": IMAGES, "test/Ungood/anomaly_mask/test_a0.png": MASKS}
    places |= {"valid/good/img/valid_n0.png": IMAGES, "valid/Ungood/anomaly_mask/valid_a0.png": MASKS}
    for script in ("train_few", "test_few", "dataset.check here"):
        flags = () if script.endswith("here") else ("--data_path", "@here")
        flags += ("--shot", "5") if script == "train_few" else ()
        for inner, changes in places.items():
            if script == "test_few" and inner.startswith("valid"):
                continue
            for kind, change in changes.items():
                name = Path(inner).name
                yield Case(f"{script} {inner}: {kind}", script, flags, (name,), with_brain(inner, change))


def tables() -> Iterator[Case]:
    """Files for dataset.convert folders --csv."""
    header = ["path", "label", "mask", "split"]
    rows = {
        "no label": [["path"], ["a.png"]],
        "no path": [["label"], ["0"]],
        "no rows": [header],
        "an unknown label": [header[:2], ["a.png", "perhaps"]],
        "an unknown split": [header, ["a.png", "0", "", "later"]],
        "no such image": [header[:2], ["none.png", "0"]],
        "outside": [header[:2], ["../a.png", "0"]],
        "absolute": [header[:2], ["/etc/passwd", "0"]],
        "too short a row": [header, ["a.png"]],
        "too long a row": [header[:2], ["a.png", "0", "1", "2"]],
        "twice": [header[:2], ["a.png", "0"], ["a.png", "0"]],
        "a column twice": [["path", "path", "label"], ["a.png", "a.png", "0"]],
        "an empty path": [header[:2], ["", "0"]],
        "a nul": [header[:2], ["a\0.png", "0"]],
        "a field of a megabyte": [header[:2], ["a" * 1_000_000, "0"]],
        "one class alone": [header[:2], ["a.png", "0"]],
    }

    def write(content: list[list[str]]) -> Callable[[Place], object]:
        def made(place: Place) -> None:
            _png("L", (8, 8))(place.here / "a.png")
            with (place.here / "x.csv").open("w", newline="") as file:
                csv.writer(file).writerows(content)

        return made

    for kind, damage in junk("x.csv"):
        yield Case(f"csv: {kind}", "dataset.convert", (), ("x.csv",), damage)
    for kind, content in rows.items():
        yield Case(f"csv: {kind}", "dataset.convert", (), ("x.csv",), write(content))


def cases() -> Iterator[Case]:
    for part in (weights, configs, prompts, images, tables):
        yield from part()

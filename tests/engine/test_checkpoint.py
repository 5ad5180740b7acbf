"""Checkpoints: exact there and back, readable by others, whole or not there, and nothing run on the way in."""

import errno
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from decoder import HEADS
from engine import checkpoint
from engine.checkpoint import Checkpoint, Snapshot, recognise
from madff import ADAPTERS, ATTENTIONS, build_adapter
from runtime.errors import InputError
from scoring.cues import CueWeights
from scoring.maps import Calibration, Scale

RECORD = {
    "obj": "mvtec/bottle",
    "masks": True,
    "options": {"shot": 4, "learning_rate": 1e-3, "madff": ["sca", "fab"], "prompts": "llm"},
    "support": {"normal": ["ä 1.png"], "abnormal": []},
    "prompts_sha256": "ab",
    "weights_sha256": "cd",
    "seconds": 1.5,
}
CALIBRATION = Calibration(
    Scale((0.1, 3.9), (0.0, 1 / 3)), Scale(None, (0.25, 2.0)), {"few": 0.1 + 0.2, "zero": 1.25}, {"few": 0.5}
)


def adapters(seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Random weights under published names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"{tap}.{name}.0.weight": shape for tap in range(2) for name, shape in (("fc1", (4, 6)), ("fc2", (6, 4)))}
    return {head: {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()} for head in HEADS}


def equal(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> bool:
    return one.keys() == other.keys() and all(
        one[head].keys() == other[head].keys() and all(one[head][key].equal(other[head][key]) for key in one[head])
        for head in one
    )


@pytest.fixture
def trained() -> Checkpoint:
    best = Snapshot(7, adapters(1), Calibration(CALIBRATION.maps, CALIBRATION.means, {"few": 0.25}, {}))
    return Checkpoint(Snapshot(50, adapters(0), CALIBRATION), best, RECORD)


@pytest.fixture
def path(tmp_path, trained) -> Path:
    file = tmp_path / "few-shot" / "Brain_4-shot.pth"
    checkpoint.write(file, trained)
    return file


def test_there_and_back_exactly(path, trained):
    found = checkpoint.read(path)
    for mine, theirs in ((found.last, trained.last), (found.best, trained.best)):
        assert mine.epoch == theirs.epoch and equal(mine.adapters, theirs.adapters)
        assert mine.calibration.maps == theirs.calibration.maps
        assert mine.calibration.means == theirs.calibration.means
        assert mine.calibration.pixel == theirs.calibration.pixel
    assert found.best.calibration == trained.best.calibration
    assert found.last.calibration.image["few"] == 0.1 + 0.2
    assert found.record == RECORD


def test_cues_come_back_and_those_of_another_version_are_refused(tmp_path, trained):
    cues = CueWeights(("bank peak", "map"), (0.1, 0.2), (1.0, 2.0), (0.5, 1.0), 0.0, 3.0)
    old = replace(cues, names=("bank peak", "adapted peak"))
    for found, name in ((cues, "new.pth"), (old, "old.pth")):
        last = replace(trained.last, calibration=replace(CALIBRATION, cues=found))
        checkpoint.write(tmp_path / name, replace(trained, last=last))
    assert checkpoint.read(tmp_path / "new.pth").last.calibration.cues == cues
    with pytest.raises(InputError, match=r"old.pth: its scores are made of other cues than this version's; train"):
        checkpoint.read(tmp_path / "old.pth")


def test_without_best_and_calibration(tmp_path):
    checkpoint.write(tmp_path / "a.pth", Checkpoint(Snapshot(0, adapters(), None), None, RECORD))
    found = checkpoint.read(tmp_path / "a.pth")
    assert found.best is None and found.last.calibration is None and found.last.epoch == 0


def test_others_can_read_the_last_epochs_adapters(path, trained):
    content = torch.load(path, weights_only=True)
    assert equal({head: content[head] for head in HEADS}, trained.last.adapters)


def test_nothing_is_left_beside_the_file(path):
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_writing_again_replaces(path):
    checkpoint.write(path, Checkpoint(Snapshot(1, adapters(2), None), None, None))
    assert checkpoint.read(path).last.epoch == 1
    assert equal(checkpoint.read(path).last.adapters, adapters(2))


def full_disk(self: Path, data: bytes) -> int:
    """Writes half of the bytes, then there is no space left."""
    with self.open("wb") as file:
        file.write(bytes(data)[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device", str(self))


def refused(source: str, target: str) -> None:
    raise OSError(errno.EACCES, "Permission denied", str(target))


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(("owner", "name", "fails"), [(Path, "write_bytes", full_disk), (os, "replace", refused)])
def test_a_write_that_fails_leaves_the_old_file_or_none(tmp_path, trained, monkeypatch, exists, owner, name, fails):
    path = tmp_path / "a.pth"
    if exists:
        checkpoint.write(path, trained)
    before = path.read_bytes() if exists else None
    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(OSError, match=r"No space|Permission"):
        checkpoint.write(path, Checkpoint(Snapshot(1, adapters(2), None), None, None))
    assert [file.name for file in tmp_path.iterdir()] == (["a.pth"] if exists else [])
    assert not exists or path.read_bytes() == before


def test_a_record_that_can_not_be_written_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.write(tmp_path / "a.pth", Checkpoint(Snapshot(1, adapters(), None), None, {"x": lambda: 1}))
    assert not list(tmp_path.iterdir())


def test_what_could_never_be_opened_is_not_written(tmp_path, trained):
    """NumPy's numbers look like Python's, and end as code that no careful reader runs."""
    calibration = replace(trained.last.calibration, maps=replace(trained.last.calibration.maps, share=np.float64(0.5)))
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.write(tmp_path / "a.pth", replace(trained, last=replace(trained.last, calibration=calibration)))
    assert not list(tmp_path.iterdir())


def flat() -> dict[str, Tensor]:
    """The adapters under dotted names."""
    return {f"{head}.{key}": tensor for head, part in adapters().items() for key, tensor in part.items()}


PUBLISHED: dict[str, Callable[[Path], object]] = {
    "a.pth": lambda path: torch.save(adapters(), path),
    "ordered.pth": lambda path: torch.save({head: OrderedDict(part) for head, part in adapters().items()}, path),
    "legacy.pth": lambda path: torch.save(adapters(), path, _use_new_zipfile_serialization=False),
    "flat.pth": lambda path: torch.save(flat(), path),
    "a.safetensors": lambda path: save_file(flat(), path),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_adapters_published_by_others(tmp_path, name):
    PUBLISHED[name](tmp_path / name)
    found = checkpoint.read(tmp_path / name)
    assert equal(found.last.adapters, adapters())
    assert found.record is None and found.best is None and found.last.calibration is None


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("way", ["record", "weight", "legacy", "bare pickle"])
def test_a_file_that_would_run_code_runs_nothing(tmp_path, way):
    path, made = tmp_path / "a.pth", tmp_path / "made"
    content = adapters()
    if way == "weight":
        content["seg_adapters"]["0.fc1.0.weight"] = Evil(made)
    else:
        content["record"] = Evil(made)
    if way == "bare pickle":
        path.write_bytes(pickle.dumps({"seg_adapters": {}, "det_adapters": {}, "record": Evil(made)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=way != "legacy")
    refuses(path, "more than tensors and plain data, or is damaged; it was not opened")
    assert not made.exists()
    open_carelessly(path, way)
    assert made.exists()  # so the file was a live one


def open_carelessly(path: Path, way: str) -> None:
    if way == "bare pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)


def refuses(path: Path, says: str = "") -> None:
    """The file is answered with one line that names it."""
    with pytest.raises(InputError) as caught:
        checkpoint.read(path)
    message = str(caught.value)
    assert str(path) in message and says in message and "\n" not in message


FOREIGN: dict[str, tuple[object, str]] = {
    "a list": ([1, 2], "holds no adapters"),
    "a tensor": (torch.zeros(3), "holds no adapters"),
    "a state dict": ({"visual.proj": torch.zeros(3)}, "holds no adapters"),
    "one head": ({"seg_adapters": adapters()["seg_adapters"]}, "holds no adapters"),
    "heads of tensors": (dict.fromkeys(HEADS, torch.zeros(3)), "holds no adapters"),
    "numbered names": ({0: torch.zeros(3), 1: torch.zeros(3)}, "holds no adapters"),
    "a weight that is a number": (adapters() | {"seg_adapters": {"0.fc1.0.weight": 0.5}}, ""),
    "a weight without a name": (adapters() | {"seg_adapters": {0: torch.zeros(3)}}, ""),
    "an epoch that is a word": (adapters() | {"epoch": "last"}, "not laid out"),
    "a best that is a list": (adapters() | {"best": [1]}, "not laid out"),
    "a best without adapters": (adapters() | {"best": {"epoch": 1}}, "not laid out"),
    "a calibration of another kind": (adapters() | {"calibration": {"maps": {"x": 1}}}, "not laid out"),
    "a calibration that is a number": (adapters() | {"calibration": 3}, "not laid out"),
    "a record that is a list": (adapters() | {"record": ["obj"]}, ""),
}


@pytest.mark.parametrize("content", FOREIGN)
def test_what_holds_no_adapters_of_ours(tmp_path, content):
    thing, says = FOREIGN[content]
    torch.save(thing, tmp_path / "a.pth")
    refuses(tmp_path / "a.pth", says)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "body",
    [b"", b"text, no checkpoint", b"<html>404</html>", b"\x80", b"PK\x03\x04", b"\x00" * 100, b"\xff" * 3000],
    ids=["empty", "text", "web page", "pickle's first byte", "zip's first bytes", "zeros", "ones"],
)
def test_what_is_no_checkpoint(tmp_path, body, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(body)
    refuses(path)


def test_missing_file_and_folder(tmp_path):
    refuses(tmp_path / "a.pth", "train first")
    refuses(tmp_path, "train first")


def test_a_foreign_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refuses(tmp_path / "a.pth", "damaged or no checkpoint")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["ours.pth", "legacy.pth", "a.safetensors"])
def test_cut_and_damaged_files_never_end_in_a_traceback(tmp_path, trained, name):
    path, rng = tmp_path / name, random.Random(0)
    if name == "ours.pth":
        checkpoint.write(path, trained)
    else:
        PUBLISHED[name](path)
    whole = path.read_bytes()
    attempts = {"read": 0, "refused": 0}
    for attempt in range(400):
        body = bytearray(whole)
        if attempt % 3 == 0:
            del body[rng.randrange(len(body)) :]
        else:
            for _ in range(rng.choice([1, 4, 20])):
                body[rng.randrange(len(body))] = rng.randrange(256)
        path.write_bytes(body)
        try:
            checkpoint.read(path)
            attempts["read"] += 1  # a weight's bits alone were changed, or nothing that is read
        except InputError as fault:
            assert str(path) in str(fault) and "\n" not in str(fault)
            attempts["refused"] += 1
    assert attempts["refused"] > 130


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refuses(path)


def state_of(kind: str, attentions: tuple[str, ...] = ATTENTIONS) -> dict[str, dict[str, Tensor]]:
    """Adapters of that kind at one tap, as a checkpoint has them."""
    state = build_adapter(kind, 32, 8, attentions=attentions).state_dict()
    return {head: {f"0.{key}": tensor for key, tensor in state.items()} for head in HEADS}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_kind_is_recognised(kind):
    assert recognise(state_of(kind)) == {"adapter": kind} | ({"madff": list(ATTENTIONS)} if kind == "madff" else {})


def test_the_branches_are_recognised():
    assert recognise(state_of("madff", ("fab", "sca"))) == {"adapter": "madff", "madff": ["sca", "fab"]}
    assert recognise(state_of("madff", ("llspm",))) == {"adapter": "madff", "madff": ["llspm"]}


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "later.pth"
    torch.save({"format": 2, "seg_adapters": {}, "det_adapters": {}}, path)
    with pytest.raises(InputError, match=r"later\.pth was written by another version"):
        checkpoint.read(path)

"""Trained adapters with the record of how they came about: written whole, read without unpickling anything but data."""

import io
import pickle
import zipfile
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from CLIP.weights import DAMAGE
from decoder import HEADS
from runtime.errors import InputError
from runtime.files import atomic_write
from scoring.maps import Calibration

FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """Adapters after one epoch: {"seg_adapters": {...}, "det_adapters": {...}}, and the support's calibration."""

    epoch: float | None  # epochs trained, a fraction inside one; None: published by others, who do not say
    adapters: dict[str, dict[str, Tensor]]
    calibration: Calibration | None


@dataclass(frozen=True)
class Checkpoint:
    """`last` is the last epoch; `best` the one selected on the test set, if there is one; a file published by
    others has adapters only: no record, no calibration."""

    last: Snapshot
    best: Snapshot | None
    record: dict | None


def write(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a .pth file that loads with `weights_only=True`: tensors, numbers, strings, lists and dicts.

    The last epoch's adapters lie at the top under the published names, so other code can read them too.
    """
    content = {
        "format": FORMAT,
        "record": checkpoint.record,
        **checkpoint.last.adapters,
        "epoch": checkpoint.last.epoch,
        "calibration": _plain(checkpoint.last.calibration),
    }
    if checkpoint.best is not None:
        best = checkpoint.best
        content["best"] = {**best.adapters, "epoch": best.epoch, "calibration": _plain(best.calibration)}
    buffer = io.BytesIO()  # a full disk then shows as the system's error, not as one of the archive writer's
    torch.save(content, buffer)
    with atomic_write(path) as draft:
        draft.write_bytes(buffer.getbuffer())


def _plain(calibration: Calibration | None) -> dict | None:
    return None if calibration is None else asdict(calibration)


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, or adapters published by MVFA-AD (.pth, or .safetensors with dotted names).

    Raises InputError if the file is missing, damaged, or holds no adapters.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no checkpoint {path}; train first (train_few.py, train_zero.py) or name one with --ckpt")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as fault:
        raise InputError(f"{path} holds more than tensors and plain data, or is damaged; it was not opened") from fault
    except DAMAGE as fault:
        raise InputError(f"{path} is damaged or no checkpoint; train again or fetch it again") from fault
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise InputError(f"{path} was written by another version of this program; train again, or use that version")
    if isinstance(content, dict) and not any(name in content for name in HEADS):
        content = _nested(content)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), dict) for name in HEADS):
        raise InputError(f"{path} holds no adapters: 'seg_adapters' and 'det_adapters' are missing")
    try:
        best = content.get("best")
        record = content.get("record")
        if record is not None and not {"obj", "masks", "options", "weights_sha256", "prompts_sha256"} <= record.keys():
            raise TypeError("its record is not whole")
        return Checkpoint(_snapshot(content), None if best is None else _snapshot(best), content.get("record"))
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        raise InputError(f"{path} is not laid out as this version writes checkpoints: {fault!r}") from fault


def _snapshot(content: dict) -> Snapshot:
    calibration = content.get("calibration")
    for name in HEADS:
        if not all(isinstance(key, str) and isinstance(weight, Tensor) for key, weight in content[name].items()):
            raise TypeError(f"{name} holds more than named tensors")
    return Snapshot(
        epoch=_epoch(content.get("epoch")),
        adapters={name: content[name] for name in HEADS},
        calibration=None if calibration is None else Calibration.from_plain(calibration),
    )


def _epoch(value: object) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < inf):
        raise TypeError(f"its epoch is {value!r}")
    return value


def _nested(flat: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Dotted names to one dict a head."""
    nested = {}
    for name, tensor in flat.items():
        head, _, rest = str(name).partition(".")
        nested.setdefault(head, {})[rest] = tensor
    return nested


MARKS = {"channel_attention": "sca", "spatial_attention": "llspm", "frequency_attention": "fab"}


def recognise(adapters: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    """The settings that weights are of, by their names: the adapters' kind, and the attentions of MADFF."""
    names = {part for head in adapters.values() for name in head for part in name.split(".")}
    attentions = [name for mark, name in MARKS.items() if mark in names]
    if "norm" in names:
        return {"adapter": "projector"}
    return {"adapter": "madff", "madff": attentions} if attentions else {"adapter": "mvfa"}

"""Trained adapters with the record of how they came about: written whole, read without unpickling anything but data."""

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from CLIP.weights import DAMAGE
from decoder import HEADS
from engine.settings import Spec
from engine.spec import FewShotTestSpec, TransferTestSpec
from runtime.errors import InputError, naming
from runtime.files import atomic_write
from runtime.tensors import LARGEST, check_weights, digest, load
from scoring.cues import MAP, CueWeights
from scoring.maps import FUSION, Calibration, Scale
from scoring.patch_scores import BRANCHES
from scoring.reliability import Evidence

FORMAT = 1
WORDS = ("obj", "prompts_sha256", "weights_sha256")  # of a record


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
    content = {"format": FORMAT, "record": checkpoint.record, **_plain(checkpoint.last)}
    if checkpoint.best is not None:
        content["best"] = _plain(checkpoint.best)
    content["sha256"] = _digest(content)
    buffer = io.BytesIO()  # a full disk then shows as the system's error, not as one of the archive writer's
    torch.save(content, buffer)
    with atomic_write(path) as draft:
        draft.write_bytes(buffer.getbuffer())
        load(draft)  # what is more than tensors and plain data could be written, and never be opened


def _plain(snapshot: Snapshot) -> dict[str, Any]:
    calibration = None if snapshot.calibration is None else asdict(snapshot.calibration)
    return {**snapshot.adapters, "epoch": snapshot.epoch, "calibration": calibration}


def _digest(content: Mapping[str, Any]) -> str:
    """A hash of all else that a file holds."""
    return digest({name: part for name, part in content.items() if name != "sha256"})


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, or adapters published by MVFA-AD (.pth, or .safetensors with dotted names).

    Raises InputError if the file is missing, damaged, or holds no adapters.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no checkpoint {path}; train first (train_few.py, train_zero.py) or name one with --ckpt")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else load(path)
    except pickle.UnpicklingError as fault:
        raise InputError(f"{path} holds more than tensors and plain data, or is damaged; it was not opened") from fault
    except DAMAGE as fault:
        raise InputError(f"{path} is damaged or no checkpoint; train again or fetch it again") from fault
    known = content.get("format", FORMAT) if isinstance(content, dict) else FORMAT
    if type(known) is not int or known != FORMAT:
        raise InputError(f"{path} was written by another version of this program; train again, or use that version")
    if isinstance(content, dict) and not any(name in content for name in HEADS):
        content = _nested(content)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), dict) for name in HEADS):
        raise InputError(f"{path} holds no adapters: 'seg_adapters' and 'det_adapters' are missing")
    with naming(path):
        return _checked(content)


def _checked(content: dict[str, Any]) -> Checkpoint:
    """The checkpoint in a file's content. Raises InputError for whatever is not of the right type, range or hash."""
    best, record = content.get("best"), content.get("record")
    if record is not None:
        _check_record(record)
    found = Checkpoint(_snapshot(content), None if best is None else _snapshot(best, "best"), record)
    known = content.get("sha256")  # published files, and ours of before, have none
    try:
        holds = known is None or known == _digest(content)
    except (TypeError, ValueError, RecursionError):
        holds = False  # what can't be hashed was not written by us
    if not holds:
        raise InputError("its content is not what was written (its sha256 differs); train again or fetch it again")
    return found


def _unlike(what: str, value: object) -> InputError:
    """What is said of a value that no version of this program writes."""
    return InputError(f"not laid out as this version writes checkpoints: {what} is {_shortened(value)}; train again")


def _shortened(value: object) -> str:
    words = f"a {type(value).__name__}" if isinstance(value, (Tensor, Mapping, list, tuple)) else repr(value)
    return words if len(words) <= 60 else f"{words[:60]}..."


def _check_record(record: object) -> None:
    """Raise InputError unless a record holds what is read from it: names, options as a spec takes them, hashes."""
    if not isinstance(record, Mapping):
        raise _unlike("its record", record)
    for name in WORDS:
        if not isinstance(record.get(name), str):
            raise _unlike(f"its record's {name}", record.get(name))
    if not isinstance(record.get("support_sha256", ""), str):
        raise _unlike("its record's support_sha256", record["support_sha256"])
    if not isinstance(record.get("masks"), bool):
        raise _unlike("its record's masks", record.get("masks"))
    options, seen, support = record.get("options"), record.get("trained_on"), record.get("support")
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise _unlike("its record's options", options)
    kind: type[Spec] = FewShotTestSpec if seen is None else TransferTestSpec
    kind.of({**options, "obj": record["obj"]})
    if seen is not None and not _are_texts(seen):
        raise _unlike("its record's trained_on", seen)
    if support is not None and not (
        isinstance(support, Mapping)
        and support.keys() == {"normal", "abnormal"}
        and all(map(_are_texts, support.values()))
    ):
        raise _unlike("its record's support", support)


def _are_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def _snapshot(content: object, which: str = "last") -> Snapshot:
    if not isinstance(content, Mapping):
        raise _unlike(which, content)
    for head in HEADS:
        weights = content.get(head)
        if not isinstance(weights, Mapping):
            raise _unlike(f"{which} {head}", weights)
        for name, weight in weights.items():
            if not isinstance(name, str) or not isinstance(weight, Tensor):
                raise _unlike(f"{head} {name!r}", weight)
        with naming(f"{which} {head}"):
            check_weights(weights)
    epoch, calibration = content.get("epoch"), content.get("calibration")
    if epoch is not None and not (_number(epoch) and epoch >= 0):
        raise _unlike("its epoch", epoch)
    return Snapshot(
        epoch=epoch,
        adapters={head: content[head] for head in HEADS},
        calibration=None if calibration is None else _calibration(calibration),
    )


def _calibration(content: object) -> Calibration:
    """Scales and thresholds, all finite, of branches that there are."""
    if not isinstance(content, Mapping):
        raise _unlike("its calibration", content)
    scales, thresholds = [], []
    for name in ("maps", "means"):
        scale = content.get(name)
        if not isinstance(scale, Mapping) or scale.keys() - {"share"} != {"zero", "few"}:
            raise _unlike(f"its calibration's {name}", scale)
        share = scale.get("share", FUSION)
        if not (_number(share) and 0 <= share <= 1):
            raise _unlike(f"its calibration's share in {name}", share)
        for branch in ("zero", "few"):
            limits = scale[branch]
            pair = isinstance(limits, (list, tuple)) and len(limits) == 2 and all(map(_number, limits))
            if limits is not None and not (pair and limits[0] <= limits[1]):
                raise _unlike(f"its calibration's {name} of the branch {branch}", limits)
        limits = {branch: limits and tuple(limits) for branch, limits in scale.items() if branch != "share"}
        scales.append(Scale(**limits, share=scale.get("share", FUSION)))
    for name in ("image", "pixel", "dark"):
        values = content.get(name, {} if name == "dark" else None)  # which older files lack
        if not isinstance(values, Mapping) or not values.keys() <= set(BRANCHES):
            raise _unlike(f"its calibration's {name}", values)
        for branch, value in values.items():
            if not _number(value):
                raise _unlike(f"its calibration's {name} of the branch {branch}", value)
        thresholds.append(dict(values))
    evidence = content.get("evidence", {})
    if not isinstance(evidence, Mapping) or not evidence.keys() <= set(BRANCHES):
        raise _unlike("its calibration's evidence", evidence)
    taps, cues = content.get("taps"), content.get("cues")
    if taps is not None and not (isinstance(taps, (list, tuple)) and taps and all(type(tap) is int for tap in taps)):
        raise _unlike("its calibration's taps", taps)
    return Calibration(
        *scales,
        *thresholds,
        evidence={branch: _evidence(one) for branch, one in evidence.items()},
        cues=None if cues is None else _cue_weights(cues),
        taps=None if taps is None else tuple(taps),
    )


def _evidence(content: object) -> Evidence:
    """Out-of-fold scores, finite, by label."""
    if not isinstance(content, Mapping) or type(content.get("held_out")) is not bool:
        raise _unlike("its calibration's evidence", content)
    labels = [content.get(label) for label in ("normal", "abnormal")]
    for scores in labels:
        if not _are_numbers(scores):
            raise _unlike("its calibration's out-of-fold scores", scores)
    return Evidence(*map(tuple, labels), content["held_out"])


def _cue_weights(content: object) -> CueWeights:
    """Names of cues, and for each finite numbers; spreads are above 0."""
    if not isinstance(content, Mapping) or content.keys() != {one.name for one in fields(CueWeights)}:
        raise _unlike("its calibration's cues", content)
    names, numbers = content["names"], [content[part] for part in ("centers", "spreads", "weights")]
    if not _are_texts(names) or not all(_are_numbers(part) and len(part) == len(names) for part in numbers):
        raise _unlike("its calibration's cues", names)
    if not all(value > 0 for value in content["spreads"]) or not _are_numbers([content["low"], content["high"]]):
        raise _unlike("its calibration's cues", content["spreads"])
    if MAP not in names:
        raise InputError("its scores are made of other cues than this version's; train again")
    return CueWeights(tuple(names), *map(tuple, numbers), content["low"], content["high"])


def _are_numbers(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_number, value))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


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

"""The one way in for checkpoints: read, recall their settings, open the run they belong to, check that they fit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import prompt
from dataset import ObjectInfo, registry
from engine import few_shot, zero_shot
from engine.build import build_system, encode_prompts, objects_of
from engine.checkpoint import Checkpoint, Snapshot, read
from engine.few_shot_run import FewShotRun
from engine.options import method_of, recall
from engine.run import Run, same_weights
from engine.series import Series
from engine.spec import METHODS, SystemSpec
from runtime.errors import InputError, naming
from runtime.files import sha256
from scoring.reliability import ThresholdRule
from utils import seed_everything

Purpose = Literal["few-shot test", "transfer test", "lab", "ranking", "prediction"]


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint with the run it belongs to; `holds`: whether its own calibration holds for that run."""

    path: Path
    content: Checkpoint
    spec: SystemSpec
    run: Run
    holds: bool

    def load_adapters(self) -> None:
        """Put the last epoch's adapters in place, uncalibrated."""
        with naming(self.path):
            self.run.system.decoder.load_adapters(self.content.last.adapters)

    def load(self, which: Literal["last", "best"] = "last") -> Snapshot | None:
        """Put a snapshot's adapters in place and give it, calibrated; None if the checkpoint lacks it."""
        snapshot = getattr(self.content, which)
        if snapshot is None:
            return None
        loaded = self.run.load_snapshot(snapshot if self.holds else replace(snapshot, calibration=None), self.path)
        rule = getattr(self.spec, "threshold_rule", None)
        of_support = isinstance(self.run, FewShotRun)  # of transfer the rule is its own
        if loaded.calibration is None or rule is None or not of_support or not loaded.calibration.evidence:
            return loaded
        return replace(loaded, calibration=loaded.calibration.by_rule(ThresholdRule.parse(rule)))


def open_checkpoint(
    path: Path,
    kind: type[SystemSpec],
    asked: Mapping[str, Any],
    obj: str | None = None,
    *,
    purpose: Purpose,
    series: Series | None = None,
) -> OpenedCheckpoint:
    """Open a checkpoint of ours, or adapters published by others, for a purpose.

    asked: what the user asked for; the rest is the checkpoint's. obj: the object it is used on; None takes what is
    asked for, else its own. Tests and the lab open the object's test split; ranking needs the support and no
    calibration; for a prediction by adapters of transfer no image of the object is needed. Raises InputError for a file
    that can't be read or does not fit: another object, other weights, other support images, settings that it was not
    trained with.
    """
    content = read(path)
    record = content.record
    if record is None and purpose == "prediction" and obj is None and "obj" not in asked:
        raise InputError(f"{path} does not say what it was trained on: give the object with --obj and --data_path")
    obj = obj or asked.get("obj") or (record or {}).get("obj") or SystemSpec().obj
    spec = recall(kind, asked, content, path, obj)
    _refuse_baseline(path, record, purpose)
    seed_everything(spec.seed)
    transferred = record is not None and "trained_on" in record
    if purpose in ("few-shot test", "ranking") or (purpose != "transfer test" and not transferred):
        if record is not None and record["obj"] != obj:
            mend = "; leave --obj out" if purpose == "prediction" else ""
            raise InputError(f"{path} was trained on {record['obj']}, not on {obj}{mend}")
        objects_of(spec)  # a checkpoint of the demo brings the demo's images with it
        run = few_shot.open_run(spec, obj, series, scored=purpose == "few-shot test")
    else:
        seen = zero_shot.unseen(record, obj, path)
        if transferred:
            _refuse_support(path, asked, purpose)
        if purpose == "prediction":
            run = _without_images(spec, obj, seen, content)
        else:
            objects_of(spec)
            run = zero_shot.open_run(spec, obj, seen, series)
    run.checkpoint_sha256 = sha256(path)
    return OpenedCheckpoint(path, content, spec, run, _holds(run, record, path, purpose))


def _refuse_baseline(path: Path, record: dict | None, purpose: Purpose) -> None:
    """Raise InputError where a baseline's checkpoint is of no use: its adapters or prompts alone, which it has not."""
    method = method_of(record)
    if purpose in ("lab", "ranking", "transfer test") and method != METHODS[0]:
        raise InputError(f"{path} holds a baseline (--method {method}), no use for the {purpose}; name another")


def _refuse_support(path: Path, asked: Mapping[str, Any], purpose: Purpose) -> None:
    """Raise InputError for settings of a support and its memory bank, which adapters of transfer have not.

    The lab opens checkpoints of both kinds by the same settings, so there only the branches must fit.
    """
    unfit = ["branches"] if asked.get("branches", "zero") != "zero" else []
    if purpose == "prediction":
        unfit += [name for name in ("shot", "abnormal_shot", "iterate", "bank_cap") if name in asked]
    if unfit:
        raise InputError(f"{path} holds adapters of transfer, which have no memory bank: leave --{unfit[0]} out")


def _holds(run: Run, record: dict | None, path: Path, purpose: Purpose) -> bool:
    """Whether the checkpoint's own calibration holds for the run; InputError where it does not belong to it."""
    if purpose != "ranking":
        return run.calibration_holds(record, path)
    if record is not None:
        same_weights(run, record, path)
    return False


def _without_images(spec: SystemSpec, obj: str, seen: list[str], content: Checkpoint) -> zero_shot.TransferRun:
    """A transfer run for whatever image comes, by the object's own score rule where that is known, else by that of the
    object that the checkpoint is for."""
    record, benchmark = content.record, (registry.MEDICAL | registry.INDUSTRIAL).get(obj)
    masks = record["masks"] if benchmark is None or obj == record["obj"] else benchmark.masks
    info = named(obj, spec.classname, masks)
    (prompts,) = encode_prompts(spec, [info])  # before the image tower is in memory
    return zero_shot.TransferRun(spec, info, (), build_system(spec), prompts, seen)


def named(obj: str, classname: str | None, masks: bool) -> ObjectInfo:
    """An object as far as its words go: no folder of it is looked at. masks: whether a score is a map's maximum."""
    return ObjectInfo(obj, classname or prompt.class_name(obj), "own images", masks, "own", None, None)


def opened_objects(
    kind: type[SystemSpec],
    asked: Mapping[str, Any],
    run_name: Callable[[str], str],
    purpose: Purpose,
    series: Series | None = None,
) -> Iterator[OpenedCheckpoint]:
    """The checkpoint of every object that --obj or --ckpt names, opened; `run_name` makes an object's file name."""
    spec = kind.of(asked)
    ckpt = spec.ckpt
    if ckpt is not None and "obj" not in asked:
        record = read(ckpt).record or {}
        spec = replace(spec, obj=record.get("obj", spec.obj))
    for obj in objects_of(spec):
        path = ckpt or spec.save_path / f"{run_name(obj)}.pth"
        yield open_checkpoint(path, kind, asked, obj, purpose=purpose, series=series)

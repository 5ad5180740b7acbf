"""Which labs there are, and how one is opened: an object with a few-shot or a transfer checkpoint, or with none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import dataset
from apps.promptlab.lab import Lab
from apps.promptlab.prompt_set import PromptSet
from dataset import ObjectInfo, Sample, demo, registry
from engine import zero_shot
from engine.build import GB, build_system, objects_of, open_encoder
from engine.checkpoint import read
from engine.few_shot import open_support
from engine.few_shot_run import FewShotRun
from engine.open_checkpoint import OpenedCheckpoint, open_checkpoint
from engine.options import method_of, recall, without_adapters
from engine.run import same_weights
from engine.settings import setting
from engine.spec import METHODS, CheckpointSpec, ScoreSpec, SupportSpec, SystemSpec
from engine.system import System
from report.tables import DEMO_NOTE
from runtime.errors import InputError
from runtime.flags import GIGABYTES, number, path
from scoring.raw_scores import ScoreRule, score_rule

SUFFIXES = (".pth", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class LabSpec(CheckpointSpec, ScoreSpec, SupportSpec, SystemSpec):
    """A page on this machine: edit prompts and see what becomes of maps and scores."""

    GROUP: ClassVar = "page"
    save_path: Path = setting(Path("ckpt"), "folder where training put checkpoints", type=path)
    host: str = setting("127.0.0.1", "address to serve at; 0.0.0.0 lets other machines in")
    port: int = setting(7860, "0: any that is free", type=number(int, 0, 65535))
    tokens_gb: float = setting(
        2.0, "what tokens of images may take in memory", type=number(float, 0.1, GIGABYTES), metavar="GB"
    )
    upload_mb: float = setting(32.0, "largest file to upload", type=number(float, 0.1, 1e5), metavar="MB")


def found_objects(spec: LabSpec, asked: Mapping[str, Any]) -> list[str]:
    """The objects that can be chosen: the demo's, or those under --data_path; --obj's first where it is given."""
    if spec.demo:
        names = list(demo.OBJECTS)
    else:
        known = (registry.MEDICAL | registry.INDUSTRIAL).items()
        names = [name for name, info in known if registry.look_for(info, spec.data_path)]
    named = [name for name in dataset.expand(spec.obj) if name in names or "obj" in asked]
    return list(dict.fromkeys([*named, *names])) or [spec.obj]


def found_checkpoints(spec: LabSpec, obj: str) -> dict[str, Path]:
    """Checkpoint files by what they are called on the page: --ckpt's, and under --save_path those named after `obj`."""
    named = {spec.ckpt.name: spec.ckpt} if spec.ckpt else {}
    name = zero_shot.run_name(obj)
    files = sorted(path for path in spec.save_path.rglob("*") if path.suffix in SUFFIXES)
    own = [path for path in files if path.stem == name or path.stem.startswith(f"{name}_")]
    return named | {path.relative_to(spec.save_path).as_posix(): path for path in own}


def open_lab(asked: Mapping[str, Any], obj: str, path: Path | None) -> Lab:
    """The lab of an object under the checkpoint at `path`; None: the bare trunk, prompts alone.

    asked: settings of `LabSpec` by name. Raises InputError for an object or a checkpoint that can't be used, as the
    test scripts do.
    """
    asked = {**asked, "obj": obj}
    if path is None:
        without_adapters(asked)
        return _bare(LabSpec.of(asked))
    try:
        opened = open_checkpoint(path, LabSpec, asked, obj, purpose="lab")
    except InputError as fault:
        return _without_support(asked, obj, path, fault)
    return _with_support(opened)


def _lab(
    spec: LabSpec,
    info: ObjectInfo,
    test: Sequence[Sample],
    system: System,
    rule: ScoreRule,
    notes: Sequence[str],
    **more: Any,
) -> Lab:
    start = PromptSet.of(info.name, spec.prompts, info.classname)
    notes = [*notes, *[DEMO_NOTE] * spec.demo, *spec.notes]
    return Lab(info, test, system, rule, open_encoder(spec), start, spec.tokens_gb * GB, notes=notes, **more)


def _bare(spec: LabSpec) -> Lab:
    """Nothing trained: the trunk's tokens, put into the joint space, under the prompts."""
    (obj,) = objects_of(spec)
    info, test = dataset.open_test(obj, spec.data_path, classname=spec.classname)
    notes = ["no checkpoint: prompts alone, on the bare trunk's tokens", *dataset.own_words(info, spec.classname)]
    return _lab(spec, info, test, build_system(spec, bare=True), score_rule(bool(info.masks)), notes)


def _without_support(asked: Mapping[str, Any], obj: str, path: Path, fault: InputError) -> Lab:
    """A few-shot checkpoint whose support is not at hand: its adapters under the prompts alone, without thresholds.

    Raises `fault`, for which it could not be opened with the support, where it was not the support's absence.
    """
    content = read(path)
    record = content.record
    baseline = method_of(record) != METHODS[0]
    if record is not None and ("trained_on" in record or record["obj"] != obj or baseline):
        raise fault
    spec = recall(LabSpec, asked, content, path, obj)
    try:
        open_support(spec, obj)
    except InputError:
        pass  # the support's absence it was
    else:
        raise fault
    run = zero_shot.open_run(spec, obj, seen=[])
    if record is not None:
        same_weights(run, record, path)
    run.load_snapshot(content.last, path)
    note = f"no support, so prompts alone and no thresholds ({fault})"
    return _lab(spec, run.info, run.test, run.system, score_rule(run.masks), [note])  # the rule of few-shot scoring


def _with_support(opened: OpenedCheckpoint) -> Lab:
    """A run as test scripts open it, with the last epoch's adapters in."""
    run, snapshot = opened.run, opened.load()
    parts = (opened.spec, run.info, run.test, run.system, replace(run.rule, cues=False))
    own = None if snapshot.calibration is None or run.rule.cues else (run.prompts_sha256, snapshot.calibration)
    if not isinstance(run, FewShotRun):
        note = "zero-shot transfer: prompts alone; thresholds hold for the checkpoint's own prompts"
        return _lab(*parts, [note], own=own)
    notes = ["this checkpoint scores images by cues; the lab shows scores of maps"] if run.rule.cues else []
    lab = _lab(*parts, notes, banks=run.banks(keep=True), own=own)
    lab.calibrate_on(
        run.support_tokens(run.rule.map_head), run.support_truth(held_out=not run.trainable), run.calibration_rule
    )
    return lab

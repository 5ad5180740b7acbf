"""Which labs there are, and how one is opened: an object with a few-shot or a transfer checkpoint, or with none."""

import argparse
from pathlib import Path

import dataset
from apps.promptlab.lab import Lab
from apps.promptlab.prompt_set import PromptSet
from dataset import demo, registry
from engine import checkpoint, few_shot, options, zero_shot
from engine.build import GB, build, encoder
from engine.objects import objects
from engine.run import same_object, same_weights
from runtime.errors import InputError

SUFFIXES = (".pth", ".safetensors")


def found_objects(args: argparse.Namespace) -> list[str]:
    """The objects that can be chosen: the demo's, or those under --data_path; --obj's first where it is given."""
    if args.demo:
        names = list(demo.OBJECTS)
    else:
        known = (registry.MEDICAL | registry.INDUSTRIAL).items()
        names = [name for name, info in known if registry.look_for(info, args.data_path)]
    named = [name for name in dataset.expand(args.obj) if name in names or "obj" in args.given]
    return list(dict.fromkeys([*named, *names])) or [args.obj]


def found_checkpoints(args: argparse.Namespace, obj: str) -> dict[str, Path]:
    """Checkpoint files by what they are called on the page: --ckpt's, and under --save_path those named after `obj`."""
    named = {args.ckpt.name: args.ckpt} if args.ckpt else {}
    stem = zero_shot.run_name(obj)
    files = sorted(path for path in args.save_path.rglob("*") if path.suffix in SUFFIXES)
    own = [path for path in files if path.stem == stem or path.stem.startswith(f"{stem}_")]
    return named | {path.relative_to(args.save_path).as_posix(): path for path in own}


def open_lab(args: argparse.Namespace, obj: str, path: Path | None) -> Lab:
    """The lab of an object under the checkpoint at `path`; None: the bare trunk, prompts alone.

    Raises InputError for an object or a checkpoint that can't be used, as the test scripts do.
    """
    args = argparse.Namespace(**vars(args) | {"obj": obj, "ckpt": path})
    if path is None:
        return _bare(args)
    content = checkpoint.read(path)
    args = options.recall(checkpoint.fit_options(args, content), content.record, path, obj)
    objects(args)  # a checkpoint of the demo brings the demo's images with it
    if content.record is not None and "trained_on" in content.record:
        return _opened(args, zero_shot.open_run(args, obj, zero_shot.unseen(content.record, obj, path)), content, path)
    same_object(content.record, obj, path)
    try:
        run = few_shot.open_run(args, obj)
    except InputError as fault:  # whatever else is wrong comes up again without the support
        return _without_support(args, content, path, fault)
    return _opened(args, run, content, path)


def _bare(args: argparse.Namespace) -> Lab:
    """Nothing trained: the trunk's tokens, put into the joint space, under the prompts."""
    (obj,) = objects(args)
    info, test = dataset.open_test(obj, args.data_path, classname=args.classname)
    note = "no checkpoint: prompts alone, on the bare trunk's tokens"
    start = PromptSet.of(info.name, args.prompts, info.classname)
    return Lab(info, test, build(args, "none"), encoder(args), start, args.tokens_gb * GB, notes=[note])


def _without_support(args: argparse.Namespace, content: checkpoint.Checkpoint, path: Path, fault: InputError) -> Lab:
    """A few-shot checkpoint whose support is not at hand: its adapters under the prompts alone, without thresholds."""
    run = zero_shot.open_run(args, args.obj, seen=[])
    if content.record is not None:
        same_weights(run, content.record, path)
    run.put(content.last, path)
    start = PromptSet.of(run.info.name, args.prompts, run.info.classname)
    note = f"no support, so prompts alone and no thresholds ({fault})"
    return Lab(run.info, run.test, run.system, encoder(args), start, args.tokens_gb * GB, notes=[note])


def _opened(
    args: argparse.Namespace,
    run: few_shot.FewShotRun | zero_shot.TransferRun,
    content: checkpoint.Checkpoint,
    path: Path,
) -> Lab:
    """A run as test scripts open it, with the last epoch's adapters in."""
    holds, transfer = run.calibration_holds(content.record, path), isinstance(run, zero_shot.TransferRun)
    stage = content.last if holds else checkpoint.Stage(content.last.epoch, content.last.adapters, None)
    stage = run.put(stage, path)
    start = PromptSet.of(run.info.name, args.prompts, run.info.classname)
    own = None if stage.calibration is None else (run.prompts_sha256, stage.calibration)
    lab = Lab(
        run.info,
        run.test,
        run.system,
        encoder(args),
        start,
        args.tokens_gb * GB,
        transfer=transfer,
        banks={} if transfer else run.banks(keep=True),
        own=own,
        notes=["zero-shot transfer: prompts alone; thresholds hold for the checkpoint's own prompts"] * transfer,
    )
    if not transfer:
        lab.calibrate_on(run.support_tokens(lab.heads[0]), *run.support_truth())
    return lab

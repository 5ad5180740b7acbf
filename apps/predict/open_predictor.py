"""Where a judge comes from: a checkpoint and its support, folders of images, or prompts alone."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import dataset
import prompt
from apps.predict.inputs import Reader, same_files
from apps.predict.predictor import BAR_AFTER, Judge, Known, by_prompts, in_tiles
from apps.predict.reference_folders import open_untrained
from apps.predict.tiles import Tiling
from dataset import ObjectInfo, Sample, load_mask, open_picture
from engine import checkpoint, few_shot, options, zero_shot
from engine.build import build, encoder, sentences
from engine.checkpoint import Checkpoint
from engine.objects import objects
from engine.system import System
from runtime.errors import InputError
from scoring.calibration import Calibration
from utils import seed_everything

FOLDERS = "the folders of known images"
NORMAL_TOP = 2.0  # colours end at this many times the range of normal images, where no abnormal ones were at hand


def open_judge(args: argparse.Namespace, reader: Reader, files: Sequence[Path]) -> tuple[Judge, dict]:
    """The judge that the options of predict.py ask for, and what its record says of where it comes from.

    How many of the `files` to be scored are in its support is printed.

    Raises InputError for whatever is missing or does not fit.
    """
    seed_everything(args.seed)
    if args.ckpt:
        judge, origin = of_checkpoint(args, files)
    elif args.normal:
        judge, origin = of_folders(args, reader, files)
    else:
        judge, origin = of_prompts(args)
    if args.tile and judge.tiling is None:
        print("scale and thresholds are of whole images" if judge.calibrated else "nothing is calibrated on tiles")
        judge = replace(judge, tiling=tiling(args))
    said = {"image": args.threshold, "pixel": args.pixel_threshold}
    given = {kind: {judge.branch: value} for kind, value in said.items() if value is not None}
    judge = replace(judge, calibration=replace(judge.calibration, **given))
    return judge, {"weights_sha256": judge.system.weights_sha256} | origin


def tiling(args: argparse.Namespace) -> Tiling:
    """What --tile and --overlap say."""
    return Tiling(args.tile, args.overlap)


def _note_seen(support: Sequence[Sample], files: Sequence[Path]) -> None:
    """Print how many of the files to score are in the support: what they get is no score of unseen images."""
    if seen := same_files(files, (sample.image for sample in support)):
        print(f"in the support too: {len(seen)} of the {len(files)} files to score")


def of_checkpoint(args: argparse.Namespace, files: Sequence[Path]) -> tuple[Judge, dict]:
    """Trained adapters: few-shot ones with the memory bank of their support, transferred ones with prompts alone."""
    content = checkpoint.read(args.ckpt)
    record = content.record
    if record is None and "obj" not in args.given:
        raise InputError(
            f"{args.ckpt} does not say what it was trained on: give the object with --obj and --data_path, or --normal"
            " without --ckpt"
        )
    obj = args.obj if "obj" in args.given or record is None else record["obj"]
    recalled = options.recall(checkpoint.fit_options(args, content), record, args.ckpt, obj)
    if record is not None and "trained_on" in record:
        return _transferred(recalled, obj, content)
    if record is not None and record["obj"] != obj:
        raise InputError(f"{args.ckpt} was trained on {record['obj']}, not on {obj}; leave --obj out")
    objects(recalled)  # a checkpoint of the demo brings the demo's images with it
    run = few_shot.open_run(recalled, obj)
    holds = run.calibration_holds(record, args.ckpt)
    stage = run.put(content.last if holds else replace(content.last, calibration=None), args.ckpt)
    top = 1.0 if run.data.support_abnormal else NORMAL_TOP
    judge = Judge(
        *(run.system, run.scored_text(), run.banks(keep=True), run.masks, False, stage.calibration, True),
        top=top,
        source="the checkpoint's support",
    )
    samples = (*run.data.support_abnormal, *run.data.support_normal)
    _note_seen(samples, files)
    known = [_known(source, sample, run.masks, run.system.size) for source, sample in enumerate(samples)]
    origin = {"obj": obj, "epoch": stage.epoch, "support": run.origin()["support"]}
    origin |= {"options": options.plain(run.args), "prompts_sha256": run.prompts_sha256}
    return in_tiles(judge, known, tiling(run.args), run.args) if _exceed(args, known) else judge, origin


def _known(source: int, sample: Sample, masks: bool, size: int) -> Known:
    """A support image for calibration in tiles."""
    mask = partial(_mask, sample.mask, size) if masks and sample.mask else None
    return Known(source, sample.label, partial(open_picture, sample.image), mask)


def _mask(file: Path, size: int) -> np.ndarray:
    return load_mask(file, size)[0].numpy() > 0.5


def _exceed(args: argparse.Namespace, support: Sequence[Known]) -> bool:
    """Whether a support image is larger than a tile, so that what holds of the whole image does not hold of tiles."""
    bar = tqdm(support, "support", unit="image", leave=False, delay=BAR_AFTER)
    return bool(args.tile) and any(max(known.picture().size) > args.tile for known in bar)


def _transferred(args: argparse.Namespace, obj: str, content: Checkpoint) -> tuple[Judge, dict]:
    """Adapters that were trained on other objects."""
    record, seen = content.record, zero_shot.trained_on(content.record)
    if known := [name for name in seen if name in dataset.barred(obj)]:
        raise InputError(f"{args.ckpt} was trained on {known[0]}, so this would be no zero-shot scoring of {obj}")
    info = _info(args, obj, record["masks"])
    with encoder(args) as encode:
        words = sentences(args, info)
        text = encode.directions(*words)
    system = build(args)
    digest = prompt.digest(*words)
    run = zero_shot.TransferRun(args, info, (), system, text.to(system.device), digest, seen)
    holds = run.calibration_holds(record, args.ckpt)
    stage = run.put(content.last if holds else replace(content.last, calibration=None), args.ckpt)
    calibration = stage.calibration or _no_calibration(system)
    judge = Judge(system, run.text, {}, run.masks, True, calibration, stage.calibration is not None)
    if judge.calibrated:
        judge = replace(judge, source="images of the objects trained on")
    origin = {"obj": obj, "epoch": stage.epoch, "trained_on": seen}
    return judge, origin | {"options": options.plain(args), "prompts_sha256": digest}


def of_folders(args: argparse.Namespace, reader: Reader, files: Sequence[Path]) -> tuple[Judge, dict]:
    """No training: the bank is of the bare trunk's tokens of --normal, thresholds lie below those of --abnormal."""
    system, text, origin = _bare(args, wanted=args.branches != "few")
    info = _info(args, origin["obj"], args.score == "max")
    run = open_untrained(args, info, system, text, origin["prompts_sha256"], Reader(reader.axis, reader.window))
    _note_seen((*run.data.support_abnormal, *run.data.support_normal), files)
    top = 1.0 if args.abnormal else NORMAL_TOP
    origin |= run.origin()
    if _exceed(args, run.pictures):
        judge = Judge(system, text, {}, run.masks, False, _no_calibration(system), True, top=top, source=FOLDERS)
        return in_tiles(judge, run.pictures, tiling(args), args), origin
    if len(run.support.labels) > len(run.pictures):
        print(f"each in {len(run.support.labels) // len(run.pictures)} variants, as in few-shot training")
    banks, calibration = run.banks(keep=True), run.calibrate()
    return Judge(system, text, banks, run.masks, False, calibration, True, top=top, source=FOLDERS), origin


def of_prompts(args: argparse.Namespace) -> tuple[Judge, dict]:
    """No images of known label either."""
    if args.branches == "few":
        raise InputError("--branches few needs normal images for the memory bank: give their folder with --normal")
    system, text, origin = _bare(args, wanted=True)
    return Judge(system, text, {}, args.score == "max", False, _no_calibration(system), False), origin


def _bare(args: argparse.Namespace, wanted: bool) -> tuple[System, torch.Tensor | None, dict]:
    """The bare trunk, the text directions if `wanted`, and the record's part on both. InputError without words."""
    if args.classname is None and "obj" not in args.given:
        if wanted:
            raise InputError("say what the images show: --classname 'solar cell', or --obj for an object of prompt.py")
        args.classname = "object"
    obj = args.obj if "obj" in args.given else args.classname
    text, digest = None, ""
    if wanted:
        words = sentences(args, _info(args, obj, False))
        digest = prompt.digest(*words)
        with encoder(args) as encode:  # before the image tower is in memory
            text = encode.directions(*words)
    system = build(args, adapter="none")
    return system, None if text is None else text.to(system.device), {"obj": obj, "prompts_sha256": digest}


def _info(args: argparse.Namespace, obj: str, masks: bool) -> ObjectInfo:
    """An object as far as its words go: no folder of it is looked at. masks: whether a score is a map's maximum."""
    return ObjectInfo(obj, args.classname or prompt.class_name(obj), "own images", masks, "own", None, None)


def _no_calibration(system: System) -> Calibration:
    return by_prompts(len(system.decoder.taps))

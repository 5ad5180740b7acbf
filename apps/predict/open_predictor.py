"""Where predict.py's predictor comes from: a checkpoint and its support, folders of images, or prompts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from apps.predict.inputs import Reader, same_files
from apps.predict.manners import manners_of
from apps.predict.own_words import UNKNOWN, own_words
from apps.predict.reference_folders import open_untrained
from apps.predict.spec import PredictSpec
from dataset import Sample
from engine.build import EncodedPrompts, build_system, encode_prompts
from engine.few_shot_run import FewShotRun
from engine.open_checkpoint import named, open_checkpoint
from engine.picture_scorer import by_prompts
from engine.predictor import NORMAL_TOP, Predictor, of_opened, settled, support_of, tiling_of
from engine.recipe import PAPER, ROBUST
from engine.system import System
from engine.tiled_calibration import in_tiles
from runtime.errors import InputError
from scoring.raw_scores import score_rule
from utils import seed_everything

FOLDERS = "the folders of known images"


def open_predictor(
    spec: PredictSpec, asked: Mapping[str, Any], reader: Reader, files: Sequence[Path]
) -> tuple[Predictor, dict]:
    """The predictor that predict.py is asked for, and what its record says of where it comes from.

    How many of the `files` to be scored are in its support is printed.

    Raises InputError for whatever is missing or does not fit.
    """
    if spec.ckpt:
        predictor, origin = of_checkpoint(spec.ckpt, asked, files)
    else:
        seed_everything(spec.seed)
        spec = untrained_recipe(spec, asked)
        predictor, origin = of_folders(spec, asked, reader, files) if spec.normal else of_prompts(spec, asked)
        predictor = settled(predictor, spec)
    origin["options"] |= {"features_list": list(predictor.system.decoder.taps)}
    return predictor, {"weights_sha256": predictor.system.weights_sha256} | origin


def of_checkpoint(path: Path, asked: Mapping[str, Any], files: Sequence[Path]) -> tuple[Predictor, dict]:
    """Trained adapters: few-shot ones with the memory bank of their support, transferred ones with prompts alone."""
    opened = open_checkpoint(path, PredictSpec, asked, purpose="prediction")
    run = opened.run
    if asked.get("roi") and isinstance(run, FewShotRun) and run.rule.cues:
        raise InputError(f"{path} scores an image as a whole (--image_score cues) and no region of it; leave --roi out")
    if isinstance(run, FewShotRun):
        _note_seen(support_of(run), files)
    origin = {"obj": run.info.name, "epoch": opened.content.last.epoch} | run.origin()
    origin.pop("counts", None)  # of a test split that is not scored here
    origin |= {"options": run.spec.plain(), "prompts_sha256": run.prompts_sha256}
    if isinstance(run, FewShotRun):
        origin |= _seen(Reader(), run)
    return of_opened(opened), origin


def of_folders(
    spec: PredictSpec, asked: Mapping[str, Any], reader: Reader, files: Sequence[Path]
) -> tuple[Predictor, dict]:
    """No training: the bank is of the bare trunk's tokens of --normal, thresholds lie below those of --abnormal."""
    spec, obj, prompts, system = _bare(spec, asked, wanted=spec.branches != "few")
    run = open_untrained(spec, asked, obj, system, prompts, Reader(reader.axis, reader.window))
    _note_seen(support_of(run), files)
    told = {"top": 1.0 if spec.abnormal else NORMAL_TOP, "source": FOLDERS}
    told |= {"finding_texts": None if prompts is None else prompts.findings}
    origin = {"obj": obj, "prompts_sha256": run.prompts_sha256} | run.origin() | _seen(reader, run)
    if tiling := tiling_of(spec, run.pictures):
        scale = by_prompts(system.decoder.levels)
        blank = Predictor(system, run.scored_text(), {}, run.rule, scale, True, **told)
        predictor, used = in_tiles(blank, run.pictures, tiling, run.spec)
        return predictor, origin | {"options": used.plain()}
    if len(run.support.labels) > len(run.pictures):
        print(f"each in {len(run.support.labels) // len(run.pictures)} variants, as in few-shot training")
    found = (run.banks(keep=True), run.rule, run.calibrate())
    predictor = Predictor(system, run.scored_text(), *found, True, reader=run.reader(), **told)
    return predictor, origin | {"options": run.spec.plain()}


def untrained_recipe(spec: PredictSpec, asked: Mapping[str, Any]) -> PredictSpec:
    """The spec with the robust recipe unless another is asked for, or no folds; where scores must be those of maps
    (tiles, regions, --score), images are scored by these."""
    of_maps = spec.tile or spec.roi or "score" in asked
    if of_maps and "image_score" not in asked:
        spec = replace(spec, image_score="published", head="none")
    return spec.of_recipe(ROBUST if spec.folds else PAPER)


def of_prompts(spec: PredictSpec, asked: Mapping[str, Any]) -> tuple[Predictor, dict]:
    """No images of known label either."""
    if spec.branches == "few":
        raise InputError("--branches few needs normal images for the memory bank: give their folder with --normal")
    spec, obj, prompts, system = _bare(spec, asked, wanted=True)
    rule, scale = score_rule(spec.score == "max"), by_prompts(system.decoder.levels)
    predictor = Predictor(system, prompts.text_directions, {}, rule, scale, False, finding_texts=prompts.findings)
    return predictor, {"obj": obj, "prompts_sha256": prompts.sha256, "options": spec.plain()}


def _bare(
    spec: PredictSpec, asked: Mapping[str, Any], wanted: bool
) -> tuple[PredictSpec, str, EncodedPrompts | None, System]:
    """The spec with words for the object, its name, its prompts if `wanted`, and the bare trunk.

    Words are those of --classname, those of --obj, or else the name of the folder of images, which is then said.
    """
    if spec.classname is None and "obj" not in asked:
        spec = replace(spec, classname=own_words(spec) if wanted else UNKNOWN)
    obj, prompts = spec.obj if "obj" in asked else spec.classname, None
    if wanted:
        (prompts,) = encode_prompts(spec, [named(obj, spec.classname, False)])  # before the image tower is in memory
    return spec, obj, prompts, build_system(spec, bare=True)


def _seen(reader: Reader, run: FewShotRun) -> dict:
    """How the support's files are seen, for the record."""
    files = [sample.image for sample in support_of(run)]
    return {"support_seen": [asdict(one) for one in manners_of(replace(reader, masks=None), files)]}


def _note_seen(support: Sequence[Sample], files: Sequence[Path]) -> None:
    """Print how many of the files to score are in the support: what they get is no score of unseen images."""
    if seen := same_files(files, (sample.image for sample in support)):
        print(f"in the support too: {len(seen)} of the {len(files)} files to score")

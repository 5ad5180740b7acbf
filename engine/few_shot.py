"""Few-shot runs opened and trained."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

import dataset
from dataset import FewShotSet
from engine.baselines import baseline_run
from engine.build import build_system, encode_prompts, objects_of, resolve, sentences
from engine.evaluations import Evaluations
from engine.few_shot_run import FewShotRun, run_name
from engine.fold_training import best_epoch, few_shot_steps, out_of_fold, training_key
from engine.recipe import PAPER, ROBUST, RecipeSpec
from engine.run import Identity, identity, write_means
from engine.run_folder import RunFolder
from engine.series import Series
from engine.spec import FEW_EVERY, METHODS, NO_ADAPTER, FewShotSpec, SupportSpec
from engine.support import Support, load_support, support_files, support_key, with_synthetic
from engine.training import Trainer, Training, finish, open_outputs
from engine.unfinished import TrainingHistory
from prompt import digest
from report.tables import Result
from runtime import distributed
from runtime.errors import InputError
from utils import seed_everything

SCRIPT = "train_few"


def protocol(spec: SupportSpec) -> int | Literal["normal"]:
    """Which published numbers stand beside a run's: those of k-shot, or of a memory bank of normal images alone."""
    return spec.shot if spec.abnormal_shot else "normal"


def open_run(spec: FewShotSpec, obj: str, series: Series | None = None, scored: bool = True) -> FewShotRun:
    """Check and read the data, encode the prompts, build the model; says what it found, and what of it is `scored`.

    With --abnormal_shot 0 nothing can be trained: the memory bank then runs on the bare trunk's tokens. With --adapter
    none nothing is trained either, and the prompts score the same tokens, projected to the joint space.
    series: of runs that share what they can.
    """
    series = series or Series()
    spec, data = prepare(spec, obj, scored)
    prompts = None
    if has_words(spec, data):
        (prompts,) = encode_prompts(spec, [data.info])  # before the image tower is in memory
    bare = not data.support_abnormal and spec.adapter != NO_ADAPTER and not _is_baseline(spec)
    if why := _untrained_because(spec, bare):
        print(why)
    system = build_system(spec, bare=bare, series=series)
    support = series.once("support", support_key(data, spec.img_size), lambda: load_support(data, spec.img_size))
    if getattr(spec, "synthetic", 0) and data.support_abnormal and not _is_baseline(spec):
        support = with_synthetic(support, spec.synthetic, spec.seed)
    if _is_baseline(spec):
        return baseline_run(spec, data, system, prompts, support, series)
    return FewShotRun(spec, data.info, data.test, system, prompts, data, support, series=series)


def _is_baseline(spec: SupportSpec) -> bool:
    return getattr(spec, "method", METHODS[0]) != METHODS[0]  # ranking has none


def _untrained_because(spec: FewShotSpec, bare: bool) -> str:
    """Why nothing will be trained; empty where something is."""
    if _is_baseline(spec):
        return f"{spec.method}: a baseline on the trunk's own tokens, nothing is trained"
    if bare:
        return "no abnormal support: nothing to train, the memory bank runs on the trunk's own tokens (branch few)"
    untrained = spec.adapter == NO_ADAPTER
    return "--adapter none: nothing to train, bank and prompts score the trunk's own tokens" if untrained else ""


def prepare(spec: FewShotSpec, obj: str, scored: bool = True) -> tuple[FewShotSpec, FewShotSet]:
    """The spec as it will run, and the data, checked and not yet read; says what it found.

    Raises InputError for what contradicts itself: nothing to train and nothing else to score, or the `linear` baseline
    without abnormal images.
    """
    trained = not _is_baseline(spec) and spec.adapter != NO_ADAPTER
    if trained and spec.abnormal_shot == 0 and spec.branches == "zero":
        raise InputError("--branches zero needs adapters, and --abnormal_shot 0 trains none; leave one of the two out")
    data = open_data(spec, obj, scored)
    return settled(spec, data), data


def settled(spec: FewShotSpec, data: FewShotSet) -> FewShotSpec:
    """The spec as it will run on these images: the memory bank alone scores without abnormal support, or in baselines
    that have no words; benchmarks are evaluated after every epoch, as published, and own images at the end, by the
    robust recipe where --folds let it."""
    own = data.info.layout == "own"
    if getattr(spec, "eval_every", 0) is None:  # test scripts have none
        spec = replace(spec, eval_every=FEW_EVERY * (not own))
    if isinstance(spec, RecipeSpec):  # ranking has none
        spec = spec.of_recipe(ROBUST if own and spec.folds else PAPER)
    if _is_baseline(spec):
        if spec.method == "linear" and not data.support_abnormal:
            raise InputError("--method linear is fitted on both labels: leave --abnormal_shot 0 out")
        return spec if spec.method == "winclip" else replace(spec, branches="few")
    return spec if data.support_abnormal or spec.adapter == NO_ADAPTER else replace(spec, branches="few")


def has_words(spec: FewShotSpec, data: FewShotSet) -> bool:
    """Whether a run of what `prepare` gave encodes sentences."""
    if _is_baseline(spec):
        return spec.method == "winclip" and spec.branches != "few"
    return bool(data.support_abnormal) or spec.adapter == NO_ADAPTER


def identity_of(spec: FewShotSpec, data: FewShotSet, script: str = SCRIPT, checkpoint_sha256: str = "") -> Identity:
    """What a run of what `prepare` gave will be found by (`Run.identity`), without its model."""
    words = sentences(spec, data.info) if has_words(spec, data) else None
    digests = [resolve(spec).sha256, digest(*words) if words else "", *filter(None, [checkpoint_sha256])]
    name = run_name(data.info.name, spec.shot)
    return identity(spec, script, name, data.info, data.test, support_files(data), digests)


def open_support(spec: FewShotSpec, obj: str) -> tuple[FewShotSet, Support]:
    """Check the data, read the support in all its variants; says what it found."""
    data = open_data(spec, obj, scored=False)
    return data, load_support(data, spec.img_size)


def open_data(spec: FewShotSpec, obj: str, scored: bool = True) -> FewShotSet:
    """Check the data; says what it found, and how many images will be `scored` if they will."""
    data = dataset.open_few(
        obj,
        spec.data_path,
        spec.shot,
        spec.abnormal_shot,
        spec.iterate,
        spec.seed,
        classname=spec.classname,
        use_seed_files=not spec.demo,
    )
    notes = (*dataset.passed_over(data.info, spec.data_path), *dataset.own_words(data.info, spec.classname))
    print(*notes, dataset.describe(data.counts, scored), sep="\n")
    return data


def train_few_shot(spec: FewShotSpec, series: Series | None = None) -> list[Result]:
    """Train adapters for every object that --obj names, evaluate and save them (the paper's "Few-shot training").

    Gives for each object the result of the last epoch and, unless --eval_every is 0, of the best one on the test set.
    Writes the checkpoint, results.json and results.csv. series: the runs that these are some of. Raises InputError for
    whatever is missing or does not fit.
    """
    distributed.refuse(f"{SCRIPT}.py")
    objects = objects_of(spec)
    results = [result for obj in objects for result in _train_object(spec, obj, len(objects) > 1, series)]
    write_means(spec, SCRIPT, run_name(spec.obj, spec.shot), results)
    return results


def _train_object(spec: FewShotSpec, obj: str, among: bool, series: Series | None) -> list[Result]:
    started = time.time()
    seed_everything(spec.seed)
    run = open_run(spec, obj, series)
    spec = run.spec  # with its recipe
    if spec.resume and among and (done := run.finished(SCRIPT)):
        print(f"{obj}: finished before")
        return done
    with open_outputs(run, SCRIPT, among) as folder:
        if not run.trainable:
            return finish(run, SCRIPT, folder, TrainingHistory.untrained(run.system.decoder), started)
        start, epochs = run.system.decoder.adapter_state(), spec.epoch
        if spec.epoch_by == "support" and spec.epoch:
            every = out_of_fold(run, folder, start, range(1, spec.epoch + 1))
            epochs = best_epoch(run, every)
            run.out_of_fold = every
            print(f"epoch {epochs} of {spec.epoch}: the best on folds of the support")
            run.system.decoder.load_adapters(start)
        training = _training(run, folder, started, epochs)
        history = training.train() if spec.eval_every else _shared(run, epochs, training)
        if spec.folds and not run.out_of_fold:
            averaged = spec.average_epochs > 1  # then folds say nothing of the best epoch by itself
            known = (history.last, None if averaged else history.best)
            wanted = {one.epoch for one in known if one is not None and one.epoch}
            run.out_of_fold = out_of_fold(run, folder, start, wanted) if wanted else {}
        return finish(run, SCRIPT, folder, history, training.started)


def _shared(run: FewShotRun, epochs: int, training: Training) -> TrainingHistory:
    """The history of a training without evaluations, or of one that came to the same adapters."""
    history = run.series.once("trained", (*training_key(run), epochs), training.train)
    return replace(history, last_scores=None, best_scores=None)


def _training(run: FewShotRun, folder: RunFolder, started: float, epochs: int) -> Training:
    spec, order = run.spec, torch.Generator().manual_seed(run.spec.seed)
    trainer, rows = Trainer(run.system, spec.learning_rate), torch.arange(len(run.support.labels))

    def epoch_losses(done: int) -> Iterator[torch.Tensor]:
        return few_shot_steps(run, trainer, order, rows, done)

    steps, when = math.ceil(len(rows) / spec.batch_size), Evaluations(spec.eval_every)
    return Training(run, folder, trainer, order, epoch_losses, steps, when, started, epochs, spec.average_epochs)

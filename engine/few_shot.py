"""Few-shot runs opened and trained."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

import dataset
from dataset import FewShotSet
from engine.baselines import open_baseline
from engine.build import build_system, encode_prompts, objects_of
from engine.few_shot_run import FewShotRun, run_name
from engine.run import write_means
from engine.run_folder import RunFolder
from engine.spec import METHODS, NO_ADAPTER, FewShotSpec, SupportSpec
from engine.support import Support, load_support
from engine.training import Evaluations, Trainer, Training, finish, open_outputs, shuffled
from engine.unfinished import TrainingHistory
from report.tables import Result
from runtime import distributed
from runtime.errors import InputError
from utils import seed_everything

SCRIPT = "train_few"


def protocol(spec: SupportSpec) -> int | Literal["normal"]:
    """Which published numbers stand beside a run's: those of k-shot, or of a memory bank of normal images alone."""
    return spec.shot if spec.abnormal_shot else "normal"


def open_run(spec: FewShotSpec, obj: str) -> FewShotRun:
    """Check and read the data, encode the prompts, build the model; says what it found.

    With --abnormal_shot 0 nothing can be trained: the memory bank then runs on the bare trunk's tokens. With --adapter
    none nothing is trained either, and the prompts score the same tokens, projected to the joint space.
    """
    method = getattr(spec, "method", METHODS[0])  # ranking has none
    untrained = spec.adapter == NO_ADAPTER
    if method == METHODS[0] and spec.abnormal_shot == 0 and not untrained and spec.branches == "zero":
        raise InputError("--branches zero needs adapters, and --abnormal_shot 0 trains none; leave one of the two out")
    data, support = open_support(spec, obj)
    if method != METHODS[0]:
        return open_baseline(spec, data, support)
    bare, prompts = not data.support_abnormal and not untrained, None
    if bare:
        print("no abnormal support: nothing to train, the memory bank runs on the trunk's own tokens (branch few)")
        spec = replace(spec, branches="few")
    else:
        if untrained:
            print("--adapter none: nothing to train, bank and prompts score the trunk's own tokens")
        (prompts,) = encode_prompts(spec, [data.info])  # before the image tower is in memory
    return FewShotRun(spec, data.info, data.test, build_system(spec, bare=bare), prompts, data, support)


def open_support(spec: FewShotSpec, obj: str) -> tuple[FewShotSet, Support]:
    """Check the data, read the support in all its variants; says what it found."""
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
    print(*dataset.passed_over(data.info, spec.data_path), dataset.describe(data.counts), sep="\n")
    return data, load_support(data, spec.img_size)


def train_few_shot(spec: FewShotSpec) -> list[Result]:
    """Train adapters for every object that --obj names, evaluate and save them (the paper's "Few-shot training").

    Gives for each object the result of the last epoch and, unless --eval_every is 0, of the best one on the test set.
    Writes the checkpoint, results.json and results.csv. Raises InputError for whatever is missing or does not fit.
    """
    distributed.refuse(f"{SCRIPT}.py")
    objects = objects_of(spec)
    results = [result for obj in objects for result in _train_object(spec, obj, among=len(objects) > 1)]
    write_means(spec, SCRIPT, run_name(spec.obj, spec.shot), results)
    return results


def _train_object(spec: FewShotSpec, obj: str, among: bool) -> list[Result]:
    started = time.time()
    seed_everything(spec.seed)
    run = open_run(spec, obj)
    if spec.resume and among and (done := run.finished(SCRIPT)):
        print(f"{obj}: finished before")
        return done
    with open_outputs(run, SCRIPT, among) as folder:
        if not run.trainable:
            return finish(run, SCRIPT, folder, TrainingHistory.untrained(run.system.decoder), started)
        training = _training(run, folder, started)
        return finish(run, SCRIPT, folder, training.train(), training.started)


def _training(run: FewShotRun, folder: RunFolder, started: float) -> Training:
    spec, support, order = run.spec, run.support, torch.Generator().manual_seed(run.spec.seed)
    masks, text = support.masks if run.masks else None, run.prompts.text_directions
    trainer, prefixes = Trainer(run.system, spec.learning_rate), run.keep_prefixes()

    def epoch_losses(done: int) -> Iterator[float]:
        for rows in shuffled(len(support.labels), spec.batch_size, order)[done:]:
            part = None if masks is None else masks[rows]
            yield trainer.step(prefixes[rows], support.labels[rows], part, text)

    steps = math.ceil(len(support.labels) / spec.batch_size)
    return Training(run, folder, trainer, order, epoch_losses, steps, Evaluations(spec.eval_every), started)

"""Zero-shot transfer runs: adapters from all other medical objects, the prompts alone score; and their training."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

import dataset
from dataset import Batches, ImageSet, ObjectInfo, Sample, readers
from engine.build import EncodedPrompts, build_system, encode_prompts, objects_of, resolve, sentences
from engine.evaluations import Evaluations
from engine.run import Identity, Run, identity, same_weights, write_means
from engine.run_folder import RunFolder
from engine.score_images import ground_truth, score_images
from engine.series import Series
from engine.spec import ZERO_EVERY, TransferSpec
from engine.training import Trainer, Training, finish, open_outputs
from engine.unfinished import TrainingHistory
from prompt import digest
from report.tables import Result
from runtime import distributed
from runtime.bars import Bar
from runtime.errors import InputError
from scoring.calibration import CALIBRATION_IMAGES, CalibrationRule, Known, calibrate
from scoring.maps import Calibration
from scoring.patch_scores import PatchScores
from scoring.raw_scores import RawScores, ScoreRule, score_rule
from scoring.reliability import ThresholdRule
from utils import seed_everything

SCRIPT = "train_zero"
F1 = CalibrationRule(ThresholdRule("f1"))  # of images that were trained on nothing finer can be said


@dataclass(frozen=True)
class TrainingObject:
    """An object that is trained on: its test split, and its own prompts."""

    info: ObjectInfo
    samples: tuple[Sample, ...]
    prompts: EncodedPrompts

    def some(self, seed: int) -> tuple[Sample, ...]:
        """At most `CALIBRATION_IMAGES` of its samples, drawn by the seed, in their order."""
        rows = np.random.default_rng(seed).permutation(len(self.samples))[:CALIBRATION_IMAGES]
        return tuple(self.samples[row] for row in sorted(rows))


@dataclass
class TransferRun(Run):
    """A run on a target object that was never trained on; the zero branch alone is scored."""

    spec: TransferSpec
    trained_on: list[str] = field(default_factory=list)
    sources: list[TrainingObject] = field(default_factory=list)  # in training

    @property
    def name(self) -> str:
        """Brain, mvtec_bottle."""
        return run_name(self.info.name)

    @property
    def title(self) -> str:
        """Brain, zero-shot transfer."""
        return f"{self.info.name}, zero-shot transfer"

    @property
    def rule(self) -> ScoreRule:
        return score_rule(self.masks, transfer=True)

    @property
    def calibration_note(self) -> str:
        """A sentence on the sources."""
        return (
            f"Scores and thresholds are calibrated on training images of {', '.join(self.trained_on)}: the threshold "
            "is the one with the largest F1 there. Nothing of the images below went into it."
        )

    def files(self) -> Iterator[object]:
        """Of the sources; all their bytes would be too many to read."""
        return source_files([source.samples for source in self.sources])

    def scored_text(self) -> Tensor:
        """The text directions (D, 2)."""
        return self.prompts.text_directions

    def score_test(self, again: bool = False) -> RawScores:
        return self.rule.raw_scores(self._patch_scores(self.test, self.prompts, **self._reading(again)))

    def _patch_scores(
        self, samples: tuple[Sample, ...], prompts: EncodedPrompts, **reading: Any
    ) -> dict[str, PatchScores]:
        """Patch scores by head, of any object's samples under its own prompts; `reading` as in `score_images`."""
        return score_images(self.system, samples, self.rule.heads, prompts.text_directions, {}, **reading)

    def calibrate(self, epoch: float | None = None) -> Calibration | None:
        """Scales and thresholds from training images of the sources, never from the target; None without sources."""
        if not self.sources:
            return None
        size = self.system.size
        masked = [source for source in self.sources if source.info.masks] or self.sources
        some = {source.info.name: source.some(self.spec.seed) for source in self.sources}
        reading = self._reading(again=True) | {"held": None}  # which holds the test images
        found = {one.info.name: self._patch_scores(some[one.info.name], one.prompts, **reading) for one in self.sources}
        det = PatchScores.join([found[source.info.name]["det"] for source in self.sources])
        labels = np.concatenate([ground_truth(samples, size, False)[0] for samples in some.values()])
        if not self.masks:
            return calibrate(RawScores(det, det), _seen(labels, None), size, F1)
        seg = PatchScores.join([found[source.info.name]["seg"] for source in masked])
        masks = np.concatenate([ground_truth(some[source.info.name], size, True)[1][:] for source in masked])
        return calibrate(RawScores(seg, det), _seen(labels, masks), size, F1)

    def origin(self) -> dict:
        """Counts, and the objects trained on."""
        return {"counts": {"test": dataset.count(self.test, self.info.test)}, "trained_on": self.trained_on}

    def calibration_holds(self, record: dict | None, source: Path) -> bool:
        """Whether it holds: the same prompts, several objects trained on. InputError for other weights."""
        if record is None:
            return False
        same_weights(self, record, source)
        same = record["prompts_sha256"] == self.prompts_sha256
        if same and "trained_on" in record:
            return True
        what = "adapters of one object" if same else "the prompts are not those of the training run"
        print(f"{what}: the stored thresholds are left out")
        return False


def _seen(labels: np.ndarray, masks: np.ndarray | None) -> Known:
    """Images that were trained on, each by itself."""
    return Known(labels, masks, np.arange(len(labels)), held_out=False)


def run_name(obj: str) -> str:
    """Brain, mvtec_bottle."""
    return obj.replace("/", "_")


def trained_on(record: dict | None) -> list[str]:
    """The objects that a checkpoint of either training script was trained on; none are known without a record."""
    return [] if record is None else record.get("trained_on", [record["obj"]])


def unseen(record: dict | None, obj: str, path: Path) -> list[str]:
    """`trained_on`; raises InputError when `obj` is among these objects, or shares its images with one."""
    seen = trained_on(record)
    if known := [name for name in seen if name in dataset.barred(obj)]:
        itself = "itself" if known[0] == obj else f"under the name {known[0]}"
        raise InputError(f"{path} was trained on {obj} {itself}, so this would be no zero-shot result")
    return seen


def source_files(splits: Sequence[Sequence[Sample]]) -> Iterator[object]:
    """Names and sizes of the images that are trained on."""
    paths = (sample.image for samples in splits for sample in samples)
    return ((path.name, path.stat().st_size) for path in paths)


@dataclass(frozen=True)
class TransferSet:
    """What a transfer run reads: the target with its test split, and the other objects with theirs."""

    info: ObjectInfo
    test: tuple[Sample, ...]
    others: list[tuple[ObjectInfo, tuple[Sample, ...]]]


def prepare(spec: TransferSpec, obj: str) -> TransferSet:
    """The data of a training, checked and not yet read; says what it found."""
    info, test = open_target(spec, obj)
    return TransferSet(info, test, _open_others(spec, info))


def settled(spec: TransferSpec, target: ObjectInfo) -> TransferSpec:
    """The spec as it will run: benchmarks are evaluated in each epoch, as published, and own images at the end."""
    if getattr(spec, "eval_every", 0) is None:  # test scripts have none
        return replace(spec, eval_every=ZERO_EVERY * (target.layout != "own"))
    return spec


def identity_of(spec: TransferSpec, data: TransferSet) -> Identity:
    """What a run of what `prepare` gave will be found by (`Run.identity`), without its model."""
    spec = settled(spec, data.info)
    digests = [resolve(spec).sha256, digest(*sentences(spec, data.info))]
    files = source_files([samples for _, samples in data.others])
    return identity(spec, SCRIPT, run_name(data.info.name), data.info, data.test, files, digests)


def open_target(spec: TransferSpec, obj: str) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """Check and read the target's test split; says what it found."""
    info, test = dataset.open_test(obj, spec.data_path, classname=spec.classname)
    line = f"{info.name}: zero-shot target, {found(test, None if spec.demo else info.test)}"
    print(*dataset.passed_over(info, spec.data_path), *dataset.own_words(info, spec.classname), line, sep="\n")
    return info, test


def open_run(spec: TransferSpec, obj: str, seen: list[str] | None = None, series: Series | None = None) -> TransferRun:
    """Open the target, encode the prompts, build the model.

    seen: the objects that its adapters were trained on; None opens these too, to train on them. series: of runs that
    share what they can.
    """
    info, test = open_target(spec, obj)
    spec, series = settled(spec, info), series or Series()
    others = _open_others(spec, info) if seen is None else []
    own, *theirs = encode_prompts(spec, [info, *(other for other, _ in others)])
    sources = [TrainingObject(*other, prompts) for other, prompts in zip(others, theirs, strict=True)]
    known = [source.info.name for source in sources] if seen is None else seen
    return TransferRun(spec, info, test, build_system(spec, series=series), own, known, sources, series=series)


def _open_others(spec: TransferSpec, target: ObjectInfo) -> list[tuple[ObjectInfo, tuple[Sample, ...]]]:
    """The other medical objects with their test splits; says what it found."""
    others = dataset.open_transfer(target.name, spec.data_path, required=spec.epoch > 0)
    for info, samples in others:
        line = f"{info.name}: trained on, {found(samples, None if spec.demo else info.test)}"
        print(*dataset.passed_over(info, spec.data_path), line, sep="\n")
    missing = set(dataset.TRANSFER) - dataset.barred(target.name) - {info.name for info, _ in others}
    if missing and not spec.demo:
        print(f"not in {spec.data_path}, so not trained on: {', '.join(sorted(missing))}")
    return others


def found(samples: tuple[Sample, ...], published: int | None) -> str:
    """How many images of either label there are, in words, beside the benchmark's own number."""
    counts = dataset.count(samples)
    beside = "" if published is None else f" (the benchmark has {published} in all)"
    return f"{counts['normal']} normal + {counts['abnormal']} abnormal{beside}"


def batches(sources: list[TrainingObject], batch_size: int, generator: torch.Generator) -> list[tuple[int, Tensor]]:
    """(source, rows) of one epoch: every image once, one object a batch, in random order."""
    drawn = []
    for number, source in enumerate(sources):
        rows = torch.randperm(len(source.samples), generator=generator)
        drawn += [(number, part) for part in rows.split(batch_size)]
    return [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]


def train_transfer(spec: TransferSpec, series: Series | None = None) -> list[Result]:
    """Train for every target that --obj names on the other medical objects, evaluate and save ("Zero-shot transfer").

    Gives and writes what `train_few_shot` does. Raises InputError for whatever is missing or does not fit.
    """
    objects = objects_of(spec, all_medical=True)
    results = [result for obj in objects for result in _train_target(spec, obj, len(objects) > 1, series)]
    write_means(spec, SCRIPT, run_name(spec.obj), results)
    return results


def _train_target(spec: TransferSpec, obj: str, among: bool, series: Series | None) -> list[Result]:
    started = time.time()
    seed_everything(spec.seed)
    run = open_run(spec, obj, series=series)
    if spec.resume and among and (done := run.finished(SCRIPT)):
        print(f"{obj}: finished before")
        return done
    with open_outputs(run, SCRIPT, among) as folder:
        if not run.trainable:
            return finish(run, SCRIPT, folder, TrainingHistory.untrained(run.system.decoder), started)
        if spec.batch_size > 1:
            print(f"steps of {spec.batch_size} images of one object: ours; the published ones are of 1")
        training = _training(run, folder, started)
        return finish(run, SCRIPT, folder, training.train(), training.started)


def _training(run: TransferRun, folder: RunFolder, started: float) -> Training:
    spec, order = run.spec, torch.Generator().manual_seed(run.spec.seed)
    trainer = Trainer(run.system, spec.learning_rate)

    def epoch_losses(done: int) -> Iterator[Tensor]:
        return _epoch_losses(trainer, run, batches(run.sources, spec.batch_size, order)[done:])

    steps = sum(math.ceil(len(source.samples) / spec.batch_size) for source in run.sources)
    as_published = Evaluations(spec.eval_every, ahead=True, later=True)
    return Training(run, folder, trainer, order, epoch_losses, steps, as_published, started)


def _epoch_losses(trainer: Trainer, run: TransferRun, plan: list[tuple[int, Tensor]]) -> Iterator[Tensor]:
    """One pass over the planned batches, each with its own object's text, masks only where it has them; the losses
    ()."""
    known, size = run.system.known_prefixes, run.spec.img_size
    images = ConcatDataset([ImageSet(source.samples, size, known) for source in run.sources])
    first = [0, *images.cumulative_sizes]
    rows = [distributed.shard((part + first[number]).tolist()) for number, part in plan]
    workers = readers(run.spec.num_workers, len(images), run.system.device)
    loader = iter(Batches(images, batch_sampler=[part for part in rows if part], num_workers=workers))
    bar = Bar(plan, desc="epoch", unit="step", leave=False, disable=not distributed.main_process())
    for (number, whole), own in zip(bar, rows, strict=True):
        source, items = run.sources[number], next(loader) if own else []
        prefixes = run.system.prefixes(items, keep=True)
        labels = torch.tensor([float(item.label) for item in items])
        masks = torch.stack([item.mask for item in items]) if items else torch.empty(0)
        part = masks if source.info.masks else None
        yield trainer.step(prefixes, labels, part, source.prompts.text_directions, len(items) / len(whole))

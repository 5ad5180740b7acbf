"""One zero-shot transfer run, the part that train_zero.py and test_zero.py share: prompts, evaluation, thresholds."""

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dataset
import options
import prompt
import report
from checkpoint import Stage
from dataset import ObjectInfo, Sample
from errors import InputError
from evaluation import Views, calibrate, evaluate, heads, selection, views
from gallery import save_maps
from scoring import Calibration, Readings
from system import System, build, sentences, survey, truth

CALIBRATED_ON = 64  # training images of an object that scales and thresholds are taken from


@dataclass
class TransferRun:
    """The target object, its words, and the model; the zero branch alone is scored."""

    args: argparse.Namespace
    info: ObjectInfo
    test: tuple[Sample, ...]
    system: System
    text: Tensor
    prompts_sha256: str

    @property
    def name(self) -> str:
        """The run's name in file names: Brain, mvtec_bottle."""
        return self.info.name.replace("/", "_")

    @cached_property
    def truth(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (N,) and masks bool (N, S, S), or None, of the test images."""
        return truth(self.test, self.system.size, bool(self.info.masks))

    def see_test(self) -> Views:
        """Views of the target's test images under the adapters as they are now."""
        return views(self.read(self.test, self.text), bool(self.info.masks), transfer=True)

    def read(self, samples: tuple[Sample, ...], text: Tensor) -> dict[str, Readings]:
        """Zero-branch readings by head, of any object's samples under its own text."""
        size, workers = self.args.batch_size, self.args.num_workers
        wanted = heads(bool(self.info.masks), transfer=True)
        return survey(self.system, samples, wanted, text, {}, batch_size=size, workers=workers)

    def selection(self, seen: Views) -> dict[str, float]:
        """The figures that choose the best epoch, on the test set as published."""
        return selection(seen, *self.truth, self.system.size)

    def calibrate(self, others: list["Source"]) -> Calibration:
        """Scales and thresholds from training images of the other objects, never from the target."""
        masked = [other for other in others if other.info.masks] or others
        kept = {other.info.name: self.read(other.some(self.args.seed), other.text) for other in others}
        labels = [truth(other.some(self.args.seed), self.system.size, False)[0] for other in others]
        if not self.info.masks:
            det = Readings.join([kept[other.info.name]["det"] for other in others])
            return calibrate(Views(det, det), np.concatenate(labels), None, self.system.size)
        det = Readings.join([kept[other.info.name]["det"] for other in others])
        seg = Readings.join([kept[other.info.name]["seg"] for other in masked])
        masks = [truth(other.some(self.args.seed), self.system.size, True)[1] for other in masked]
        return calibrate(Views(seg, det), np.concatenate(labels), np.concatenate(masks), self.system.size)

    def record(self, script: str, seconds: float, trained_on: list[str]) -> dict:
        """How these figures came about, as plain data."""
        return {
            "script": script,
            "obj": self.info.name,
            "masks": bool(self.info.masks),
            "options": options.plain(self.args),
            "counts": {"test": dataset.count(self.test, self.info.test)},
            "trained_on": trained_on,
            "prompts_sha256": self.prompts_sha256,
            "weights_sha256": self.system.weights_sha256,
            "adapter": self.system.decoder.kind,
            "seconds": round(seconds, 1),
            "device": str(self.system.device),
            "environment": report.environment(self.system.device),
        }


@dataclass(frozen=True)
class Source:
    """An object that is trained on: its test split, and its own text."""

    info: ObjectInfo
    samples: tuple[Sample, ...]
    text: Tensor

    def some(self, seed: int) -> tuple[Sample, ...]:
        """At most `CALIBRATED_ON` of its samples, drawn by the seed, in their order."""
        rows = np.random.default_rng(seed).permutation(len(self.samples))[:CALIBRATED_ON]
        return tuple(self.samples[row] for row in sorted(rows))


def open_run(args: argparse.Namespace, obj: str) -> TransferRun:
    """Check and read the target's test split, build the model, encode its prompts."""
    info, test = dataset.open_test(obj, args.data_path, classname=args.classname)
    print(f"{info.name}: zero-shot target, {found(test, None if args.demo else info.test)}")
    system = build(args)
    words = sentences(args, info)
    return TransferRun(args, info, test, system, system.text(words), prompt.digest(*words))


def found(samples: tuple[Sample, ...], published: int | None) -> str:
    """How many images of either label there are, in words, beside the benchmark's own number."""
    counts = dataset.count(samples)
    beside = "" if published is None else f" (the benchmark has {published} in all)"
    return f"{counts['normal']} normal + {counts['abnormal']} abnormal{beside}"


def open_sources(run: TransferRun) -> list[Source]:
    """The other medical objects, each with its own prompts."""
    sources = []
    for info, samples in dataset.open_transfer(run.info.name, run.args.data_path):
        print(f"{info.name}: trained on, {found(samples, None if run.args.demo else info.test)}")
        words = prompt.sentences(info.name, run.args.prompts)
        sources.append(Source(info, samples, run.system.text(words)))
    return sources


def fits(run: TransferRun, record: dict | None, source: Path) -> bool:
    """Whether a checkpoint's calibration holds for this run. Raises InputError when its weights are others."""
    if record is None:
        return False
    if record["weights_sha256"] != run.system.weights_sha256:
        raise InputError(f"{source} was trained on other CLIP weights; name those with --pretrain or --clip_path")
    same = record["prompts_sha256"] == run.prompts_sha256
    if same and "trained_on" in record:
        return True
    what = "adapters of one object" if same else "the prompts are not those of the training run"
    print(f"{what}: the stored thresholds are left out")
    return False


def trained_on(record: dict | None) -> list[str]:
    """The objects that a checkpoint of either training script was trained on; none are known without a record."""
    return [] if record is None else record.get("trained_on", [record["obj"]])


def conclude(
    run: TransferRun,
    stage: Stage,
    selected: str,
    others: list[Source] | None = None,
    seen: Views | None = None,
) -> tuple[Stage, list[report.Outcome]]:
    """Put a stage's adapters in, calibrate them on `others` if given, and give the stage and its figures."""
    run.system.decoder.load_adapters(stage.adapters)
    if others:
        stage = replace(stage, calibration=run.calibrate(others))
    seen = run.see_test() if seen is None else seen
    labels, masks = run.truth
    figures = evaluate(seen, labels, masks, run.system.size, stage.calibration)
    if selected == "last" and run.args.save_images:
        save_maps(run.args.save_images, run.test, seen, stage.calibration, run.system.size)
    return stage, [report.Outcome(run.info.name, stage.epoch, selected, figures)]


def batches(sources: list[Source], batch_size: int, generator: torch.Generator) -> list[tuple[int, Tensor]]:
    """(source, rows) of one epoch: every image once, one object a batch, in random order."""
    drawn = []
    for number, source in enumerate(sources):
        rows = torch.randperm(len(source.samples), generator=generator)
        drawn += [(number, part) for part in rows.split(batch_size)]
    return [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]

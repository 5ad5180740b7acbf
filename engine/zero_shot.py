"""A zero-shot transfer run, the part that train_zero.py and test_zero.py share: prompts, sources, calibration."""

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dataset
import prompt
from dataset import ObjectInfo, Sample
from engine.build import build, encoder, sentences
from engine.run import Run, same_weights
from engine.score_images import survey, truth
from engine.text import Encoder
from runtime.errors import InputError
from scoring.calibration import Calibration, calibrate
from scoring.patch_scores import Readings
from scoring.predictions import Views, heads, views

CALIBRATED_ON = 64  # training images of an object that scales and thresholds are taken from


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


@dataclass
class TransferRun(Run):
    """A run on a target object that was never trained on; the zero branch alone is scored."""

    trained_on: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)  # in training

    @property
    def name(self) -> str:
        """Brain, mvtec_bottle."""
        return run_name(self.info.name)

    @property
    def title(self) -> str:
        """Brain, zero-shot transfer."""
        return f"{self.info.name}, zero-shot transfer"

    @property
    def calibration_note(self) -> str:
        """A sentence on the sources."""
        return (
            f"Scores and thresholds are calibrated on training images of {', '.join(self.trained_on)}: the threshold "
            "is the one with the largest F1 there. Nothing of the images below went into it."
        )

    def see_test(self, again: bool = False) -> Views:
        """Views of the target's test images under the adapters as they are now; `again`: they will be seen again."""
        readings = self.read(self.test, heads(self.masks, transfer=True), self.text, again)
        return views(readings, self.masks, transfer=True)

    def read(
        self, samples: tuple[Sample, ...], wanted: tuple[str, ...], text: Tensor, keep: bool
    ) -> dict[str, Readings]:
        """Zero-branch readings by head, of any object's samples under its own text; `keep` as in `survey`."""
        size, workers = self.args.batch_size, self.args.num_workers
        return survey(self.system, samples, wanted, text, {}, batch_size=size, workers=workers, keep=keep)

    def calibrate(self) -> Calibration | None:
        """Scales and thresholds from training images of the sources, never from the target; None without sources."""
        if not self.sources:
            return None
        wanted, size = heads(self.masks, transfer=True), self.system.size
        masked = [source for source in self.sources if source.info.masks] or self.sources
        some = {source.info.name: source.some(self.args.seed) for source in self.sources}
        kept = {one.info.name: self.read(some[one.info.name], wanted, one.text, keep=True) for one in self.sources}
        det = Readings.join([kept[source.info.name]["det"] for source in self.sources])
        labels = np.concatenate([truth(samples, size, False)[0] for samples in some.values()])
        if not self.masks:
            return calibrate(Views(det, det), labels, None, size)
        seg = Readings.join([kept[source.info.name]["seg"] for source in masked])
        masks = np.concatenate([truth(some[source.info.name], size, True)[1][:] for source in masked])
        return calibrate(Views(seg, det), labels, masks, size)

    def origin(self) -> dict:
        """Counts, and the objects trained on."""
        return {"counts": {"test": dataset.count(self.test, self.info.test)}, "trained_on": self.trained_on}

    def calibration_holds(self, record: dict | None, source: Path) -> bool:
        """Whether a checkpoint's calibration holds for this run. Raises InputError when its weights are others."""
        if record is None:
            return False
        same_weights(self, record, source)
        same = record["prompts_sha256"] == self.prompts_sha256
        if same and "trained_on" in record:
            return True
        what = "adapters of one object" if same else "the prompts are not those of the training run"
        print(f"{what}: the stored thresholds are left out")
        return False


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


def open_run(args: argparse.Namespace, obj: str, seen: list[str] | None = None) -> TransferRun:
    """Check and read the target's test split, build the model, encode its prompts.

    seen: the objects that its adapters were trained on; None opens these too, to train on them.
    """
    info, test = dataset.open_test(obj, args.data_path, classname=args.classname)
    line = f"{info.name}: zero-shot target, {found(test, None if args.demo else info.test)}"
    print(*dataset.passed_over(info, args.data_path), line, sep="\n")
    with encoder(args) as encode:  # before the image tower is in memory
        words = sentences(args, info)
        text = encode.directions(*words)
        sources = open_sources(args, info, encode) if seen is None else []
    trained_on = [source.info.name for source in sources] if seen is None else seen
    system = build(args)
    sources = [replace(source, text=source.text.to(system.device)) for source in sources]
    return TransferRun(args, info, test, system, text.to(system.device), prompt.digest(*words), trained_on, sources)


def found(samples: tuple[Sample, ...], published: int | None) -> str:
    """How many images of either label there are, in words, beside the benchmark's own number."""
    counts = dataset.count(samples)
    beside = "" if published is None else f" (the benchmark has {published} in all)"
    return f"{counts['normal']} normal + {counts['abnormal']} abnormal{beside}"


def open_sources(args: argparse.Namespace, target: ObjectInfo, encode: Encoder) -> list[Source]:
    """The other medical objects, each with its own prompts."""
    sources = []
    for info, samples in dataset.open_transfer(target.name, args.data_path, required=args.epoch > 0):
        line = f"{info.name}: trained on, {found(samples, None if args.demo else info.test)}"
        print(*dataset.passed_over(info, args.data_path), line, sep="\n")
        sources.append(Source(info, samples, encode.directions(*sentences(args, info))))
    missing = set(dataset.TRANSFER) - dataset.barred(target.name) - {source.info.name for source in sources}
    if missing and not args.demo:
        print(f"not in {args.data_path}, so not trained on: {', '.join(sorted(missing))}")
    return sources


def batches(sources: list[Source], batch_size: int, generator: torch.Generator) -> list[tuple[int, Tensor]]:
    """(source, rows) of one epoch: every image once, one object a batch, in random order."""
    drawn = []
    for number, source in enumerate(sources):
        rows = torch.randperm(len(source.samples), generator=generator)
        drawn += [(number, part) for part in rows.split(batch_size)]
    return [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]

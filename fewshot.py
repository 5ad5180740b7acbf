"""One few-shot run on one object, the part that train_few.py and test_few.py share: support, banks, evaluation."""

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
from dataset import FewShotSet
from errors import InputError
from evaluation import Views, calibrate, evaluate, heads, selection, views
from gallery import save_maps
from scoring import Calibration, MemoryBank, Readings, read
from system import System, build, sentences, survey, truth
from training import Support, load_support


@dataclass
class FewShotRun:
    """Everything an object's run holds: the model, its words, the support and the test images."""

    args: argparse.Namespace
    data: FewShotSet
    system: System
    support: Support
    text: Tensor | None  # None: --branches few
    prompts_sha256: str

    @property
    def name(self) -> str:
        """The run's name in file names: Brain_4-shot, mvtec_bottle_4-shot."""
        return run_name(self.data.info.name, self.args.shot)

    @property
    def trainable(self) -> bool:
        """Whether there are adapters, and abnormal support to train them on."""
        return self.system.decoder.kind != "none"

    @property
    def masks(self) -> bool:
        """Whether the object has masks."""
        return bool(self.data.info.masks)

    def banks(self) -> dict[str, MemoryBank]:
        """The memory bank of each head that is scored; none with --branches zero."""
        if self.args.branches == "zero":
            return {}
        images = self.support.images[self.support.normal]
        return {head: MemoryBank(self.system.levels(images, head)) for head in heads(self.masks)}

    def scored_text(self) -> Tensor | None:
        """The text directions, if the zero branch is on."""
        return None if self.args.branches == "few" else self.text

    @cached_property
    def truth(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (N,) and masks bool (N, S, S), or None, of the test images."""
        return truth(self.data.test, self.system.size, self.masks)

    def see_test(self) -> Views:
        """Views of the test images under the adapters as they are now."""
        readings = survey(
            self.system,
            self.data.test,
            heads(self.masks),
            self.scored_text(),
            self.banks(),
            batch_size=self.args.batch_size,
            workers=self.args.num_workers,
        )
        return views(readings, self.masks)

    def see_support(self) -> Views:
        """Views of the support's variants, each normal one against a bank without any variant of its own image
        (with one shot: without that very variant)."""
        support, head = self.support, heads(self.masks)[0]
        levels = self.system.levels(support.images, head)
        parts, order = [], []
        for rows in self._left_out():
            kept = support.normal[~torch.isin(support.normal, rows)]
            bank = None if self.args.branches == "zero" else MemoryBank([level[kept] for level in levels])
            for row in rows:  # one by one, as test images go: a batch could change the last bit
                tokens = [level[row : row + 1] for level in levels]
                parts.append(read(tokens, self.scored_text(), bank))
            order.append(rows)
        return views({head: Readings.join(parts)[torch.cat(order).argsort()]}, self.masks)

    def _left_out(self) -> list[Tensor]:
        """Rows of the support that are scored together: the abnormal ones, then one normal image at a time."""
        support, normal = self.support, self.support.normal
        one_image = len(support.source[normal].unique()) == 1
        column = (support.variant if one_image else support.source)[normal]
        abnormal = (support.labels == 1).nonzero()[:, 0]
        return [abnormal, *(normal[column == value] for value in column.unique())]

    def calibrate(self) -> Calibration:
        """The scales and thresholds of the adapters as they are now, from the support alone."""
        labels = self.support.labels.numpy().astype(int)
        masks = self.support.masks[:, 0].numpy() > 0.5 if self.masks else None
        return calibrate(self.see_support(), labels, masks, self.system.size)

    def selection(self, seen: Views) -> dict[str, float]:
        """The figures that choose the best epoch, on the test set as published."""
        return selection(seen, *self.truth, self.system.size)

    @property
    def support_names(self) -> dict[str, list[str]]:
        """File names of the support images by label; of industrial ones also the kind of defect: crack/000.png."""
        samples = {"normal": self.data.support_normal, "abnormal": self.data.support_abnormal}
        return {label: [_name(sample.image) for sample in part] for label, part in samples.items()}

    def record(self, script: str, seconds: float) -> dict:
        """How these figures came about, as plain data."""
        data, args = self.data, self.args
        return {
            "script": script,
            "obj": data.info.name,
            "masks": self.masks,
            "options": options.plain(args),
            "counts": data.counts,
            "support": self.support_names,
            "prompts_sha256": self.prompts_sha256,
            "weights_sha256": self.system.weights_sha256,
            "adapter": self.system.decoder.kind,
            "seconds": round(seconds, 1),
            "device": str(self.system.device),
            "environment": report.environment(self.system.device),
        }


def _name(image: Path) -> str:
    """A support image's name, with its folder where that says more than the label does."""
    folder = image.parent.name
    return image.name if folder.lower() in ("img", "good", "ok", "ungood") else f"{folder}/{image.name}"


def run_name(obj: str, shot: int) -> str:
    """Brain_4-shot; the slash of an industrial class becomes an underscore."""
    return f"{obj.replace('/', '_')}_{shot}-shot"


def open_run(args: argparse.Namespace, obj: str) -> FewShotRun:
    """Check and read the data, build the model, encode the prompts; says what it found.

    With --abnormal_shot 0 nothing can be trained: the memory bank then runs on the bare trunk's tokens.
    """
    if args.abnormal_shot == 0 and args.branches == "zero":
        raise InputError("--branches zero needs adapters, and --abnormal_shot 0 trains none; leave one of the two out")
    data = dataset.open_few(
        obj,
        args.data_path,
        args.shot,
        args.abnormal_shot,
        args.iterate,
        args.seed,
        classname=args.classname,
        use_seed_files=not args.demo,
    )
    print(dataset.describe(data.counts))
    support = load_support(data, args.img_size)
    bare = not data.support_abnormal
    system = build(args, adapter="none" if bare else None)
    if bare:
        print("no abnormal support: nothing to train, the memory bank runs on the trunk's own tokens (branch few)")
        return FewShotRun(argparse.Namespace(**vars(args) | {"branches": "few"}), data, system, support, None, "")
    words = sentences(args, data.info)
    return FewShotRun(args, data, system, support, system.text(words), prompt.digest(*words))


def fits(run: FewShotRun, record: dict | None, source: Path) -> bool:
    """Whether a checkpoint's calibration holds for this run: the same support, prompts and branches.

    Raises InputError when the checkpoint is of other weights, another object or other support images.
    """
    if record is None:
        return False
    if record["weights_sha256"] != run.system.weights_sha256:
        raise InputError(f"{source} was trained on other CLIP weights; name those with --pretrain or --clip_path")
    if "support" not in record:
        print("adapters of zero-shot transfer: scales and thresholds are taken from the support")
        return False
    now = run.support_names
    if record["support"] != now:
        names = set(map(str, now["normal"] + now["abnormal"]))
        gone = [name for part in record["support"].values() for name in part if name not in names]
        raise InputError(
            f"{source} has other support images than {run.args.data_path} gives ({gone[0] if gone else 'their order'}"
            " is the first to differ); restore the folder it was trained on"
        )
    same = record["prompts_sha256"] == run.prompts_sha256
    if same and record["options"]["branches"] in ("both", run.args.branches):
        return True
    what = "branches" if same else "prompts"
    print(f"the {what} are not those of the training run: scales and thresholds are taken anew from the support")
    return False


def conclude(
    run: FewShotRun, stage: Stage, selected: str, seen: Views | None = None
) -> tuple[Stage, list[report.Outcome]]:
    """Put a stage's adapters in, calibrate them unless they are, and give the stage and its figures.

    `seen` are the test views of that stage, if they are at hand.
    """
    run.system.decoder.load_adapters(stage.adapters)
    if stage.calibration is None:
        stage = replace(stage, calibration=run.calibrate())
    seen = run.see_test() if seen is None else seen
    labels, masks = run.truth
    figures = evaluate(seen, labels, masks, run.system.size, stage.calibration)
    if selected == "last" and run.args.save_images:
        save_maps(run.args.save_images, run.data.test, seen, stage.calibration, run.system.size)
    return stage, [report.Outcome(run.data.info.name, stage.epoch, selected, figures)]


def finish(run: FewShotRun, record: dict, outcomes: list[report.Outcome]) -> None:
    """Write results.json and results.csv of one object."""
    folder = run.args.results_path / record["script"].removesuffix(".py") / run.name
    report.write_results(folder, record | {"outcomes": outcomes})
    print(f"results: {folder}")

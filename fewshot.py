"""A few-shot run, the part that train_few.py and test_few.py share: support, memory bank, calibration."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

import dataset
import prompt
from dataset import FewShotSet
from errors import InputError
from evaluation import Views, calibrate, heads, views
from run import Run, same_weights
from scoring import Calibration, MemoryBank, Readings, read
from system import build, sentences, survey
from training import Support, load_support


@dataclass
class FewShotRun(Run):
    """A run with support images, whose normal variants make the memory bank."""

    data: FewShotSet
    support: Support

    @property
    def name(self) -> str:
        """Brain_4-shot, mvtec_bottle_4-shot."""
        return run_name(self.info.name, self.args.shot)

    @property
    def trainable(self) -> bool:
        """Whether there are adapters: without abnormal support there are none."""
        return self.system.decoder.kind != "none"

    def banks(self) -> dict[str, MemoryBank]:
        """The memory bank of each head that is scored; none with --branches zero."""
        if self.args.branches == "zero":
            return {}
        images = self.support.images[self.support.normal]
        return {head: MemoryBank(self.system.levels(images, head)) for head in heads(self.masks)}

    def scored_text(self) -> Tensor | None:
        """The text directions, if the zero branch is on."""
        return None if self.args.branches == "few" else self.text

    def see_test(self) -> Views:
        """Views of the test images under the adapters as they are now."""
        readings = survey(
            self.system,
            self.test,
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

    def origin(self) -> dict:
        """Counts, and the names of the support images by label."""
        samples = {"normal": self.data.support_normal, "abnormal": self.data.support_abnormal}
        names = {label: [_name(sample.image) for sample in part] for label, part in samples.items()}
        return {"counts": self.data.counts, "support": names}

    def calibration_holds(self, record: dict | None, source: Path) -> bool:
        """Whether a checkpoint's calibration holds for this run: the same support, prompts and branches.

        Raises InputError when the checkpoint is of other weights or other support images.
        """
        if record is None:
            return False
        same_weights(self, record, source)
        if "support" not in record:
            print("adapters of zero-shot transfer: scales and thresholds are taken from the support")
            return False
        if record["masks"] != self.masks:
            there, here = ("with", "without") if record["masks"] else ("without", "with")
            raise InputError(f"{source} was trained {there} masks, and {self.args.data_path} is {here}; train again")
        now = self.origin()["support"]
        if record["support"] != now:
            names = set(map(str, now["normal"] + now["abnormal"]))
            gone = [name for part in record["support"].values() for name in part if name not in names]
            raise InputError(
                f"{source} has other support images than {self.args.data_path} gives "
                f"({gone[0] if gone else 'their order'} is the first to differ); restore the folder it was trained on"
            )
        same = record["prompts_sha256"] == self.prompts_sha256
        if same and record["options"]["branches"] in ("both", self.args.branches):
            return True
        what = "branches" if same else "prompts"
        print(f"the {what} are not those of the training run: scales and thresholds are taken anew from the support")
        return False


def _name(image: Path) -> str:
    """A support image's name, with its folder where that says more than the label does: crack/000.png."""
    folder = image.parent.name
    return image.name if folder.lower() in ("img", "good", "ok", "ungood") else f"{folder}/{image.name}"


def run_name(obj: str, shot: int) -> str:
    """Brain_4-shot; the slash of an industrial class becomes an underscore."""
    return f"{obj.replace('/', '_')}_{shot}-shot"


def protocol(args: argparse.Namespace) -> int | Literal["normal"]:
    """Which published numbers stand beside a run's: those of k-shot, or of a memory bank of normal images alone."""
    return args.shot if args.abnormal_shot else "normal"


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
    text, digest = None, ""
    if bare:
        print("no abnormal support: nothing to train, the memory bank runs on the trunk's own tokens (branch few)")
        args = argparse.Namespace(**vars(args) | {"branches": "few"})
    else:
        words = sentences(args, data.info)
        text, digest = system.text(words), prompt.digest(*words)
    return FewShotRun(args, data.info, data.test, system, text, digest, data, support)

"""A few-shot run, the part that train_few.py and test_few.py share: support, memory bank, calibration."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

import dataset
import prompt
from dataset import FewShotSet
from engine.build import build, encoder, sentences
from engine.run import Run, same_weights
from engine.score_images import survey
from engine.support import Support, load_support
from runtime.cache import key_of
from runtime.errors import InputError
from scoring.calibration import Calibration, calibrate
from scoring.memory_bank import Cap, MemoryBank
from scoring.patch_scores import Readings
from scoring.predictions import Views, heads, views

CALIBRATED_ON = 64  # normal support images that scales and thresholds are taken from


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
    def title(self) -> str:
        """Brain, 4-shot."""
        return f"{self.info.name}, {self.args.shot}-shot"

    @property
    def calibration_note(self) -> str:
        """A sentence on the support."""
        normal, abnormal = len(self.data.support_normal), len(self.data.support_abnormal)
        rule = (
            f"{normal} normal and {abnormal} abnormal images): the threshold is the one with the largest F1 there"
            if abnormal
            else f"{normal} normal images): the threshold lies just above the highest of their scores"
        )
        return f"Scores and thresholds are calibrated on the support ({rule}. Nothing of the images below went into it."

    @property
    def trainable(self) -> bool:
        """Whether there are adapters: without abnormal support there are none."""
        return self.system.decoder.kind != "none"

    @cached_property
    def stems(self) -> Tensor:
        """The stems (V, L, C) of the support's variants: what training sees of them in every epoch."""
        return torch.cat(list(self._stems(torch.arange(len(self.support.images)))))

    def _stems(self, rows: Tensor) -> Iterator[Tensor]:
        """Stems (1, L, C) of support rows, those at hand if they were computed."""
        at_hand = self.__dict__.get("stems")
        for row in rows.tolist():
            if at_hand is None:
                yield self.system.stem(self.support.images[row : row + 1])
            else:
                yield at_hand[row : row + 1]

    def banks(self, keep: bool) -> dict[str, MemoryBank]:
        """The memory bank of each head that is scored, none with --branches zero; `keep`: in the cache too."""
        if self.args.branches == "zero":
            return {}
        return {head: self._bank(head, keep) for head in heads(self.masks)}

    def _bank(self, head: str, keep: bool) -> MemoryBank:
        support, cap = self.support, Cap.parse(self.args.bank_cap)
        owners = self._left_out_together()[support.normal].tolist()
        key, kept = "", None
        if keep := keep and self.system.cache.limit > 0:  # else hashing adapters and files would be for nothing
            known_by = (self.system.adapters_digest(), head, self.args.bank_cap, self.args.seed, owners)
            key = key_of("bank", self.system.key, *known_by, *self.bank_files())
            kept = self.system.cache.get(key)
        if kept is not None:
            return MemoryBank.of(kept, self.system.device)
        parts = (self.system.levels([stem], head) for stem in self._stems(support.normal))
        bank = MemoryBank.build(zip(parts, owners, strict=True), len(owners), cap, self.args.seed)
        if len(set(owners)) > 1 and any(len(kept.unique()) == 1 for kept in bank.owners):
            raise InputError(f"--bank_cap {self.args.bank_cap} leaves tokens of one support image alone; take more")
        if keep:
            self.system.cache.put(key, bank.tensors())
        return bank

    def bank_files(self) -> Iterator[object]:
        """What tells this bank's images from others: the bytes of their files, in their order."""
        return (sample.image.read_bytes() for sample in self.data.support_normal)

    def _left_out_together(self) -> Tensor:
        """(V,), equal for variants that leave the bank together: those of an image, or with one shot each alone."""
        support = self.support
        return support.variant if len(self.data.support_normal) == 1 else support.source

    def scored_text(self) -> Tensor | None:
        """The text directions, if the zero branch is on."""
        return None if self.args.branches == "few" else self.text

    def see_test(self, again: bool = False) -> Views:
        """Views of the test images under the adapters as they are now; `again`: they will be seen again."""
        readings = survey(
            self.system,
            self.test,
            heads(self.masks),
            self.scored_text(),
            self.banks(keep=not again),
            batch_size=self.args.batch_size,
            workers=self.args.num_workers,
            keep=again,
        )
        return views(readings, self.masks)

    def see_support(self) -> Views:
        """Views of the rows of `calibrated_on`, each normal one against a bank without any variant of its own image
        (with one shot: without that very variant)."""
        head = heads(self.masks)[0]
        bank, text = self.banks(keep=True).get(head), self.scored_text()
        parts = [self.system.reading(tokens, text, bank, without) for tokens, without in self.support_tokens(head)]
        return views({head: Readings.join(parts)}, self.masks)

    def support_tokens(self, head: str) -> Iterator[tuple[list[Tensor], int | None]]:
        """Of each row of `calibrated_on` the tokens (1, L, h) a tap, and whose tokens the bank must do without."""
        rows, together = self.calibrated_on(), self._left_out_together()
        for row, stem in zip(rows.tolist(), self._stems(rows), strict=True):
            (decoded,) = self.system.tokens(stem, (head,))
            yield decoded.tokens(head), None if self.support.labels[row] else int(together[row])

    def calibrated_on(self) -> Tensor:
        """Rows of the support: all variants of all abnormal images and of at most `CALIBRATED_ON` normal ones."""
        support, first = self.support, len(self.data.support_abnormal)
        drawn = np.random.default_rng(self.args.seed).permutation(len(self.data.support_normal))[:CALIBRATED_ON]
        seen = (support.labels == 1) | torch.isin(support.source, torch.from_numpy(drawn + first))
        return seen.nonzero()[:, 0]

    def calibrate(self) -> Calibration:
        """The scales and thresholds of the adapters as they are now, from the support alone."""
        return calibrate(self.see_support(), *self.support_truth(), self.system.size)

    def support_truth(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (n,) and masks bool (n, S, S), or None, of the rows of `calibrated_on`."""
        rows = self.calibrated_on()
        masks = self.support.masks[rows, 0].numpy() > 0.5 if self.masks else None
        return self.support.labels[rows].numpy().astype(int), masks

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
        differing = {
            "prompts": record["prompts_sha256"] != self.prompts_sha256,
            "branches": record["options"]["branches"] not in ("both", self.args.branches),
            "bank's limits": record["options"].get("bank_cap") != self.args.bank_cap,
        }
        if not any(differing.values()):
            return True
        what = next(name for name, differs in differing.items() if differs)
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
    data, support = open_support(args, obj)
    bare, text, digest = not data.support_abnormal, None, ""
    if bare:
        print("no abnormal support: nothing to train, the memory bank runs on the trunk's own tokens (branch few)")
        args = argparse.Namespace(**vars(args) | {"branches": "few"})
    else:
        words = sentences(args, data.info)
        with encoder(args) as encode:  # before the image tower is in memory
            text, digest = encode.directions(*words), prompt.digest(*words)
    system = build(args, adapter="none" if bare else None)
    text = None if text is None else text.to(system.device)
    return FewShotRun(args, data.info, data.test, system, text, digest, data, support)


def open_support(args: argparse.Namespace, obj: str) -> tuple[FewShotSet, Support]:
    """Check the data, read the support in all its variants; says what it found."""
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
    print(*dataset.passed_over(data.info, args.data_path), dataset.describe(data.counts), sep="\n")
    return data, load_support(data, args.img_size)

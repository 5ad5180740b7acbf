"""A few-shot run: its support, memory bank, calibration on the support."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset import FewShotSet
from engine.run import Run, same_weights
from engine.score_images import score_images
from engine.spec import FewShotSpec
from engine.support import Support
from runtime.cache import key_of
from runtime.errors import InputError
from scoring.calibration import CALIBRATION_IMAGES, calibrate
from scoring.maps import Calibration
from scoring.memory_bank import BankLimit, MemoryBank
from scoring.patch_scores import PatchScores
from scoring.raw_scores import RawScores, ScoreRule, score_rule


@dataclass
class FewShotRun(Run):
    """A run with support images, whose normal variants make the memory bank."""

    spec: FewShotSpec
    data: FewShotSet
    support: Support
    kept_prefixes: Tensor | None = None

    @property
    def name(self) -> str:
        """Brain_4-shot, mvtec_bottle_4-shot."""
        return run_name(self.info.name, self.spec.shot)

    @property
    def title(self) -> str:
        """Brain, 4-shot."""
        return f"{self.info.name}, {self.spec.shot}-shot"

    @property
    def rule(self) -> ScoreRule:
        return score_rule(self.masks)

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

    def keep_prefixes(self) -> Tensor:
        """The prefix tokens (V, L, C) of the support's variants, which every epoch sees; kept from now on."""
        if self.kept_prefixes is None:
            key, rows = (self.system.key, *support_key(self.data, self.system.size)), range(len(self.support.images))
            made = self.series.once("prefixes", key, lambda: torch.cat([self._prefix(row) for row in rows]))
            self.kept_prefixes = made
        return self.kept_prefixes

    def _prefixes(self, rows: Tensor) -> Iterator[Tensor]:
        """Prefix tokens (1, L, C) of support rows, those that are kept or computed one after the other."""
        if self.series.keep:
            self.keep_prefixes()
        for row in rows.tolist():
            yield self._prefix(row) if self.kept_prefixes is None else self.kept_prefixes[row : row + 1]

    def _prefix(self, row: int) -> Tensor:
        return self.system.prefix(self.support.images[row : row + 1])

    def banks(self, keep: bool) -> dict[str, MemoryBank]:
        """The memory bank of each head that is scored, none with --branches zero; `keep`: in the cache too."""
        if self.spec.branches == "zero":
            return {}
        return {head: self._bank(head, keep) for head in self.rule.heads}

    def _bank(self, head: str, keep: bool) -> MemoryBank:
        owners, cache = self._left_out_together()[self.support.normal].tolist(), self.system.cache
        if not keep or not (self.series.keep or cache.limit):  # hashing adapters and files would be for nothing
            return self._build_bank(head, owners)
        known_by = (self.system.adapters_digest(), head, self.spec.bank_cap, self.spec.seed, owners)
        key = key_of("bank", self.system.key, *known_by, *self.bank_files())
        if self.series.keep:  # many adapters, none of which comes again
            return self.series.once("bank", key, lambda: self._build_bank(head, owners))
        decoder = self.system.decoder
        kept = cache.get(key, MemoryBank.like(len(decoder.taps), decoder.token_width))
        if kept is not None and (bank := MemoryBank.from_tensors(kept, self.system.device)).is_of(owners):
            return bank
        bank = self._build_bank(head, owners)
        cache.put(key, bank.tensors())
        return bank

    def _build_bank(self, head: str, owners: list[int]) -> MemoryBank:
        """The bank of the normal variants' tokens, each with its owner."""
        limit = BankLimit.parse(self.spec.bank_cap)
        parts = (self.system.levels([prefix], head) for prefix in self._prefixes(self.support.normal))
        bank = MemoryBank.build(zip(parts, owners, strict=True), len(owners), limit, self.spec.seed)
        if len(set(owners)) > 1 and any(len(kept.unique()) == 1 for kept in bank.owners):
            raise InputError(f"--bank_cap {self.spec.bank_cap} leaves tokens of one support image alone; take more")
        return bank

    def bank_files(self) -> Iterator[object]:
        """What tells this bank's images from others: the bytes of their files, in their order."""
        return (sample.image.read_bytes() for sample in self.data.support_normal)

    def files(self) -> Iterator[object]:
        return support_files(self.data)

    def _left_out_together(self) -> Tensor:
        """(V,), equal for variants that leave the bank together: those of an image, or with one shot each alone."""
        support = self.support
        return support.variant if len(self.data.support_normal) == 1 else support.source

    def scored_text(self) -> Tensor | None:
        """The text directions (D, 2), if the zero branch is on."""
        return None if self.spec.branches == "few" or self.prompts is None else self.prompts.text_directions

    def score_test(self, again: bool = False) -> RawScores:
        found = score_images(
            self.system,
            self.test,
            self.rule.heads,
            self.scored_text(),
            self.banks(keep=not again),
            batch_size=self.spec.batch_size,
            workers=self.spec.num_workers,
            keep=again or self.series.keep,
        )
        return self.rule.raw_scores(found)

    def score_support(self) -> RawScores:
        """Raw scores of the rows of `calibration_rows`, each normal one against a bank without any variant of its own
        image (with one shot: without that very variant)."""
        head = self.rule.map_head
        bank, text = self.banks(keep=True).get(head), self.scored_text()
        parts = [self.system.patch_scores(tokens, text, bank, without) for tokens, without in self.support_tokens(head)]
        return self.rule.raw_scores({head: PatchScores.join(parts)})

    def support_tokens(self, head: str) -> Iterator[tuple[list[Tensor], int | None]]:
        """Of each row of `calibration_rows` the tokens (1, L, h) a tap, and whose tokens the bank must do without."""
        rows, owners = self.calibration_rows(), self._left_out_together()
        for row, prefix in zip(rows.tolist(), self._prefixes(rows), strict=True):
            (decoded,) = self.system.tokens(prefix, (head,))
            yield decoded.tokens(head), None if self.support.labels[row] else int(owners[row])

    def calibration_rows(self) -> Tensor:
        """Rows of the support: all variants of all abnormal images and of at most `CALIBRATION_IMAGES` normal ones."""
        support, first = self.support, len(self.data.support_abnormal)
        drawn = np.random.default_rng(self.spec.seed).permutation(len(self.data.support_normal))[:CALIBRATION_IMAGES]
        seen = (support.labels == 1) | torch.isin(support.source, torch.from_numpy(drawn + first))
        return seen.nonzero()[:, 0]

    def calibrate(self) -> Calibration:
        return calibrate(self.score_support(), *self.support_truth(), self.system.size)

    def support_truth(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (n,) and masks bool (n, S, S), or None, of the rows of `calibration_rows`."""
        rows = self.calibration_rows()
        masks = self.support.masks[rows, 0].numpy() > 0.5 if self.masks else None
        return self.support.labels[rows].numpy().astype(int), masks

    def origin(self) -> dict:
        """Counts, and the names of the support images by label."""
        samples = {"normal": self.data.support_normal, "abnormal": self.data.support_abnormal}
        names = {label: [_name(sample.image) for sample in part] for label, part in samples.items()}
        return {"counts": self.data.counts, "support": names, "support_sha256": key_of(*self.files())}

    def calibration_holds(self, record: dict | None, source: Path) -> bool:
        """Whether it holds: the same support, prompts and branches. InputError for other weights or support images."""
        if record is None:
            return False
        same_weights(self, record, source)
        if record.get("support") is None:
            print("adapters of zero-shot transfer: scales and thresholds are taken from the support")
            return False
        if record["masks"] != self.masks:
            there, here = ("with", "without") if record["masks"] else ("without", "with")
            raise InputError(f"{source} was trained {there} masks, and {self.spec.data_path} is {here}; train again")
        origin = self.origin()
        now = origin["support"]
        if record["support"] != now:
            names = set(map(str, now["normal"] + now["abnormal"]))
            gone = [name for part in record["support"].values() for name in part if name not in names]
            raise InputError(
                f"{source} has other support images than {self.spec.data_path} gives "
                f"({gone[0] if gone else 'their order'} is the first to differ); restore the folder it was trained on"
            )
        if record.get("support_sha256", origin["support_sha256"]) != origin["support_sha256"]:
            raise InputError(
                f"{source} was trained on support images of the same names, but other content, than those in "
                f"{self.spec.data_path}; restore that folder, or train again"
            )
        differing = {
            "prompts": record["prompts_sha256"] != self.prompts_sha256,
            "branches": record["options"]["branches"] not in ("both", self.spec.branches),
            "bank's limits": record["options"].get("bank_cap") != self.spec.bank_cap,
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


def support_files(data: FewShotSet) -> Iterator[object]:
    """The bytes of the support's images and masks, in their order."""
    samples = (*data.support_abnormal, *data.support_normal)
    return (path.read_bytes() for one in samples for path in (one.image, one.mask) if path is not None)


def support_key(data: FewShotSet, size: int) -> tuple[object, ...]:
    """What tells the support's images of a side of `size` pixels from others, their bytes too, within one process."""
    return data.support_abnormal, data.support_normal, size, key_of(*support_files(data))

"""A few-shot run: its support, memory bank, calibration on the support."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset import FewShotSet
from engine.folds import Fold, Found, deal, in_order, left_out_together
from engine.recipe import AS_IN_THE_PAPER, PAPER, RecipeSpec
from engine.run import Run, same_weights
from engine.score_images import score_images
from engine.spec import FewShotSpec
from engine.support import Support, support_files, support_key
from engine.system import BARE
from runtime.cache import key_of
from runtime.devices import to_device
from runtime.errors import InputError
from scoring.baselines import linear
from scoring.baselines.linear import LinearProbe
from scoring.calibration import CALIBRATION_IMAGES, CalibrationRule, Known, calibrate
from scoring.cues import TOP, CueReader
from scoring.maps import Calibration
from scoring.memory_bank import BankLimit, MemoryBank
from scoring.patch_scores import ScoreRecipe
from scoring.raw_scores import RawScores, ScoreRule, score_rule
from scoring.reliability import ThresholdRule
from scoring.reliability_words import threshold_words

TOGETHER = 16  # support images that go through the first blocks at once, where the device takes several


@dataclass
class FewShotRun(Run):
    """A run with support images, whose normal variants make the memory bank."""

    spec: FewShotSpec
    data: FewShotSet
    support: Support
    kept_prefixes: Tensor | None = None
    bare_bank: MemoryBank | None = None
    out_of_fold: dict[int, Found] = field(default_factory=dict)  # by epochs trained, of the rows of `calibration_rows`

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
        made = self.recipe
        by_support = made.recipe != PAPER or made.fusion == "support" or made.image_score == "cues"
        recipe = ScoreRecipe(made.smooth, TOP if made.image_score == "top" else 0.0, by_support)
        return score_rule(self.masks, recipe=recipe, cues=made.image_score == "cues")

    @property
    def recipe(self) -> RecipeSpec:
        """What is made of the published method; ranking has no say in it."""
        return self.spec if isinstance(self.spec, RecipeSpec) else AS_IN_THE_PAPER

    @property
    def calibration_note(self) -> str:
        """A sentence on the support."""
        normal, abnormal = len(self.data.support_normal), len(self.data.support_abnormal)
        counts = f"{normal} normal and {abnormal} abnormal images" if abnormal else f"{normal} normal images"
        return (
            f"Scores and thresholds are calibrated on the support ({counts}): "
            f"{threshold_words(self.recipe.threshold_rule, min(normal, CALIBRATION_IMAGES), abnormal)}. "
            "Nothing of the images below went into it."
        )

    def keep_prefixes(self) -> Tensor:
        """The prefix tokens (V, L, C) of the support's variants, which every epoch sees; kept from now on."""
        if self.kept_prefixes is None:
            made_of = (self.recipe.synthetic, self.spec.seed) if self.recipe.synthetic else ()
            key = (self.system.key, *support_key(self.data, self.system.size), *made_of)
            rows = range(0, len(self.support.images), TOGETHER)
            made = self.series.once("prefixes", key, lambda: torch.cat([self._prefix(row, TOGETHER) for row in rows]))
            self.kept_prefixes = made
        return self.kept_prefixes

    @cached_property
    def targets(self) -> tuple[Tensor, Tensor | None]:
        """Labels (V,) and, of an object with masks, masks (V, 1, S, S) of the support, where the model is."""
        masks = to_device(self.support.masks, self.system.device) if self.masks else None
        return to_device(self.support.labels, self.system.device), masks

    def _prefixes(self, rows: Tensor) -> Iterator[Tensor]:
        """Prefix tokens (1, L, C) of support rows, those that are kept or computed one after the other."""
        if self.series.keep:
            self.keep_prefixes()
        for row in rows.tolist():
            yield self._prefix(row) if self.kept_prefixes is None else self.kept_prefixes[row : row + 1]

    def _prefix(self, row: int, count: int = 1) -> Tensor:
        return self.system.prefix(self.support.images[row : row + count])

    def banks(self, keep: bool) -> dict[str, MemoryBank]:
        """The memory bank of each head that is scored, none with --branches zero; `keep`: in the cache too."""
        if self.spec.branches == "zero":
            return {}
        return {head: self._bank(head, keep) for head in self.rule.heads}

    def _bank(self, head: str, keep: bool) -> MemoryBank:
        rows, cache = self.bank_rows(), self.system.cache
        owners = self.owners[rows].tolist()
        if not keep or not (self.series.keep or cache.limit):  # hashing adapters and files would be for nothing
            return self.bank_of(head, rows)
        adapters = "" if head == BARE else self.system.adapters_digest()
        known_by = (adapters, head, self.spec.bank_cap, self.recipe.neighbourhood, self.spec.seed, owners)
        key = key_of("bank", self.system.key, *known_by, *self.bank_files())
        if self.series.keep:  # many adapters, none of which comes again
            return self.series.once("bank", key, lambda: self.bank_of(head, rows))
        kept = cache.get(key, MemoryBank.like(*self.system.shape_of(head)))
        given = (self.system.device, self.recipe.neighbourhood, self.system.search)
        if kept is not None and (bank := MemoryBank.from_tensors(kept, *given)).is_of(owners):
            return bank
        bank = self.bank_of(head, rows)
        cache.put(key, bank.tensors())
        return bank

    def bank_rows(self) -> Tensor:
        """Rows of the support whose tokens make the bank."""
        rows = self.support.normal
        return rows if self.recipe.bank_variants == "all" else rows[self.support.variant[rows] == 0]

    def bank_of(self, head: str, rows: Tensor) -> MemoryBank:
        """The bank of the tokens of normal rows, each with its owner."""
        limit, owners = BankLimit.parse(self.spec.bank_cap), self.owners[rows].tolist()
        parts = (self.system.levels([prefix], head) for prefix in self._prefixes(rows))
        given = (len(owners), limit, self.spec.seed, self.recipe.neighbourhood, self.system.search)
        bank = MemoryBank.build(zip(parts, owners, strict=True), *given)
        if len(set(owners)) > 1 and any(len(kept.unique()) == 1 for kept in bank.owners):
            raise InputError(f"--bank_cap {self.spec.bank_cap} leaves tokens of one support image alone; take more")
        return bank

    def bank_files(self) -> Iterator[object]:
        """What tells this bank's images from others: the bytes of their files, in their order."""
        return (sample.image.read_bytes() for sample in self.data.support_normal)

    def files(self) -> Iterator[object]:
        return support_files(self.data)

    @cached_property
    def owners(self) -> Tensor:
        """(V,), equal for variants that leave the bank together: those of an image, or with one shot each alone."""
        return left_out_together(self.support)

    @cached_property
    def folds(self) -> list[Fold]:
        """The support dealt into --folds, of the rows of `calibration_rows`."""
        return deal(self.support, self.recipe.folds, self.spec.seed, self.calibration_rows())

    def reader(self, fold: Fold | None = None) -> CueReader | None:
        """What reads cues, made of all the support or without a fold; None where scores are not made of cues."""
        if not self.rule.cues:
            return None
        rows = torch.arange(len(self.support.labels)) if fold is None else fold.kept
        rows, bank = rows[~self.support.is_synthetic[rows]], None
        if self.spec.branches != "zero":
            head = BARE if self.trainable else self.rule.map_head  # whose tokens are the trunk's own
            self.bare_bank = self.bare_bank or self._bank(head, keep=True)
            bank = self.bare_bank
        labels, probe = self.support.labels[rows], None
        if self.recipe.head == "linear" and 0 < labels.sum() < len(labels):
            probe = LinearProbe.fit(self.described[rows], labels)
        return CueReader(self.scored_text(), bank, probe, () if fold is None else fold.owners)

    @cached_property
    def described(self) -> Tensor:
        """What the linear probe takes of every row of the support, (V, 2 T C)."""
        every = torch.arange(len(self.support.labels))
        return torch.cat([linear.features(self.system.levels([one], BARE)) for one in self._prefixes(every)])

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
            self.reader(),
            **self._reading(again),
        )
        return self.rule.raw_scores(found)

    def score_support(self) -> RawScores:
        """Raw scores of the rows of `calibration_rows`, each normal one against a bank without any variant of its own
        image (with one shot: without that very variant), and cues by readers that know nothing of the image."""
        text, banks, rows, parts = self.scored_text(), self.banks(keep=True), self.calibration_rows(), []
        dealt = [(fold.left_out, self.reader(fold)) for fold in self.folds] if self.rule.cues else [(rows, None)]
        for own, reader in dealt:
            for row, prefix in zip(own.tolist(), self._prefixes(own), strict=True):
                given = (self.rule.heads, text, banks, reader, self.without(row))
                parts.append((torch.tensor([row]), self.system.score(prefix, *given)))
        return self.rule.raw_scores(in_order(parts, rows))

    def without(self, row: int) -> tuple[int, ...]:
        """Whose tokens the bank must do without when a row of the support is scored."""
        return () if self.support.labels[row] else (int(self.owners[row]),)

    def support_tokens(self, head: str) -> Iterator[tuple[list[Tensor], tuple[int, ...]]]:
        """Of each row of `calibration_rows` the tokens (1, L, h) a tap, and whose tokens the bank must do without."""
        rows = self.calibration_rows()
        for row, prefix in zip(rows.tolist(), self._prefixes(rows), strict=True):
            (decoded,) = self.system.tokens(prefix, (head,))
            yield decoded.tokens(head), self.without(row)

    def calibration_rows(self) -> Tensor:
        """Rows of the support: all variants of all abnormal images and of at most `CALIBRATION_IMAGES` normal ones."""
        support, first = self.support, len(self.data.support_abnormal)
        drawn = np.random.default_rng(self.spec.seed).permutation(len(self.data.support_normal))[:CALIBRATION_IMAGES]
        seen = (support.labels == 1) | torch.isin(support.source, torch.from_numpy(drawn + first))
        return (seen & ~support.is_synthetic).nonzero()[:, 0]

    def calibrate(self, epoch: float | None = None) -> Calibration:
        """Out of fold where folds were trained for as many epochs; of the bare trunk without training; else on the
        images that the adapters were trained on, which is not held out."""
        found = self.out_of_fold.get(epoch)
        raw = self.score_support() if found is None else self.rule.raw_scores(found)
        known = self.support_truth(found is not None or not self.trainable)
        return calibrate(raw, known, self.system.size, self.calibration_rule)

    @property
    def calibration_rule(self) -> CalibrationRule:
        """What of it the support decides."""
        made = self.recipe
        by_support = (made.fusion == "support", made.bank_taps == "support")
        return CalibrationRule(ThresholdRule.parse(made.threshold_rule), *by_support)

    def support_truth(self, held_out: bool = True) -> Known:
        """What is known of the rows of `calibration_rows`."""
        rows = self.calibration_rows()
        masks = self.support.masks[rows, 0].numpy() > 0.5 if self.masks else None
        images = self.support.pictures[rows].numpy()
        return Known(self.support.labels[rows].numpy().astype(int), masks, images, held_out)

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

"""Runs of baselines: methods of others on the bare trunk, fitted on the same support, scored by the same evaluation."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dataset import FewShotSet
from engine.build import EncodedPrompts
from engine.few_shot_run import FewShotRun
from engine.score_images import score_by
from engine.series import Series
from engine.spec import FewShotSpec
from engine.support import Support
from engine.system import System
from runtime.errors import InputError
from scoring.baselines import IMAGE, MAP, Baseline, linear, patchcore, winclip
from scoring.memory_bank import BankLimit
from scoring.patch_scores import PatchScores
from scoring.raw_scores import RawScores, ScoreRule


@dataclass
class BaselineRun(FewShotRun):
    """A baseline fitted on support rows; for calibration every image is scored by a fit without it."""

    kept: dict[int, Any] = field(default_factory=dict)  # by support row, what a fit takes of it

    @abstractmethod
    def fitted_rows(self) -> Tensor:
        """The support rows that the baseline is fitted on."""

    @abstractmethod
    def describe(self, levels: list[Tensor]) -> Any:
        """What a fit takes of one image's tokens (1, L, C) a tap."""

    @abstractmethod
    def fit(self, rows: list[int]) -> Baseline:
        """The baseline of some of the `fitted_rows`."""

    @property
    def title(self) -> str:
        return f"{super().title}, {self.spec.method}"

    @property
    def rule(self) -> ScoreRule:
        return ScoreRule(MAP, IMAGE)

    @cached_property
    def model(self) -> Baseline:
        """The baseline of all the support."""
        return self.fit(self.fitted_rows().tolist())

    def described(self, rows: Sequence[int]) -> list[Any]:
        """What a fit takes of support rows, made once."""
        new = [row for row in rows if row not in self.kept]
        for row, prefix in zip(new, self._prefixes(torch.tensor(new, dtype=torch.long)), strict=True):
            self.kept[row] = self.describe(self.system.levels([prefix], "seg"))
        return [self.kept[row] for row in rows]

    def score_test(self, again: bool = False) -> RawScores:
        model, system = self.model, self.system
        reading = self._reading(again) | {"keep": True}  # other methods will be compared on these images
        found = score_by(lambda prefixes: system.baseline_scores(prefixes, model), system, self.test, **reading)
        return self.rule.raw_scores(found)

    def left_out_together(self) -> Tensor:
        """(V,), equal for support rows that a fit leaves out together: those of an image."""
        return self.support.source

    def score_support(self) -> RawScores:
        """Raw scores of the rows of `calibration_rows`, each by a fit without what `left_out_together` ties to it."""
        rows, tied, fitted = self.calibration_rows(), self.left_out_together(), self.fitted_rows()
        found: dict[int, dict[str, PatchScores]] = {}
        for one in tied[rows].unique():
            others = fitted[tied[fitted] != one].tolist()
            model = self.fit(others) if 0 < len(others) < len(fitted) else self.model
            mine = rows[tied[rows] == one]
            for row, prefix in zip(mine.tolist(), self._prefixes(mine), strict=True):
                found[row] = self.system.baseline_scores(prefix, model)
        parts = [found[row] for row in rows.tolist()]
        return self.rule.raw_scores({name: PatchScores.join([part[name] for part in parts]) for name in parts[0]})


class OnNormalImages(BaselineRun):
    """A baseline fitted on the normal images as they are, without augmentation.

    Calibrated on images as they are too, each normal one scored by a fit of the others. Of a single normal image there
    are no others: then its rotated, moved and flipped variants, which no fit has seen, stand for normal pixels,
    and the first of them for the image.
    """

    def fitted_rows(self) -> Tensor:
        return self.support.normal[self.support.variant[self.support.normal] == 0]

    def calibration_rows(self) -> Tensor:
        rows = super().calibration_rows()
        itself = self.support.variant[rows] == 0
        if len(self.data.support_normal) == 1:
            itself = itself != (self.support.labels[rows] == 0)
        return rows[itself]


class PatchCoreRun(OnNormalImages):
    """`scoring.baselines.patchcore`; the coreset is chosen anew for every fit."""

    @property
    def rule(self) -> ScoreRule:
        return ScoreRule(MAP, None)

    def describe(self, levels: list[Tensor]) -> Tensor:
        return patchcore.descriptors(levels)

    def fit(self, rows: list[int]) -> Baseline:
        limit = BankLimit.parse(self.spec.bank_cap) if self.spec.bank_cap else patchcore.CORESET
        return patchcore.PatchCore.fit(self.described(rows), limit, self.spec.seed)


class WinClipRun(OnNormalImages):
    """`scoring.baselines.winclip`."""

    def describe(self, levels: list[Tensor]) -> winclip.Windows:
        return winclip.windows(levels[-1], self.system.decoder.visual.project)

    def fit(self, rows: list[int]) -> Baseline:
        images = None if self.spec.branches == "zero" else self.described(rows)
        return winclip.WinCLIP.fit(self.system.decoder.visual.project, self.scored_text(), images)


class LinearRun(BaselineRun):
    """`scoring.baselines.linear`, fitted on all variants of all support images and calibrated out of fold: on every
    image with its variants by a fit without any of them; a label's only image variant by variant, as a fit needs both
    labels."""

    def fitted_rows(self) -> Tensor:
        return torch.arange(len(self.support.labels))

    def left_out_together(self) -> Tensor:
        tied, labels = self.support.source.clone(), self.support.labels
        for label in (0, 1):
            (own,) = (labels == label).nonzero(as_tuple=True)
            if len(tied[own].unique()) == 1:
                tied[own] = len(labels) + own  # each by itself, unlike any image's number
        return tied

    def describe(self, levels: list[Tensor]) -> Tensor:
        return linear.features(levels)

    def fit(self, rows: list[int]) -> Baseline:
        return linear.LinearProbe.fit(torch.cat(self.described(rows)), self.support.labels[rows])


RUNS = {"patchcore": PatchCoreRun, "winclip": WinClipRun, "linear": LinearRun}


def baseline_run(
    spec: FewShotSpec,
    data: FewShotSet,
    system: System,
    prompts: EncodedPrompts | None,
    support: Support,
    series: Series,
) -> BaselineRun:
    """The run of --method on a support. Raises InputError for `winclip` with taps that leave the last block out."""
    decoder = system.decoder
    if spec.method == "winclip" and decoder.taps[-1] != decoder.depth:
        raise InputError(f"--method winclip scores the last block's tokens: let --features_list end in {decoder.depth}")
    return RUNS[spec.method](spec, data.info, data.test, system, prompts, data, support, series=series)

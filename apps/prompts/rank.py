"""What each sentence does for the zero branch: how well it tells the support apart with the sentence and without it."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from apps.prompts.check import visible
from engine import text
from engine.build import build_system, objects_of, open_encoder, sentences
from engine.few_shot import open_support, run_name
from engine.open_checkpoint import opened_objects
from engine.options import without_adapters
from engine.settings import fixed, setting
from engine.spec import SupportSpec, SystemSpec
from engine.support import Support
from engine.system import System, on_cpu
from runtime.bars import Bar
from runtime.errors import InputError
from runtime.files import atomic_write, no_formula
from runtime.flags import natural, path
from scoring import metrics
from scoring.maps import Calibration, Scale
from scoring.patch_scores import patch_scores
from scoring.raw_scores import ScoreRule, score_rule

BAR_AFTER = 2  # seconds
BATCH = 16  # variants that go through the trunk at a time, where that gains anything
Sentences = tuple[list[str], list[str]]  # normal and abnormal sentences
Features = tuple[Tensor, Tensor]  # theirs, (N, D) and (M, D)
COLUMNS = ("object", "list", "auroc_effect", "margin_effect", "auroc_without", "margin_without", "sentence")


@dataclass(frozen=True, kw_only=True)
class RankSpec(SupportSpec, SystemSpec):
    """What each sentence does for the zero branch on the support: leave-one-out."""

    GROUP: ClassVar = "ranking"
    ckpt: Path | None = setting(None, "adapter file; default: none, the trunk's own tokens", type=path)
    csv: Path | None = setting(None, "write every sentence with its effect", type=path, metavar="FILE")
    by: str = setting("margin", "what the table is sorted by", choices=("margin", "auroc"))
    top: int = setting(10, "sentences shown from either end; 0: all of them", type=natural)
    branches: str = fixed("both")
    bank_cap: str | None = fixed(None)


@dataclass(frozen=True)
class Separation:
    """How far the zero branch keeps abnormal from normal variants of the support."""

    auroc: float  # of images, in [0, 1]
    margin: float  # mean score of the abnormal less that of the normal, scores being mean probabilities in [0, 1]


@dataclass(frozen=True)
class Leftout:
    """A sentence, its list, what it adds to the separation, and the separation when it is left out."""

    label: str
    sentence: str
    effect: Separation
    without: Separation


@dataclass(frozen=True)
class Bench:
    """The support's tokens in the joint space, computed once, and how they are scored."""

    tokens: list[Tensor]  # (V, L, D) a tap
    labels: np.ndarray  # (V,) in {0, 1}
    rule: ScoreRule
    size: int

    def separation(self, directions: Tensor) -> Separation:
        """With directions (D, 2); InputError when scores are not finite."""
        scale = Scale((0.0, float(len(self.tokens))), None)
        found = patch_scores(self.tokens, directions.to(self.tokens[0].device), None)
        raw = self.rule.raw_scores(on_cpu({self.rule.map_head: found}))
        scores = raw.image_scores(self.size, Calibration(scale, scale, {}, {}))["zero"].numpy()  # (V,)
        try:
            auroc = metrics.image_metrics(scores, self.labels)["auroc"]
        except ValueError as fault:
            raise InputError(f"the model's scores are not finite ({fault}); take another checkpoint") from fault
        return Separation(auroc, float(scores[self.labels == 1].mean() - scores[self.labels == 0].mean()))


def rank_objects(asked: Mapping[str, Any]) -> None:
    """Rank the sentences of every object that --obj, or the checkpoint, names; print and write what comes out.

    asked: settings of `RankSpec` by name. Raises InputError without abnormal support, and for a checkpoint that does
    not fit.
    """
    spec, rows = RankSpec.of(asked), []
    if spec.csv is not None and spec.csv.is_dir():
        raise InputError(f"--csv {spec.csv} is a folder; name a file")
    _check_support(spec)
    order = ("effect.margin", "effect.auroc") if spec.by == "margin" else ("effect.auroc", "effect.margin")
    for obj, bench, words, features in _benches(spec, asked):
        whole = bench.separation(text.directions(*features))
        ranked = sorted(leave_one_out(bench, words, features, whole), key=attrgetter(*order), reverse=True)
        if not ranked:
            raise InputError(f"{obj}: one sentence a list, and none to leave out; give more with --prompts")
        report(obj, bench, words, whole, ranked, spec.top)
        rows += [(obj, one.label, *astuple(one.effect), *astuple(one.without), one.sentence) for one in ranked]
    if spec.csv is not None:
        with atomic_write(spec.csv) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *(map(no_formula, row) for row in rows)])
        print(f"all {len(rows)} sentences: {spec.csv}")


def _benches(spec: RankSpec, asked: Mapping[str, Any]) -> Iterator[tuple[str, Bench, Sentences, Features]]:
    """Every object's bench, sentences and features, under its checkpoint if one is given."""
    if spec.ckpt is None:
        without_adapters(asked)
        for obj in objects_of(spec):
            data, support = open_support(spec, obj)
            words = sentences(spec, data.info)
            features = _features(spec, words)  # before the image tower is in memory
            bench = bench_of(build_system(spec, bare=True), support, score_rule(bool(data.info.masks)))
            yield obj, bench, words, features
        return
    for opened in opened_objects(RankSpec, asked, lambda obj: run_name(obj, spec.shot), "ranking"):
        run = opened.run
        _check_support(opened.spec)
        opened.load_adapters()
        words = sentences(opened.spec, run.info)
        yield run.info.name, bench_of(run.system, run.support, run.rule), words, _features(opened.spec, words)
        del opened, run  # else its model would still be in memory while the next one is opened


def _check_support(spec: RankSpec) -> None:
    """Raise InputError without abnormal support."""
    if spec.abnormal_shot == 0:
        raise InputError("rank compares normal with abnormal support; leave --abnormal_shot 0 out")


def _features(spec: RankSpec, words: Sentences) -> Features:
    with open_encoder(spec) as encoder:
        return encoder.both(*words)


def bench_of(system: System, support: Support, rule: ScoreRule) -> Bench:
    """The support's tokens under the adapters as they are now, those of the bare trunk projected to where text is."""
    parts = Bar(support.images.split(BATCH), desc="support", unit="batch", leave=False, delay=BAR_AFTER)
    tokens = system.levels((prefix for part in parts for prefix in system.prefix(part).split(BATCH)), rule.map_head)
    if system.decoder.kind == "none":
        with torch.inference_mode():
            tokens = system.decoder.joint(tokens)
    return Bench(tokens, support.labels.numpy().astype(int), rule, system.size)


def leave_one_out(bench: Bench, words: Sentences, features: Features, whole: Separation) -> Iterator[Leftout]:
    """What each sentence in turn does for the `whole`; a list's only sentence can't be left out."""
    turns = [(side, row) for side in (0, 1) for row in range(len(words[side])) if len(words[side]) > 1]
    left = text.without_each(*features).split([len(part) for part in features])  # (N, D, 2) and (M, D, 2)
    for side, row in Bar(turns, desc="ranking", unit="sentence", leave=False, delay=BAR_AFTER):
        without = bench.separation(left[side][row])
        effect = Separation(whole.auroc - without.auroc, whole.margin - without.margin)
        yield Leftout(("normal", "abnormal")[side], words[side][row], effect, without)


def report(obj: str, bench: Bench, words: Sentences, whole: Separation, ranked: list[Leftout], top: int) -> None:
    """Print the table of one object: the `top` sentences from either end, 0 for all."""
    abnormal = int(bench.labels.sum())
    normal = len(bench.labels) - abnormal
    print(f"{obj}: zero branch, on the support alone ({abnormal} abnormal and {normal} normal variants)")
    print(
        f"all {len(words[0])} normal + {len(words[1])} abnormal sentences: "
        f"image AUROC {100 * whole.auroc:.2f}, margin {whole.margin:.5f}"
    )
    print("effect of a sentence = with all less without this one; above 0 it helps")
    print(f"{'margin':>10}  {'AUROC':>7}  {'list':<8}  sentence")
    shown = [*ranked[:top], None, *ranked[-top:]] if 0 < 2 * top < len(ranked) else ranked
    for one in shown:
        if one is None:
            print(f"{'...':>10}  {len(ranked) - 2 * top} more (--top 0 shows them)")
        else:
            margin, auroc = one.effect.margin, 100 * one.effect.auroc
            print(f"{margin:>+10.6f}  {auroc:>+7.3f}  {one.label:<8}  {visible(one.sentence)}")

"""What each sentence does for the zero branch: how well it tells the support apart with the sentence and without it."""

import csv
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from apps.prompts.check import visible
from engine import text
from engine.build import build, encoder, sentences
from engine.checkpoint import Checkpoint
from engine.few_shot import open_support, run_name
from engine.objects import objects
from engine.run import same_object, trained
from engine.support import Support
from engine.system import System
from runtime.errors import InputError, naming
from runtime.files import writing
from scoring import metrics
from scoring.calibration import Calibration
from scoring.maps import Scale
from scoring.patch_scores import read
from scoring.predictions import heads, views

BAR_AFTER = 2  # seconds
BATCH = 16  # variants that go through the trunk at a time, where that gains anything
COLUMNS = ("object", "list", "auroc_effect", "margin_effect", "auroc_without", "margin_without", "sentence")


@dataclass(frozen=True)
class Separation:
    """How far the zero branch keeps abnormal from normal variants of the support."""

    auroc: float  # of images, in [0, 1]
    margin: float  # mean score of the abnormal less that of the normal, scores being mean probabilities in [0, 1]


@dataclass(frozen=True)
class Leftout:
    """A sentence, its list, and the separation when it is left out."""

    label: str
    sentence: str
    without: Separation


@dataclass(frozen=True)
class Bench:
    """The support's tokens in the joint space, computed once, and how they are scored."""

    tokens: list[Tensor]  # (V, L, D) a tap
    labels: np.ndarray  # (V,) in {0, 1}
    masks: bool  # whether the score is the map's maximum, as in few-shot runs of an object with masks
    size: int

    def separation(self, directions: Tensor) -> Separation:
        """With directions (D, 2); InputError when scores are not finite."""
        head, scale = heads(self.masks)[0], Scale((0.0, float(len(self.tokens))), None)
        seen = views({head: read(self.tokens, directions.to(self.tokens[0].device), None)}, self.masks)
        scores = seen.image_scores(self.size, Calibration(scale, scale, {}, {}))["zero"].numpy()  # (V,)
        try:
            auroc = metrics.image_metrics(scores, self.labels)["auroc"]
        except ValueError as fault:
            raise InputError(f"the model's scores are not finite ({fault}); take another checkpoint") from fault
        return Separation(auroc, float(scores[self.labels == 1].mean() - scores[self.labels == 0].mean()))


def rank_objects(args: Namespace) -> None:
    """Rank the sentences of every object that --obj, or the checkpoint, names; print and write what comes out."""
    if args.csv is not None and args.csv.is_dir():
        raise InputError(f"--csv {args.csv} is a folder; name a file")
    rows = []
    for obj, path, content, recalled in _asked(args):
        bench, words, features = open_bench(recalled, obj, path, content)
        whole = bench.separation(text.directions(*features))
        ranked = sorted(leave_one_out(bench, words, features), key=_order(args.by, whole), reverse=True)
        if not ranked:
            raise InputError(f"{obj}: one sentence a list, and none to leave out; give more with --prompts")
        report(obj, bench, words, whole, ranked, args.top)
        rows += [_row(obj, one, whole) for one in ranked]
    if args.csv is not None:
        with writing(args.csv) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        print(f"all {len(rows)} sentences: {args.csv}")


def _asked(args: Namespace) -> Iterator[tuple[str, Path | None, Checkpoint | None, Namespace]]:
    """Every object with its checkpoint, if one is given, and the options that hold for it."""
    if args.ckpt is None:
        return ((obj, None, None, args) for obj in objects(args))
    return trained(args, lambda obj: run_name(obj, args.shot))


def open_bench(
    args: Namespace, obj: str, path: Path | None, content: Checkpoint | None
) -> tuple[Bench, tuple[list[str], list[str]], tuple[Tensor, Tensor]]:
    """The support's tokens, the (normal, abnormal) sentences, and their features (N, D) and (M, D).

    content: a checkpoint, read from `path`; None takes the bare trunk. Raises InputError without abnormal support,
    and for a checkpoint of another object or other weights.
    """
    if args.abnormal_shot == 0:
        raise InputError("rank compares normal with abnormal support; leave --abnormal_shot 0 out")
    record = content and content.record
    same_object(record, obj, path)
    data, support = open_support(args, obj)
    words = sentences(args, data.info)
    with encoder(args) as encode:  # before the image tower is in memory
        features = encode.features([*words[0], *words[1]]).split([len(words[0]), len(words[1])])
    system = build(args, adapter=None if content else "none")
    if record and record["weights_sha256"] != system.weights_sha256:
        raise InputError(f"{path} was trained on other CLIP weights; name those with --pretrain or --clip_path")
    if content:
        with naming(path):
            system.decoder.load_adapters(content.last.adapters)
    masks = bool(data.info.masks)
    tokens = support_tokens(system, support, heads(masks)[0])
    return Bench(tokens, support.labels.numpy().astype(int), masks, args.img_size), words, features


def support_tokens(system: System, support: Support, head: str) -> list[Tensor]:
    """Tokens (V, L, D) a tap of all variants; those of the bare trunk are projected to where text is."""
    parts = tqdm(support.images.split(BATCH), desc="support", unit="batch", leave=False, delay=BAR_AFTER)
    levels = system.levels((stem for part in parts for stem in system.stem(part).split(BATCH)), head)
    if system.decoder.kind != "none":
        return levels
    with torch.inference_mode():
        return system.decoder.joint(levels)


def leave_one_out(
    bench: Bench, words: tuple[list[str], list[str]], features: tuple[Tensor, Tensor]
) -> Iterator[Leftout]:
    """The separation without each sentence in turn; a list's only sentence can't be left out."""
    turns = [(side, row) for side in (0, 1) for row in range(len(words[side])) if len(words[side]) > 1]
    left = text.without_each(*features).split([len(part) for part in features])  # (N, D, 2) and (M, D, 2)
    for side, row in tqdm(turns, desc="ranking", unit="sentence", leave=False, delay=BAR_AFTER):
        yield Leftout(("normal", "abnormal")[side], words[side][row], bench.separation(left[side][row]))


def effect(one: Leftout, whole: Separation) -> tuple[float, float]:
    """What the sentence adds to (AUROC, margin)."""
    return whole.auroc - one.without.auroc, whole.margin - one.without.margin


def _order(by: str, whole: Separation) -> Callable[[Leftout], tuple[float, ...]]:
    """The key that sorts by effect on the margin or the AUROC, the other deciding between equals."""
    return lambda one: effect(one, whole)[:: 1 if by == "auroc" else -1]


def _row(obj: str, one: Leftout, whole: Separation) -> tuple:
    return obj, one.label, *effect(one, whole), one.without.auroc, one.without.margin, one.sentence


def report(
    obj: str, bench: Bench, words: tuple[list[str], list[str]], whole: Separation, ranked: list[Leftout], top: int
) -> None:
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
            auroc, margin = effect(one, whole)
            print(f"{margin:>+10.6f}  {100 * auroc:>+7.3f}  {one.label:<8}  {visible(one.sentence)}")

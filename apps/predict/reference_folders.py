"""Scoring without any training: folders of normal and abnormal images as the support of a run on the bare trunk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from apps.predict.inputs import Reader, find, kind_of, same_files
from apps.predict.spec import PredictSpec
from apps.predict.volumes import Stack
from dataset import FewShotSet, Sample, to_pixels, to_unit
from engine.build import EncodedPrompts
from engine.few_shot_run import FewShotRun
from engine.kept_scores import KeptScores
from engine.open_checkpoint import named
from engine.recipe import RecipeSpec
from engine.support import Support
from engine.system import System
from engine.tiled_calibration import KnownPicture, with_bank_limit
from runtime.bars import Bar
from runtime.cache import key_of
from runtime.environment import code_sha256
from runtime.errors import InputError
from runtime.files import sha256
from runtime.tensors import digest
from scoring.calibration import CALIBRATION_IMAGES
from scoring.memory_bank import MemoryBank
from scoring.raw_scores import RawScores
from utils import VARIANTS, augment

AUGMENTED = 16  # so many normal images or fewer get the variants of few-shot training; more speak for themselves
BAR_FROM = 50  # pictures; fewer are read before a progress bar helps


class VariantRows:
    """The support's variants (V, 3, S, S), picture by picture, each read when a row of it is asked for."""

    def __init__(self, support: Sequence[KnownPicture], size: int, variants: int) -> None:
        self.support, self.size, self.variants = support, size, variants
        self.last: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return len(self.support) * self.variants

    def __getitem__(self, rows: slice) -> Tensor:
        return torch.stack([self._row(row) for row in range(*rows.indices(len(self)))])

    def _row(self, row: int) -> Tensor:
        number, variant = divmod(row, self.variants)
        if self.last[0] != number:
            image = to_unit(to_pixels(self.support[number].picture(), self.size))
            every = augment(image, torch.zeros_like(image[:1]))[0] if self.variants > 1 else image[None]
            self.last = number, every
        return self.last[1][variant]


@dataclass
class UntrainedRun(FewShotRun):
    """A run whose support is whole folders: read when needed, seen in part for calibration, its banks made once."""

    pictures: Sequence[KnownPicture] = ()
    known_by: tuple = ()  # what beside the files decides the pictures
    made: dict[str, MemoryBank] = field(default_factory=dict)

    def _bank(self, head: str, keep: bool) -> MemoryBank:
        if head not in self.made:
            self.made[head] = super()._bank(head, keep)
        return self.made[head]

    def bank_files(self) -> Iterator[object]:
        return iter((*self.known_by, *(sha256(sample.image) for sample in self.data.support_normal)))

    def score_support(self) -> RawScores:
        recipe = [(one.name, getattr(self.spec, one.name)) for one in fields(RecipeSpec)]
        scored_by = (self.rule, recipe, self.spec.bank_cap, self.spec.seed, self.calibration_rows().tolist())
        text = self.scored_text()
        words = None if text is None else digest(text)
        kept = KeptScores(self.system.cache, self.pictures_sha256)
        found = kept.at(key_of(scored_by, words), RawScores, super().score_support)
        return found.by_recipe(self.rule.recipe)

    @cached_property
    def described(self) -> Tensor:
        cache, key = self.system.cache, key_of("described", self.pictures_sha256)
        if (kept := cache.get(key)) is not None:
            return kept["described"]
        made = super().described
        cache.put(key, {"described": made})
        return made

    @cached_property
    def pictures_sha256(self) -> str:
        """Of all pictures of the support, of what they are seen by, and of the code."""
        files = (sha256(sample.image) for sample in (*self.data.support_abnormal, *self.data.support_normal))
        return key_of(code_sha256(), self.system.key, *self.known_by, *files)

    def _prefixes(self, rows: Tensor) -> Iterator[Tensor]:
        prefixes = super()._prefixes(rows)
        return iter(Bar(prefixes, "support", len(rows), unit="picture", leave=False, disable=len(rows) < BAR_FROM))

    def calibration_rows(self) -> Tensor:
        """Rows of all abnormal pictures, and of at most `CALIBRATION_IMAGES` normal ones, slices counted singly."""
        labels = np.array([known.label for known in self.pictures])
        (normal,) = (labels == 0).nonzero()
        drawn = np.random.default_rng(self.spec.seed).permutation(normal)[:CALIBRATION_IMAGES]
        chosen = np.sort(np.concatenate([(labels == 1).nonzero()[0], drawn]))
        variants = len(self.support.labels) // len(self.pictures)
        return torch.from_numpy((chosen[:, None] * variants + np.arange(variants)).ravel())


def open_untrained(
    spec: PredictSpec,
    asked: Mapping[str, Any],
    obj: str,
    system: System,
    prompts: EncodedPrompts | None,
    reader: Reader,
) -> UntrainedRun:
    """The run whose support is what --normal and --abnormal hold. Raises InputError naming a file that is at fault."""
    every = find([str(spec.normal)], option="--normal")
    normal = _drawn(every, spec.shot if "shot" in asked else None, spec.seed)
    augmented = len(normal) <= AUGMENTED and not any(kind_of(file) == "volume" for file in normal)
    abnormal, found = [], []
    if spec.abnormal:
        found = find([str(spec.abnormal)], option="--abnormal")
        if both := same_files(every, found):
            raise InputError(f"{both[0]} is in --normal and in --abnormal: leave it in one of the two")
        limit = AUGMENTED if augmented else CALIBRATION_IMAGES
        abnormal = _drawn(found, spec.abnormal_shot if {"shot", "abnormal_shot"} & asked.keys() else limit, spec.seed)
    pictures = [*_known(abnormal, 1, 0, reader), *_known(normal, 0, len(abnormal), reader)]
    variants = VARIANTS if augmented else 1
    support = _support(pictures, spec.img_size, variants)
    spec = with_bank_limit(spec, system, len(support.normal))
    info = named(obj, spec.classname, spec.score == "max")
    data = FewShotSet(
        info, tuple(Sample(file, 0) for file in normal), tuple(Sample(file, 1) for file in abnormal), (), {}
    )
    spec = replace(spec, shot=len(normal), abnormal_shot=len(abnormal))  # as the record has it
    counts = f"{_of(normal, every)} normal" + (f" + {_of(abnormal, found)} abnormal" if abnormal else "")
    slices = "" if len(pictures) == len(normal) + len(abnormal) else f" with {len(pictures)} slices"
    print(f"support: {counts} files{slices}")
    known_by = (variants, reader.axis, reader.window)
    return UntrainedRun(spec, info, (), system, prompts, data, support, pictures=pictures, known_by=known_by)


def _of(chosen: Sequence[Path], every: Sequence[Path]) -> str:
    return f"{len(chosen)}" if len(chosen) == len(every) else f"{len(chosen)} of {len(every)}"


def _drawn(files: list[Path], count: int | None, seed: int) -> list[Path]:
    """All files, or `count` of them drawn by the seed, in their order."""
    if count is None or len(files) <= count:
        return files
    return [files[row] for row in sorted(np.random.default_rng(seed).permutation(len(files))[:count])]


def _known(files: Sequence[Path], label: int, first: int, reader: Reader) -> list[KnownPicture]:
    """The pictures of files; sources are numbered from `first`. Raises InputError for an abnormal volume."""
    known = []
    for source, file in enumerate(
        Bar(files, "reading", unit="file", leave=False, disable=len(files) < BAR_FROM), first
    ):
        slices = 1 if kind_of(file) == "image" else len(reader.open(file).pictures)
        if label and slices > 1:
            raise InputError(
                f"{file}: which of its {slices} slices are abnormal? Give --abnormal such slices as images"
            )
        known += [KnownPicture(source, label, partial(_picture, reader, file, number)) for number in range(slices)]
    return known


def _picture(reader: Reader, file: Path, number: int) -> Image.Image:
    """One picture of a file."""
    return _opened(reader, file).pictures[number]


@lru_cache(maxsize=1)
def _opened(reader: Reader, file: Path) -> Stack:
    """A file, still at hand when its next slice is asked for."""
    return reader.open(file)


def _support(pictures: Sequence[KnownPicture], size: int, variants: int) -> Support:
    """The pictures as what a few-shot run trains on: nothing is marked in them, and nothing read yet."""
    rows = len(pictures) * variants
    return Support(
        images=VariantRows(pictures, size, variants),
        masks=torch.zeros(1, 1, 1, 1).expand(rows, 1, size, size),
        labels=torch.tensor([float(known.label) for known in pictures]).repeat_interleave(variants),
        source=torch.tensor([known.source for known in pictures]).repeat_interleave(variants),
        variant=torch.arange(rows) % variants,
    )

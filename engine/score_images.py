"""Patch scores and ground truth of many images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset import Sample, load_mask
from engine.held_images import HeldImages, read
from engine.system import System
from runtime import distributed, memory
from runtime.bars import Bar
from runtime.flags import AUTO
from scoring.cues import CueReader, Cues
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores
from scoring.raw_scores import Masks

MASKS_IN_MEMORY = 1 << 29  # pixels, a byte each
BAR_FROM = 200  # images; scoring fewer is over before a progress bar helps
MOST, SHARE = 64, 0.25  # images scored together, and of a device's free memory what they may take
FIXED = 16  # images read at once on a CPU, and scored together where the same bits are wanted every time


def score_images(
    system: System,
    samples: Sequence[Sample],
    heads: Sequence[str],
    text: Tensor | None,
    banks: dict[str, MemoryBank],
    reader: CueReader | None = None,
    **reading: Any,
) -> dict[str, PatchScores | Cues]:
    """Patch scores of all samples by head, in their order, and with a reader their cues; `reading` is as in
    `score_by`."""

    def score(prefixes: Tensor) -> dict[str, PatchScores | Cues]:
        return system.score(prefixes, heads, text, banks, reader)

    return score_by(score, system, samples, **reading)


def score_by(
    score: Callable[[Tensor], dict[str, PatchScores | Cues]],
    system: System,
    samples: Sequence[Sample],
    *,
    batch_size: int | str = AUTO,
    workers: int | str = 0,
    keep: bool = False,
    held: HeldImages | None = None,
) -> dict[str, PatchScores | Cues]:
    """What `score` makes of all samples' prefix tokens (B, L, C), in their order.

    Images are decoded ahead by `workers` processes. Prefixes that the cache has come from there; keep: the others go
    there if that pays, since these images will be seen again. held: what holds them between passes, of these samples
    alone.
    """
    mine = distributed.shard(samples) if len(samples) >= distributed.world_size() else samples
    hidden = len(samples) < BAR_FROM or not distributed.main_process()
    size = batch_that_fits(system) if batch_size == AUTO else batch_size
    batches = (read if held is None else held.prefixes)(system, mine, size, workers, keep)
    bar = Bar(batches, desc="scoring", total=-(-len(mine) // size), unit="batch", leave=False, disable=hidden)
    found, done = {}, 0
    for parts in _in_pieces(score, bar):
        # no tensor a batch: see `scoring.maps.chunks`
        found = found or {name: part.room(len(mine)) for name, part in parts.items()}
        for name, part in parts.items():
            found[name].put(done, part)
        done += len(part)
    if len(mine) == len(samples):
        return found
    return {name: scores.gather(len(samples)) for name, scores in found.items()}


def batch_that_fits(system: System) -> int:
    """How many images are scored together; on a CPU they go one by one, and so many are read at once."""
    if system.device.type == "cpu" or torch.are_deterministic_algorithms_enabled():  # whatever is free at the moment
        return FIXED
    return fitting(system.scoring_bytes, memory.free_bytes(system.device))


def fitting(each: int, free: int) -> int:
    """How many images of `each` bytes are scored together where so many are free: a power of two up to `MOST`, so that
    little differences of what is free make none."""
    images = int(SHARE * free) // each
    return min(MOST, 1 << max(0, images.bit_length() - 1))


def _in_pieces(
    score: Callable[[Tensor], dict[str, PatchScores | Cues]], batches: Iterable[Tensor]
) -> Iterator[dict[str, PatchScores | Cues]]:
    """What `score` makes of one batch after the other; where a device's memory does not suffice for one, of halves, and
    of no larger pieces from then on."""
    most = None
    for batch in batches:
        left = batch
        while len(left):
            try:
                parts = score(left[:most])
            except torch.cuda.OutOfMemoryError:
                if len(left[:most]) == 1:
                    raise
                most = len(left[:most]) // 2
                continue
            yield parts
            left = left[len(left[:most]) :]


def ground_truth(samples: Sequence[Sample], size: int, masks: bool) -> tuple[np.ndarray, Masks | None]:
    """Labels (N,) in {0, 1}, and with masks what is abnormal, bool (N, S, S): read now, or when asked for if many."""
    labels = np.array([sample.label for sample in samples])
    if not masks:
        return labels, None
    files = MaskFiles(samples, size)
    return labels, files[:] if len(samples) * size**2 <= MASKS_IN_MEMORY else files


@dataclass(frozen=True)
class MaskFiles:
    """The masks of samples, bool (N, S, S), read when rows are asked for."""

    samples: Sequence[Sample]
    size: int

    def __getitem__(self, rows: slice) -> np.ndarray:
        samples = self.samples[rows]
        abnormal = np.zeros((len(samples), self.size, self.size), bool)
        for row, sample in enumerate(samples):
            if sample.mask is not None:
                abnormal[row] = load_mask(sample.mask, self.size)[0].numpy() > 0.5
        return abnormal

"""Patch scores and ground truth of many images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from dataset import Batches, ImageSet, Sample, load_mask
from engine.system import System
from runtime import distributed
from runtime.bars import Bar
from scoring.cues import CueReader, Cues
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores
from scoring.raw_scores import Masks

MASKS_IN_MEMORY = 1 << 29  # pixels, a byte each
BAR_FROM = 200  # images; scoring fewer is over before a progress bar helps


def score_images(
    system: System,
    samples: Sequence[Sample],
    heads: Sequence[str],
    text: Tensor | None,
    banks: dict[str, MemoryBank],
    reader: CueReader | None = None,
    *,
    batch_size: int = 16,
    workers: int = 0,
    keep: bool = False,
) -> dict[str, PatchScores | Cues]:
    """Patch scores of all samples by head, in their order, and with a reader their cues; the rest is as in
    `score_by`."""

    def score(prefixes: Tensor) -> dict[str, PatchScores | Cues]:
        return system.score(prefixes, heads, text, banks, reader)

    return score_by(score, system, samples, batch_size=batch_size, workers=workers, keep=keep)


def score_by(
    score: Callable[[Tensor], dict[str, PatchScores | Cues]],
    system: System,
    samples: Sequence[Sample],
    *,
    batch_size: int = 16,
    workers: int = 0,
    keep: bool = False,
) -> dict[str, PatchScores | Cues]:
    """What `score` makes of all samples' prefix tokens (B, L, C), in their order.

    Images are decoded ahead by `workers` processes. Prefixes that the cache has come from there; keep: the others go
    there, since these images will be seen again.
    """
    mine = distributed.shard(samples) if len(samples) >= distributed.world_size() else samples
    images = ImageSet([replace(sample, mask=None) for sample in mine], system.size, system.known_prefixes)
    hidden = len(samples) < BAR_FROM or not distributed.main_process()
    batches = Batches(images, batch_size, num_workers=workers)
    bar = Bar(batches, desc="scoring", unit="batch", leave=False, disable=hidden)
    found, done = {}, 0
    for items in bar:
        parts = score(system.prefixes(items, keep))
        # no tensor a batch: see `scoring.maps.chunks`
        found = found or {name: part.room(len(mine)) for name, part in parts.items()}
        for name, part in parts.items():
            found[name].put(done, part)
        done += len(items)
    if len(mine) == len(samples):
        return found
    return {name: scores.gather(len(samples)) for name, scores in found.items()}


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

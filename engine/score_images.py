"""Patch scores and ground truth of many images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from tqdm import tqdm

from dataset import Batches, ImageSet, Sample, load_mask
from engine.system import System
from runtime import distributed
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
    *,
    batch_size: int = 16,
    workers: int = 0,
    keep: bool = False,
) -> dict[str, PatchScores]:
    """Patch scores of all samples by head, in their order; images are decoded ahead by `workers` processes.

    Prefixes that the cache has come from there; keep: the others go there, since these images will be seen again.
    """
    mine = distributed.shard(samples) if len(samples) >= distributed.world_size() else samples
    images = ImageSet([replace(sample, mask=None) for sample in mine], system.size, system.known_prefixes)
    hidden = len(samples) < BAR_FROM or not distributed.main_process()
    batches = Batches(images, batch_size, num_workers=workers, pin_memory=system.device.type == "cuda")
    bar = tqdm(batches, desc="scoring", unit="batch", leave=False, disable=hidden)
    found, done = {}, 0
    for items in bar:
        part = system.score(system.prefixes(items, keep), heads, text, banks)
        found = found or {
            head: part[head].room(len(mine)) for head in heads
        }  # no tensor a batch: see `scoring.maps.chunks`
        for head in heads:
            found[head].put(done, part[head])
        done += len(items)
    if len(mine) == len(samples):
        return found
    return {head: scores.gather(len(samples)) for head, scores in found.items()}


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

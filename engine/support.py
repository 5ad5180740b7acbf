"""The support images in all their variants."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dataset import FewShotSet, Sample, load_image, load_mask
from utils import VARIANTS, augment


class ImageRows(Protocol):
    """Images (V, 3, S, S) in [0, 1]: a tensor, or something that reads the rows that are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Tensor: ...


@dataclass(frozen=True)
class Support:
    """Every variant of every support image: the abnormal ones first, all images of one variant together."""

    images: ImageRows
    masks: Tensor  # (V, 1, S, S) in {0, 1}
    labels: Tensor  # (V,) in {0, 1}
    source: Tensor  # (V,) which image a variant is of
    variant: Tensor  # (V,) which of the 11 it is
    parents: Tensor | None = None  # (V, 2) images that a synthetic row was made of, -1 of all others; None: none is

    @property
    def is_synthetic(self) -> Tensor:
        """(V,) bool."""
        return torch.zeros(len(self.labels), dtype=torch.bool) if self.parents is None else self.parents[:, 0] >= 0

    @property
    def normal(self) -> Tensor:
        """Rows of the normal variants."""
        return (self.labels == 0).nonzero()[:, 0]


def load_support(data: FewShotSet, size: int) -> Support:
    """Read and augment the support (the paper's "Few-shot training")."""
    columns = [_variants(samples, size) for samples in (data.support_abnormal, data.support_normal) if samples]
    images, masks, labels, source, variant = (torch.cat(part) for part in zip(*columns, strict=True))
    source = source + len(data.support_abnormal) * (labels == 0)
    return Support(images, masks, labels, source, variant)


def _variants(samples: tuple[Sample, ...], size: int) -> tuple[Tensor, ...]:
    """Images, masks, labels, image numbers and variant numbers of samples of one label, variant by variant."""
    pairs = []
    for sample in samples:
        mask = torch.zeros(1, size, size) if sample.mask is None else load_mask(sample.mask, size)
        pairs.append(augment(load_image(sample.image, size), mask))
    images, masks = (torch.stack(part, dim=1).flatten(0, 1) for part in zip(*pairs, strict=True))
    labels = torch.full((len(images),), float(samples[0].label))
    source = torch.arange(len(samples)).repeat(VARIANTS)
    return images, masks, labels, source, torch.arange(VARIANTS).repeat_interleave(len(samples))

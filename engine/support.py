"""The support images in all their variants."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dataset import FewShotSet, Sample, load_image, load_mask
from runtime.cache import key_of
from runtime.errors import InputError
from scoring.maps import smoothed
from utils import VARIANTS, augment

SOFT = 2.0  # pixels, deviation of the Gaussian that a pasted lesion's edge is softened by


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
    def pictures(self) -> Tensor:
        """(V,), equal for the variants of a picture; of a volume every slice is one."""
        return self.source if self.variant.any() else torch.arange(len(self.source))

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


def with_synthetic(support: Support, count: int, seed: int) -> Support:
    """The support with `count` further abnormal images from each normal one: lesions of abnormal variants, cut by their
    masks, lie in it where they lay, their edges softened (as CutPaste, Li et al., CVPR 2021, but of real lesions).

    They come last, each an image of its own without variants. Raises InputError where nothing is marked.
    """
    marked = ((support.labels == 1) & support.masks.flatten(1).any(dim=1)).nonzero()[:, 0]
    if not len(marked):
        raise InputError(
            "--synthetic pastes lesions by their masks, and no abnormal support image has one; leave it out"
        )
    rng, itself = np.random.default_rng(seed), support.normal[support.variant[support.normal] == 0]
    normal = itself.repeat_interleave(count)
    taken = marked[torch.from_numpy(rng.integers(len(marked), size=len(normal)))]
    masks = support.masks[taken]
    weight = smoothed(masks[:, 0], SOFT)[:, None]
    made = len(normal)
    none = torch.full((len(support.labels), 2), -1)
    return Support(
        torch.cat([support.images, support.images[normal].lerp(support.images[taken], weight)]),
        torch.cat([support.masks, masks]),
        torch.cat([support.labels, torch.ones(made)]),
        torch.cat([support.source, support.source.max() + 1 + torch.arange(made)]),
        torch.cat([support.variant, torch.zeros(made, dtype=torch.long)]),
        torch.cat([none, torch.stack([support.source[taken], support.source[normal]], dim=1)]),
    )


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


def support_files(data: FewShotSet) -> Iterator[object]:
    """The bytes of the support's images and masks, in their order."""
    samples = (*data.support_abnormal, *data.support_normal)
    return (path.read_bytes() for one in samples for path in (one.image, one.mask) if path is not None)


def support_key(data: FewShotSet, size: int) -> tuple[object, ...]:
    """What tells the support's images of a side of `size` pixels from others, their bytes too, within one process."""
    return data.support_abnormal, data.support_normal, size, key_of(*support_files(data))

"""Parts of a system at once, without a run around them: a bank of given tokens, directions of given sentences."""

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor

from CLIP import CLIP
from engine.text import directions, encode
from scoring.memory_bank import MemoryBank


def bank_of(levels: Iterable[Tensor]) -> MemoryBank:
    """The bank of tokens (..., h) a tap; of no known owners."""
    return MemoryBank([F.normalize(tokens.flatten(0, -2), dim=-1) for tokens in levels])


def directions_of(clip: CLIP, normal: Sequence[str], abnormal: Sequence[str]) -> Tensor:
    """The text directions (D, 2) of {normal, abnormal} sentences."""
    return directions(*encode(clip, [*normal, *abnormal]).split([len(normal), len(abnormal)]))

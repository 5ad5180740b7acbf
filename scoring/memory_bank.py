"""The memory bank: unit tokens of the normal support, in which an image's tokens look for their nearest ("Scoring")."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoder import to_grid
from runtime.devices import to_device
from runtime.errors import InputError
from runtime.linear import Packed, linear, packs

CHUNK = 4096  # bank tokens compared at a time
SHARE = 0.1  # of all tokens, what "coreset" keeps unless told
POOL = 10  # a coreset is chosen from this many times its size, drawn evenly
PROJECTED = 128  # dimensions in which it is chosen


@dataclass(frozen=True)
class BankLimit:
    """How much of a large bank is kept: `tokens` a tap (None: all, or SHARE of them), evenly drawn or as a coreset."""

    tokens: int | None = None
    coreset: bool = False

    @staticmethod
    def parse(text: str | None) -> "BankLimit":
        """None, "20000", "coreset" or "coreset:20000"; InputError for anything else."""
        if text is None:
            return BankLimit()
        way, colon, number = text.partition(":") if text.startswith("coreset") else ("", "", text)
        if way not in ("", "coreset") or not (re.fullmatch("0*[1-9][0-9]{0,11}", number) or (way and not colon)):
            raise InputError(f"--bank_cap {text} is neither a number of tokens nor coreset nor coreset:NUMBER")
        return BankLimit(int(number) if number else None, way == "coreset")

    def sizes(self, total: int) -> tuple[int, int]:
        """Of `total` tokens, how many are drawn, and how many of these are kept."""
        kept = min(total, self.tokens or (max(1, round(SHARE * total)) if self.coreset else total))
        return (min(total, POOL * kept) if self.coreset else kept), kept


class MemoryBank:
    """One matrix (N, h) of unit tokens a tap, class tokens included as published.

    owners: for each tap (N,), the image that a token is of; by it an image's tokens can be left out of the search.
    side: patches a side of the neighbourhood that a patch stands for, by the mean of its tokens; 1: itself alone.
    search: the 16-bit type in which nearest tokens are sought, where the device has such products; None: float32. Their
    cosines are float32's in any case: of each `CHUNK` tokens one is found, and the highest of theirs counts.
    """

    def __init__(
        self,
        levels: Sequence[Tensor],
        owners: Sequence[Tensor] | None = None,
        side: int = 1,
        search: torch.dtype | None = None,
    ) -> None:
        self.levels, self.owners, self.side = list(levels), None if owners is None else list(owners), side
        on_cpu = levels[0].device.type == "cpu"
        self.search = None if search is None or (on_cpu and not packs(search)) else search
        self._sought: dict[tuple[int, int], Tensor | Packed] = {}  # by tap and first token, what is sought among

    @staticmethod
    def build(
        images: Iterable[tuple[list[Tensor], int]],
        count: int,
        limit: BankLimit,
        seed: int,
        side: int = 1,
        search: torch.dtype | None = None,
    ) -> "MemoryBank":
        """The bank of `count` images' tokens (1, L, h) a tap, each with its owner, taken in one image at a time."""
        generator, start = torch.Generator().manual_seed(seed), 0
        levels: list[Tensor] = []
        for tokens, owner in images:
            length = tokens[0].shape[1]
            if side > 1:  # class tokens have no neighbours
                tokens = [torch.cat([level[:, :1], neighbourhood_means(level[:, 1:], side)], dim=1) for level in tokens]
            if not levels:
                drawn, kept = limit.sizes(count * length)
                rows = torch.randperm(count * length, generator=generator)[:drawn].sort().values
                levels = [level.new_empty(drawn, level.shape[2]) for level in tokens]
                owners = [torch.empty(drawn, dtype=torch.long) for _ in tokens]
            first, last = torch.searchsorted(rows, torch.tensor([start, start + length])).tolist()
            places = to_device(rows[first:last] - start, tokens[0].device)
            for level, own, found in zip(levels, owners, tokens, strict=True):
                level[first:last] = F.normalize(found[0] if len(places) == length else found[0, places], dim=-1)
                own[first:last] = owner
            start += length
        if kept < drawn:
            for tap, level in enumerate(levels):
                chosen = greedy_coreset(level, kept, generator)
                levels[tap], owners[tap] = level[chosen], owners[tap][chosen.cpu()]
        return MemoryBank(levels, owners, side, search)

    def distance(self, tap: int, tokens: Tensor, without: Sequence[int] = ()) -> Tensor:
        """`nearest` of an image's tokens, (B, L, h) -> (B, P), class token dropped."""
        patches = tokens[:, 1:] if self.side == 1 else neighbourhood_means(tokens[:, 1:], self.side)
        return self.nearest(tap, patches, without)

    def nearest(self, tap: int, patches: Tensor, without: Sequence[int] = ()) -> Tensor:
        """1 - the highest cosine to the bank of that tap, (B, P, h) -> (B, P).

        without: the owners whose tokens don't count.
        """
        queries = F.normalize(patches, dim=-1)  # (B, P, h)
        best = None
        for first in range(0, len(self.levels[tap]), CHUNK):
            left_out = None
            if without:
                owners = self.owners[tap][first : first + CHUNK]
                left_out = torch.isin(owners, torch.tensor(list(without))).to(queries.device)
            highest = self._highest(queries, tap, first, left_out)  # (B, P)
            best = highest if best is None else torch.maximum(best, highest)
        return 1 - best

    def _highest(self, queries: Tensor, tap: int, first: int, left_out: Tensor | None) -> Tensor:
        """The highest cosine of queries (B, P, h) to the `CHUNK` tokens from `first` on, (B, P); -inf where all of them
        are left out."""
        level = self.levels[tap][first : first + CHUNK]
        cosines = linear(queries, level if self.search is None else self._in_half(tap, first, queries))  # (B, P, n)
        if left_out is not None:
            cosines[..., left_out] = -torch.inf
        if self.search is None:
            return cosines.amax(dim=-1)
        found = cosines.max(dim=-1)
        exact = (queries * level[found.indices]).sum(dim=-1)
        return exact if left_out is None else exact.masked_fill(found.values == -torch.inf, -torch.inf)

    def _in_half(self, tap: int, first: int, queries: Tensor) -> Tensor | Packed:
        """The `CHUNK` tokens from `first` on as they are sought among, kept from now on."""
        if (tap, first) not in self._sought:
            half = self.levels[tap][first : first + CHUNK].to(self.search)
            self._sought[tap, first] = Packed(half, queries.shape[1]) if half.device.type == "cpu" else half
        return self._sought[tap, first]

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` makes the bank of again."""
        return {f"level{tap}": level for tap, level in enumerate(self.levels)} | {
            f"owner{tap}": owner for tap, owner in enumerate(self.owners)
        }

    def is_of(self, owners: Iterable[int]) -> bool:
        """Whether every token is of one of the `owners`."""
        known = torch.tensor(list(owners))
        return all(
            len(level) == len(owner) and bool(torch.isin(owner, known).all())
            for level, owner in zip(self.levels, self.owners, strict=True)
        )

    @staticmethod
    def like(taps: int, width: int) -> dict[str, tuple[torch.dtype, tuple[int | None, ...]]]:
        """Types and shapes of the `tensors` of a bank with tokens of that `width` at so many taps."""
        levels = {f"level{tap}": (torch.float32, (None, width)) for tap in range(taps)}
        return levels | {f"owner{tap}": (torch.int64, (None,)) for tap in range(taps)}

    @staticmethod
    def from_tensors(
        tensors: Mapping[str, Tensor], device: torch.device, side: int = 1, search: torch.dtype | None = None
    ) -> "MemoryBank":
        """The bank that gave these `tensors`."""
        taps = range(len(tensors) // 2)
        levels, owners = [tensors[f"level{tap}"].to(device) for tap in taps], [tensors[f"owner{tap}"] for tap in taps]
        return MemoryBank(levels, owners, side, search)


def neighbourhood_means(patches: Tensor, side: int) -> Tensor:
    """Patch tokens (B, P, C) -> (B, P, C), each the mean over side x side patches; at borders over what is there."""
    grid = to_grid(patches.transpose(1, 2))  # (B, C, G, G)
    means = F.avg_pool2d(grid, side, stride=1, padding=side // 2, count_include_pad=False)
    return means.flatten(2).transpose(1, 2)


def greedy_coreset(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows (count,) of points (N, h), each the farthest from all chosen before it: PatchCore's greedy coreset.

    Distances are taken after a random projection to PROJECTED dimensions, as there.
    """
    if points.shape[1] > PROJECTED:
        axes = torch.randn(points.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
        points = points @ axes.to(points.device)
    squares = points.square().sum(dim=1)  # (N,)
    chosen = torch.empty(count, dtype=torch.long, device=points.device)
    farthest = torch.randint(len(points), (), generator=generator).to(points.device)
    nearest = torch.full_like(squares, torch.inf)  # squared distance to what is chosen
    for place in range(count):
        chosen[place] = farthest
        distance = squares + squares[farthest] - 2 * (points @ points[farthest])
        nearest = torch.minimum(nearest, distance)
        nearest[farthest] = -torch.inf
        farthest = nearest.argmax()
    return chosen.sort().values

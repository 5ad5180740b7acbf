"""The model at work on images: prefix tokens, tokens of every tap, patch scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dataset import Item, load_pixels, to_unit
from decoder import HEADS, Decoded, MDecoder
from engine.prefix_files import TIMES, PrefixFiles
from runtime.cache import Cache, key_of
from runtime.devices import stack_for, stack_on, timed, to_cpu, to_device
from scoring.baselines import Baseline
from scoring.cues import CUES, CueReader, Cues
from scoring.memory_bank import CHUNK, MemoryBank
from scoring.patch_scores import PatchScores, patch_scores

BARE = "bare"  # beside the names of heads, the trunk's own tokens
FLOAT = 4  # bytes
BLOCK, COSINES = 14, 2  # how often a block has its input's size in memory at once, and the bank's search its cosines


@dataclass
class System:
    """Decoder and protocol on a device. Prefix tokens are what the first blocks give, before any adapter."""

    decoder: MDecoder
    device: torch.device
    size: int
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None  # mean and deviation of RGB, or none
    weights_sha256: str = ""
    cache: Cache = field(default_factory=lambda: Cache("", 0))
    key: str = ""  # names all that a prefix depends on beside its image
    search: torch.dtype | None = None  # in which memory banks seek what is nearest; None: float32
    keeping_pays: bool | None = None  # whether prefix tokens go to the cache; None: not measured yet

    @torch.no_grad()
    def prefix(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1], or uint8, on any device -> the first tap's tokens (B, L, C), which know no
        adapter.

        The protocol's normalisation is in here. On a CPU images go one by one: batching gains nothing there, and so a
        score never depends on the company an image is in. Elsewhere the whole batch goes at once.
        """
        images = self.normalise(to_unit(to_device(images, self.device)))
        return torch.cat([self.decoder.prefix(part) for part in self._apart(images)])

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] as the trunk wants them; the same shape."""
        if self.normalisation is None:
            return images
        on = _by_channel if images.device.type == "cpu" else _known_by_channel
        mean, std = (on(tuple(part), images.device) for part in self.normalisation)
        return (images - mean) / std

    def prefixes(self, items: Sequence[Item], keep: bool) -> Tensor:
        """Prefix tokens (B, L, C) of items; those not known are computed, and with `keep` go to the cache."""
        new, known = [item for item in items if item.known is None], [item for item in items if item.known is not None]
        there = [stack_on([item.known for item in known], self.device)] if known else []
        if new:
            images = to_device(self.stacked(new), self.device)
            there.append(self.prefix(images))
            if keep and self._keeping_pays(new[0].path, images, there[-1]):
                self._keep(new, there[-1])
        if len(there) < 2:
            return there[0] if there else torch.empty(0)
        places = {id(item): place for place, item in enumerate([*known, *new])}
        return torch.cat(there)[[places[id(item)] for item in items]]

    def stacked(self, items: Sequence[Item]) -> Tensor:
        """Images of items (B, 3, S, S) in the host's memory: uint8, or float32 in [0, 1] if one of them is."""
        images = [item.image for item in items]
        if any(one.dtype != torch.uint8 for one in images):
            images = [to_unit(one) for one in images]
        return stack_for(images, self.device)

    def _keep(self, items: Sequence[Item], prefixes: Tensor) -> None:
        files = self.known_prefixes
        for item, prefix in zip(items, prefixes.cpu(), strict=True):
            files.keep(item.path, prefix)

    def _keeping_pays(self, path: Path, images: Tensor, prefixes: Tensor) -> bool:
        """Whether keeping prefix tokens and reading them once takes less time than making them anew: on a CPU always,
        elsewhere measured on the first batch that is computed, the images (B, 3, S, S) of which one lies at `path`."""
        if not self.cache.limit or self.device.type == "cpu":
            return bool(self.cache.limit)
        if self.keeping_pays is None:
            decoded = timed(lambda: load_pixels(path, self.size), self.device, TIMES)
            computed = timed(lambda: self.prefix(images), self.device, TIMES) / len(images)
            self.keeping_pays = self.known_prefixes.seconds(path, prefixes[0]) < decoded + computed
        return self.keeping_pays

    def adapters_digest(self) -> str:
        """A hash of the adapters as they are now."""
        decoder = self.decoder
        tensors = (tensor for heads in HEADS for tensor in getattr(decoder, heads).state_dict().values())
        weights = (key_of(tensor.cpu().numpy().tobytes()) for tensor in tensors)  # one copied at a time
        return key_of(decoder.kind, decoder.taps, decoder.wiring, *weights)

    @property
    def known_prefixes(self) -> PrefixFiles:
        """The prefix tokens that earlier epochs and runs kept."""
        return PrefixFiles(self.cache, self.key, self.token_shape)

    @property
    def token_shape(self) -> tuple[int, int]:
        """Of an image's prefix tokens, (L, C)."""
        visual = self.decoder.visual
        return visual.tokens(self.size), len(visual.class_embedding)

    @property
    def scoring_bytes(self) -> int:
        """What an image takes at most while it is scored: a block of the trunk, the tokens of all taps, for both heads
        and for cues, and a part of the bank's cosines."""
        tokens, width = self.token_shape
        return FLOAT * tokens * ((BLOCK + 3 * self.decoder.levels) * width + COSINES * CHUNK)

    @torch.inference_mode()
    def tokens(self, prefixes: Tensor, heads: Sequence[str], trunk: bool = False) -> Iterator[Decoded]:
        """Tokens for scoring, of `heads` alone, and with `trunk` of the trunk; on a CPU image by image."""
        for part in self._apart(prefixes):
            yield self.decoder.decode(part, heads, pooled=False, trunk=trunk)

    def levels(self, prefixes: Iterable[Tensor], head: str) -> list[Tensor]:
        """All tokens of the prefix tokens (1, L, C) given, of the "seg" or "det" head or `BARE`, (V, L, h) a tap."""
        if head == BARE:
            with torch.inference_mode():
                parts = [self.decoder.bare(part) for part in prefixes]
        else:
            parts = [decoded.tokens(head) for part in prefixes for decoded in self.tokens(part, (head,))]
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def score(
        self,
        prefixes: Tensor,
        heads: Sequence[str],
        text: Tensor | None,
        banks: dict[str, MemoryBank],
        reader: CueReader | None = None,
        without: Sequence[int] = (),
    ) -> dict[str, PatchScores | Cues]:
        """Patch scores of prefix tokens (B, L, C) by head; no text, or no bank of a head, switches that branch off.

        reader: of cues, which are then there too, by the name `CUES`. without: as in `MemoryBank.distance`.
        """
        parts = []
        for one in self._apart(prefixes):
            (decoded,) = self.tokens(one, heads)
            parts.append(self.score_decoded(one, decoded, heads, text, banks, reader, without))
        return {name: type(first).join([part[name] for part in parts]) for name, first in parts[0].items()}

    def score_decoded(
        self,
        prefixes: Tensor,
        decoded: Decoded,
        heads: Sequence[str],
        text: Tensor | None,
        banks: dict[str, MemoryBank],
        reader: CueReader | None = None,
        without: Sequence[int] = (),
    ) -> dict[str, PatchScores | Cues]:
        """As `score`, of prefix tokens that are decoded already, however many."""
        found: dict[str, PatchScores | Cues] = {
            head: self.patch_scores(decoded.tokens(head), text, banks.get(head), without) for head in heads
        }
        if reader is not None:
            found[CUES] = self._cues(prefixes, decoded.tokens(heads[0]), reader)
        return on_cpu(found)

    @torch.inference_mode()
    def _cues(self, prefixes: Tensor, tokens: list[Tensor], reader: CueReader) -> Cues:
        """Cues of prefix tokens (B, L, C), and of a head's tokens, which without adapters are the bare trunk's."""
        bare = tokens if self.decoder.kind == "none" else self.decoder.bare(prefixes)
        return reader.read(bare, [self.decoder.visual.project(level) for level in bare])

    def shape_of(self, head: str) -> tuple[int, int]:
        """How many levels a head's tokens have, and how wide they are."""
        decoder = self.decoder
        return (
            (len(decoder.taps), len(decoder.visual.class_embedding))
            if head == BARE
            else (decoder.levels, decoder.token_width)
        )

    @torch.inference_mode()
    def patch_scores(
        self, tokens: list[Tensor], text: Tensor | None, bank: MemoryBank | None, without: Sequence[int] = ()
    ) -> PatchScores:
        """Patch scores of one head's tokens, on their device; arguments as in `scoring.patch_scores`."""
        return patch_scores(tokens, text, bank, without, None if text is None else self.decoder.joint(tokens))

    @torch.inference_mode()
    def baseline_scores(self, prefixes: Tensor, baseline: Baseline) -> dict[str, PatchScores]:
        """A baseline's patch scores of prefix tokens (B, L, C), by their names in `scoring.baselines`."""
        parts = [on_cpu(baseline.score(decoded.tokens("seg"))) for decoded in self.tokens(prefixes, ("seg",))]
        return {name: PatchScores.join([part[name] for part in parts]) for name in parts[0]}

    def _apart(self, batch: Tensor) -> tuple[Tensor, ...]:
        return batch.split(1 if self.device.type == "cpu" else max(1, len(batch)))


def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(3, 1, 1)


_known_by_channel = cache(_by_channel)  # a copy less for every batch


def on_cpu(found: Mapping[str, PatchScores | Cues]) -> dict[str, PatchScores | Cues]:
    """What was found of a batch, on the CPU by one copy."""
    parts: list[Tensor] = []
    for one in found.values():
        one.each(lambda values: parts.append(values) or values)
    there = iter(to_cpu(parts))
    return {name: one.each(lambda _: next(there)) for name, one in found.items()}

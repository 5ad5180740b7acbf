"""The model at work on images: prefix tokens, tokens of every tap, patch scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dataset import Item
from decoder import HEADS, Decoded, MDecoder
from runtime.cache import Cache, key_of
from runtime.devices import stack_on, to_cpu, to_device
from scoring.baselines import Baseline
from scoring.cues import CUES, CueReader, Cues
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores, patch_scores

BARE = "bare"  # beside the names of heads, the trunk's own tokens


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

    @torch.no_grad()
    def prefix(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1], on any device -> the first tap's tokens (B, L, C), which know no adapter.

        The protocol's normalisation is in here. On a CPU images go one by one: batching gains nothing there, and so a
        score never depends on the company an image is in. Elsewhere the whole batch goes at once.
        """
        images = self.normalise(to_device(images, self.device))
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
            there.append(self.prefix(stack_on([item.image for item in new], self.device)))
            if keep:
                self._keep(new, there[-1])
        if len(there) < 2:
            return there[0] if there else torch.empty(0)
        places = {id(item): place for place, item in enumerate([*known, *new])}
        return torch.cat(there)[[places[id(item)] for item in items]]

    def _keep(self, items: Sequence[Item], prefixes: Tensor) -> None:
        files = self.known_prefixes
        if files.cache.limit:
            for item, prefix in zip(items, prefixes.cpu(), strict=True):
                files.keep(item.path, prefix)

    def adapters_digest(self) -> str:
        """A hash of the adapters as they are now."""
        decoder = self.decoder
        tensors = (tensor for heads in HEADS for tensor in getattr(decoder, heads).state_dict().values())
        weights = (key_of(tensor.cpu().numpy().tobytes()) for tensor in tensors)  # one copied at a time
        return key_of(decoder.kind, decoder.taps, decoder.wiring, *weights)

    @property
    def known_prefixes(self) -> "PrefixFiles":
        """The prefix tokens that earlier epochs and runs kept."""
        visual = self.decoder.visual
        return PrefixFiles(self.cache, self.key, (visual.tokens(self.size), len(visual.class_embedding)))

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


@dataclass(frozen=True)
class PrefixFiles:
    """The prefix tokens (L, C) = `shape` that the cache has of image files, found by the files' bytes."""

    cache: Cache
    key: str
    shape: tuple[int, int]

    def __call__(self, path: Path) -> Tensor | None:
        """The prefix tokens (L, C) of an image file, None if it is not known."""
        if not self.cache.limit:
            return None  # without reading the file for nothing
        try:
            found = self.cache.get(key_of(self.key, path.read_bytes()), {"prefix": (torch.float32, self.shape)})
        except OSError:
            return None  # whoever decodes the file will say what is wrong with it
        return None if found is None else found["prefix"]

    def keep(self, path: Path, prefix: Tensor) -> None:
        """Note what was computed."""
        if self.cache.limit:
            self.cache.put(key_of(self.key, path.read_bytes()), {"prefix": prefix})

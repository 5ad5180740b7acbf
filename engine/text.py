"""Sentences to the two vectors that tokens are compared with (the paper's "Text side")."""

import hashlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP import CLIP, tokenize
from runtime.cache import Cache
from runtime.memory import trim_memory

# Sentences of one length a pass: on a CPU in float32, there in 16 bits, elsewhere. In float32 more than one gain little
# on a CPU, and a new sentence by itself would wait for a full batch; in 16 bits most of the time is reading weights.
SINGLE, HALF, ON_DEVICE = 1, 4, 64
TYPICAL = 20  # symbols of a sentence


@torch.no_grad()
def encode(clip: CLIP, sentences: Sequence[str]) -> Tensor:
    """Unit features (N, D) of N sentences, on the model's device.

    Sentences of one length go together, cut to that length, which changes nothing under the causal mask. Batches are
    filled up to one size: in a batch of fixed shape a sentence's feature does not depend on its company, to the bit.
    """
    ids = tokenize(list(sentences)).to(clip.text_projection.device)
    lengths = ids.argmax(dim=1) + 1
    features = ids.new_empty(len(ids), clip.embed_dim, dtype=clip.text_projection.dtype)
    single = clip.transformer.resblocks[0].attn.in_proj_weight.dtype == torch.float32
    batch = ON_DEVICE if ids.device.type != "cpu" else SINGLE if single else HALF
    for length in lengths.unique().tolist():
        for rows in (lengths == length).nonzero()[:, 0].split(batch):
            full = rows.repeat(-(-batch // len(rows)))[:batch]
            features[rows] = clip.encode_text(ids[full, :length])[: len(rows)]
    return F.normalize(features, dim=1)


def directions(normal: Tensor, abnormal: Tensor) -> Tensor:
    """Unit features (N, D) and (M, D) -> the directions (D, 2) of {normal, abnormal}: averages made unit again."""
    return F.normalize(torch.stack([normal.mean(dim=0), abnormal.mean(dim=0)], dim=1), dim=0)


def without_each(normal: Tensor, abnormal: Tensor) -> Tensor:
    """Directions (N + M, D, 2) with one sentence left out each, of unit features (N, D) and (M, D).

    nan where a label is left without any.
    """
    left = directions(normal, abnormal).repeat(len(normal) + len(abnormal), 1, 1)
    left[: len(normal), :, 0] = F.normalize((normal.sum(dim=0) - normal) / (len(normal) - 1), dim=1)
    left[len(normal) :, :, 1] = F.normalize((abnormal.sum(dim=0) - abnormal) / (len(abnormal) - 1), dim=1)
    return left


class Encoder:
    """Unit features of sentences, each computed once ever: `cache` keeps them under `key`, which names the model.

    dim: of a feature, D.
    tower: loads the model when a sentence is new; on leaving the context it is dropped, with the memory it takes.
    """

    def __init__(self, tower: Callable[[], CLIP], cache: Cache, key: str, dim: int) -> None:
        self.tower, self.cache, self.key, self.dim = tower, cache, key, dim
        self.clip: CLIP | None = None
        self.known: dict[bytes, Tensor] | None = None

    def __enter__(self) -> "Encoder":
        return self

    def __exit__(self, *fault: object) -> None:
        self.clip = None
        trim_memory()

    def ready(self) -> None:
        """Load the model now, so that the next new sentence need not wait for it."""
        self.clip = self.clip or self.tower()

    def features(self, sentences: Sequence[str]) -> Tensor:
        """(N, D), on the CPU."""
        if self.known is None:
            self.known = self._recall()
        names = [hashlib.sha256(sentence.encode()).digest() for sentence in sentences]
        new = {name: sentence for name, sentence in zip(names, sentences, strict=True) if name not in self.known}
        if new:
            self.ready()
            self.known |= zip(new, encode(self.clip, list(new.values())).cpu(), strict=True)
            self._keep()
        return torch.stack([self.known[name] for name in names])

    def both(self, normal: Sequence[str], abnormal: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (N, D) and (M, D) of {normal, abnormal} sentences, on the CPU."""
        return self.features([*normal, *abnormal]).split([len(normal), len(abnormal)])

    def directions(self, normal: Sequence[str], abnormal: Sequence[str]) -> Tensor:
        """The directions (D, 2) of {normal, abnormal} sentences, on the CPU."""
        return directions(*self.both(normal, abnormal))

    def _recall(self) -> dict[bytes, Tensor]:
        like = {
            "names": (torch.uint8, (None, hashlib.sha256().digest_size)),
            "features": (torch.float32, (None, self.dim)),
        }
        kept = self.cache.get(self.key, like)
        if kept is None or len(kept["names"]) != len(kept["features"]):
            return {}
        features = kept["features"].clone()  # not mapped: the file is written again
        return {bytes(name.tolist()): feature for name, feature in zip(kept["names"], features, strict=True)}

    def _keep(self) -> None:
        self.known = self._recall() | self.known  # others may have kept theirs meanwhile
        names = torch.tensor([list(name) for name in self.known], dtype=torch.uint8)
        self.cache.put(self.key, {"names": names, "features": torch.stack(list(self.known.values()))})

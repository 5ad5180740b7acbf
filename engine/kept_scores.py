"""Scores in the cache: what the model said of a picture is small, and asked for again by the next command."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from runtime.cache import Cache, key_of

S = TypeVar("S")


@dataclass(frozen=True)
class KeptScores:
    """Scores by picture, as dataclasses of tensors. known_by: a hash of all that they depend on beside the picture."""

    cache: Cache
    known_by: str

    def of(self, picture: Image.Image, without: Sequence[int], kind: type[S], make: Callable[[], S]) -> S:
        """Those of a picture (`without` some owners' tokens in the bank), of a `kind`, made if they are not known."""
        pixels = np.asarray(picture)
        return self.at(key_of(picture.mode, picture.size, pixels.tobytes(), without), kind, make)

    def at(self, key: str, kind: type[S], make: Callable[[], S]) -> S:
        """Those of a key."""
        if not self.cache.limit:
            return make()
        key = key_of("scores", self.known_by, key)
        if (kept := self.cache.get(key)) is not None:
            return from_tensors(kind, kept)
        made = make()
        self.cache.put(key, {name: tensor.clone() for name, tensor in tensors_of(made)})  # some are one and the same
        return made


def tensors_of(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a dataclass and of those in it, with their names; of what else it holds names alone, as bytes."""
    for one in fields(content):
        value = getattr(content, one.name)
        if is_dataclass(value):
            yield from tensors_of(value, f"{name}{one.name}.")
        elif isinstance(value, Tensor):
            yield f"{name}{one.name}", value
        elif isinstance(value, tuple) and value and all(isinstance(part, str) for part in value):
            yield f"{name}{one.name}", torch.tensor(list("\n".join(value).encode()), dtype=torch.uint8)


def from_tensors(kind: type[S], tensors: Mapping[str, Tensor], name: str = "") -> S:
    """The dataclass that `tensors_of` took apart; what was no tensor is as it is by default."""
    found, hints = {}, get_type_hints(kind)
    for one in fields(kind):
        own = f"{name}{one.name}"
        inner = next(filter(is_dataclass, (hints[one.name], *get_args(hints[one.name]))), None)
        if inner is not None and any(other.startswith(f"{own}.") for other in tensors):
            found[one.name] = from_tensors(inner, tensors, f"{own}.")
        elif own in tensors or one.default is MISSING:
            found[one.name] = tensors.get(own)
            if hints[one.name] == tuple[str, ...]:
                found[one.name] = tuple(bytes(tensors[own].tolist()).decode().split("\n"))
    return kind(**found)

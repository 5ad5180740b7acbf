"""Prefix tokens of image files in the cache, and what it costs to have them there."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from runtime.cache import Cache, key_of
from runtime.devices import stack_on, timed

TIMES = 3  # that something is done when its seconds are taken, of which the least count


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

    def seconds(self, path: Path, prefix: Tensor) -> float:
        """Measured: to keep prefix tokens (L, C) that are on a device, and to have them there again another time.

        By another name, so that the image is no more known than others of its batch: other batches are other last bits.
        """
        own = replace(self, key=f"{self.key} measured")

        def there_and_back() -> None:
            own.keep(path, prefix.cpu())
            if (found := own(path)) is not None:
                stack_on([found], prefix.device)

        taken = timed(there_and_back, prefix.device, TIMES)
        return math.inf if own(path) is None else taken

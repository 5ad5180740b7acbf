"""Runs of one process that belong together, as those of a study: what they have in common is made once."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cachetools import LRUCache

T = TypeVar("T")
MOST = {
    "tower": 1,
    "support": 4,
    "prefixes": 4,
    "truth": 2,
    "bank": 2,
    "trained": 8,
}  # of each kind, the last used stay


class Series:
    """What runs share, by kind: the image tower, the support in all its variants and their prefix tokens, the test
    set's ground truth, the memory bank of the adapters at hand, adapters that are trained alike.

    keep False, as for a run by itself: nothing is kept, and the newest run's files are copied to where they always lie.
    keep True: no copies are made, and test images' prefix tokens go to the cache, since later runs want them.
    written: told of every run before it counts as finished: its folder, the `Run`, and what was `Evaluated`.
    """

    def __init__(self, keep: bool = False, written: Callable[[Path, Any, Sequence[Any]], None] | None = None) -> None:
        self.keep, self.written = keep, written
        self._kept: dict[str, LRUCache] = {kind: LRUCache(most) for kind, most in MOST.items()}

    def once(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """What an earlier run of the series made under this key, else what `make` gives now."""
        if not self.keep:
            return make()
        kept: LRUCache[Hashable, Any] = self._kept[kind]
        if key not in kept:
            kept.pop(next(iter(kept)), None) if len(kept) == kept.maxsize else None  # room before the new one is made
            kept[key] = make()
        return kept[key]

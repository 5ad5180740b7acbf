"""Results that are dear to compute and small to keep: trunk tokens, memory banks, sentence features, in a folder.

An entry is found by a hash of everything it depends on, and carries the hash of its own bytes: one that is stale is
never asked for, one that is damaged is computed anew.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from files import writing

DIGEST = hashlib.sha256().digest_size
SUFFIX = ".tensors"


def key_of(*parts: object) -> str:
    """A hash of parts whose text tells them apart: numbers, strings, tuples of them; bytes."""
    whole = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode()
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()


class Cache:
    """A folder of entries, each a dict of tensors, that holds at most `limit` bytes.

    When it is full, entries that this run has not used make room, the longest unused first; if there are none, the
    new one is not kept. Several processes may share a folder. A folder that can't be written costs time, no more.
    """

    def __init__(self, folder: str | Path, limit: float) -> None:
        self.folder, self.limit = Path(folder), int(limit)
        self.started: dict[str, int] | None = None  # key -> bytes of the entries of earlier runs, oldest first
        self.size = 0

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The entry, on the CPU; None if it is not there or damaged."""
        if not self.limit:
            return None
        path = self._path(key)
        try:
            content = path.read_bytes()
            if hashlib.sha256(memoryview(content)[DIGEST:]).digest() != content[:DIGEST]:
                return None
            tensors = load(content[DIGEST:])
        except (OSError, SafetensorError):
            return None
        if self.started is not None:
            self.started.pop(key, None)
        with contextlib.suppress(OSError):
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep an entry, if there is room for it."""
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        if not self._room(key, DIGEST + len(content)):
            return
        with contextlib.suppress(OSError), writing(self._path(key)) as draft, draft.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def _room(self, key: str, size: int) -> bool:
        """Whether an entry of `size` bytes fits, after older ones were removed for it."""
        if self.started is None:
            self.started = self._survey()
        self.size -= self.started.pop(key, 0)
        while self.size + size > self.limit and self.started:
            oldest = next(iter(self.started))
            self.size -= self.started.pop(oldest)
            with contextlib.suppress(OSError):
                self._path(oldest).unlink()
        fits = self.size + size <= self.limit
        self.size += size * fits
        return fits

    def _survey(self) -> dict[str, int]:
        """Bytes of every entry that is there, the longest unused first."""
        found = []
        for path in self.folder.glob(f"??/[!.]*{SUFFIX}"):  # not the drafts of a run that is writing
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, path.name.removesuffix(SUFFIX), stat.st_size))
        self.size = sum(size for *_, size in found)
        return {name: size for _, name, size in sorted(found)}

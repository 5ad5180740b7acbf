"""Results that are dear to compute and small to keep: trunk tokens, memory banks, sentence features, in a folder.

An entry is found by a hash of everything it depends on, and carries the hash of its own content: one that is stale is
never asked for, one that is damaged is computed anew.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from runtime.files import atomic_write
from runtime.tensors import digest

HEADER, EACH = 256, 128  # bytes of an entry beside its tensors, at most: once, and for each tensor
SUFFIX = ".safetensors"
Like = tuple[torch.dtype, tuple[int | None, ...]]  # a tensor's type and shape; None: any size but 0


def key_of(*parts: object) -> str:
    """A hash of parts whose text tells them apart: numbers, strings, tuples of them; bytes."""
    whole = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode()
        whole.update(len(content).to_bytes(8, "little") + content)
    return whole.hexdigest()


def _alike(tensors: Mapping[str, Tensor], like: Mapping[str, Like]) -> bool:
    """Whether names, types and shapes are these."""
    return tensors.keys() == like.keys() and all(
        tensors[name].dtype == kind
        and tensors[name].ndim == len(shape)
        and all(
            there == size if size is not None else there for there, size in zip(tensors[name].shape, shape, strict=True)
        )
        for name, (kind, shape) in like.items()
    )


class Cache:
    """A folder of entries, each a dict of tensors, that holds at most `limit` bytes.

    When it is full, entries that this run has not used make room, the longest unused first; if there are none, the
    new one is not kept. Several processes may share a folder. A folder that can't be written costs time, no more.
    """

    def __init__(self, folder: str | Path, limit: float) -> None:
        self.folder, self.limit = Path(folder), int(limit)
        self.started: dict[str, int] | None = None  # key -> bytes of the entries of earlier runs, oldest first
        self.own: dict[str, int] = {}  # of those that this run has found or kept, which stay
        self.size = 0

    def get(self, key: str, like: Mapping[str, Like] | None = None) -> dict[str, Tensor] | None:
        """The entry, on the CPU; None if it is not there, damaged, or has other tensors than `like`."""
        if not self.limit:
            return None
        path = self._path(key)
        try:
            with safe_open(path, "pt") as entry:  # tensors stay in the file until they are used
                tensors = {name: entry.get_tensor(name) for name in entry.keys()}  # noqa: SIM118
                if (entry.metadata() or {}).get("sha256") != digest(tensors):
                    return None
        except (OSError, SafetensorError):
            return None
        if like is not None and not _alike(tensors, like):
            return None
        if self.started is not None and key in self.started:
            self.own[key] = self.started.pop(key)
        with contextlib.suppress(OSError):
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep an entry, if there is room for it."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if not self._room(key, HEADER + sum(EACH + tensor.nbytes for tensor in tensors.values())):
            return
        with contextlib.suppress(OSError, SafetensorError), atomic_write(self._path(key)) as draft:
            save_file(tensors, draft, {"sha256": digest(tensors)})

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def _room(self, key: str, size: int) -> bool:
        """Whether an entry of `size` bytes fits, after older ones were removed for it."""
        if self.started is None:
            self.started = self._entries()
        before = self.started.pop(key, 0) + self.own.pop(key, 0)
        self.size -= before
        while self.size + size > self.limit and self.started:
            oldest = next(iter(self.started))
            self.size -= self.started.pop(oldest)
            with contextlib.suppress(OSError):
                self._path(oldest).unlink()
        fits = self.size + size <= self.limit
        self.own[key] = size if fits else before
        self.size += self.own[key]
        return fits

    def _entries(self) -> dict[str, int]:
        """Bytes of every entry that is there, the longest unused first."""
        found = []
        for path in self.folder.glob(f"??/[!.]*{SUFFIX}"):  # not the drafts of a run that is writing
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, path.name.removesuffix(SUFFIX), stat.st_size))
        self.size = sum(size for *_, size in found)
        return {name: size for _, name, size in sorted(found)}

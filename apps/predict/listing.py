"""The files of a run on many machines, listed once on the disk: workers read their share of it, no process all."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apps.predict.inputs import kind_of
from apps.predict.roi import RegionMasks
from apps.predict.score_files import common_folder, labelled
from report.panels import panel_names
from runtime.errors import InputError
from runtime.files import atomic_write

ID = "id"
SHARES = 10_000  # parts that a run is cut into, as long as none is smaller or larger than this many files:
SMALLEST, LARGEST = 32, 10_000
SCHEMA = pa.schema(
    {
        ID: pa.int64(),  # 8 bytes an image are what a checkpoint's table takes in memory
        "place": pa.int64(),  # in the order of scores.csv
        "file": pa.binary(),  # a name need not be UTF-8
        "image": pa.bool_(),  # of a kind whose bytes may be brought to a reader
        "name": pa.string(),  # of what is written of it
        "mask": pa.binary(),  # with --roi
        "fault": pa.string(),  # with --roi, why there is no mask
    }
)


@dataclass(frozen=True)
class Listing:
    """A parquet file with a row for every input, in row groups of `share` rows, which are worked on together.

    ids (N,) int64, in the order of the rows: each says which file it is and in which state.
    """

    path: Path
    ids: np.ndarray
    share: int

    @property
    def shares(self) -> int:
        """How many row groups there are."""
        return -(-len(self.ids) // self.share)

    @cached_property
    def _order(self) -> np.ndarray:
        """What sorts the ids."""
        return np.argsort(self.ids)

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Where ids (M,) stand in the listing; -1 for those that do not."""
        at = np.searchsorted(self.ids, ids, sorter=self._order)
        found = self._order[np.minimum(at, len(self.ids) - 1)]
        return np.where(self.ids[found] == ids, found, -1)


class ListedFiles(Sequence[Path]):
    """The files of a listing, read from the disk whenever they are gone through."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return pq.read_metadata(self.path).num_rows

    def __getitem__(self, number: int) -> Path:
        return next(file for place, file in enumerate(self) if place == number)

    def __iter__(self) -> Iterator[Path]:
        for batch in pq.ParquetFile(self.path).iter_batches(columns=["file"]):
            yield from (Path(os.fsdecode(name)) for name in batch["file"].to_pylist())


def write_listing(path: Path, files: Sequence[Path], masks: RegionMasks | None) -> Listing:
    """List the files in their order. Raises InputError for two that can't be told apart."""
    share = min(max(len(files) // SHARES, SMALLEST), LARGEST)
    names = [name.removesuffix(".png") for name in panel_names(map(labelled, files), common_folder(files))]
    ids = np.empty(len(files), np.int64)
    with atomic_write(path) as draft, pq.ParquetWriter(draft, SCHEMA) as writer:
        for start in range(0, len(files), share):
            rows = [_row(at, files[at], names[at], masks) for at in range(start, min(start + share, len(files)))]
            ids[start : start + len(rows)] = [row[ID] for row in rows]
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=share)
    if len(np.unique(ids)) < len(ids):
        raise InputError("two of the files have the same 63-bit hash of name, size and time: touch one of them")
    return Listing(path, ids, share)


def _row(place: int, file: Path, name: str, masks: RegionMasks | None) -> dict[str, Any]:
    mask, fault = None, None
    if masks is not None:
        try:
            mask = masks.of(file)
        except InputError as missing:
            fault = str(missing)
    known = os.fsencode(file) + name.encode() + b"".join(_state(one) for one in (file, mask) if one)
    return {
        ID: int.from_bytes(hashlib.blake2b(known, digest_size=8).digest()) >> 1,
        "place": place,
        "file": os.fsencode(file),
        "image": kind_of(file) == "image",
        "name": name,
        "mask": os.fsencode(mask) if mask else None,
        "fault": fault,
    }


def _state(file: Path) -> bytes:
    """A file's size and time of change; of one that is gone, that it is."""
    try:
        found = file.stat()
    except OSError:
        return b"gone"
    return f" {found.st_size} {found.st_mtime_ns} ".encode()

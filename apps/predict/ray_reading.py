"""What Ray's tasks read: their share of the listing, and the bytes of its files. Nothing here needs torch."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

BLOCK = 16 << 20  # bytes of files that travel together; a larger file is read by the actor itself
ROW = 200  # bytes of a listing's row, about


class ListingSource(Datasource):
    """The rows of a listing, a read task for every row group."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, known = path, pq.read_metadata(path)
        self.shares, self.rows = known.num_row_groups, known.num_rows

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all rows, about."""
        return ROW * self.rows

    def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:
        """One for every row group, whatever parallelism is asked for."""
        rows = -(-self.rows // self.shares)
        known = BlockMetadata(num_rows=rows, size_bytes=ROW * rows, exec_stats=None, input_files=None)
        return [ReadTask(partial(_read_share, self.path, number), known) for number in range(self.shares)]


def _read_share(path: Path, number: int) -> list[pa.Table]:
    return [pq.ParquetFile(path).read_row_group(number)]


def read_bytes(rows: pa.Table, cwd: str) -> Iterator[pa.Table]:
    """Rows of the listing with the bytes of their files, as many at a time as fit a block.

    null: of volumes, DICOM, large files and those that can't be read, which the actor opens by their names.
    """
    start, held, contents = 0, 0, []
    for number, (name, image) in enumerate(zip(rows["file"].to_pylist(), rows["image"].to_pylist(), strict=True)):
        content = _bytes(Path(cwd, os.fsdecode(name))) if image else None
        if held and held + len(content or b"") > BLOCK:
            yield _with(rows, start, contents)
            start, held, contents = number, 0, []
        contents.append(content)
        held += len(content or b"")
    if contents:
        yield _with(rows, start, contents)


def _with(rows: pa.Table, start: int, contents: list[bytes | None]) -> pa.Table:
    return rows.slice(start, len(contents)).append_column("bytes", pa.array(contents, pa.large_binary()))


def _bytes(file: Path) -> bytes | None:
    try:
        return file.read_bytes() if file.is_file() and file.stat().st_size <= BLOCK else None
    except OSError:
        return None  # said in one line by the actor

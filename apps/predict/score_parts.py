"""The parts of a run on many machines: parquet files of rows, and one scores.csv made of them."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from apps.predict.listing import ID, Listing
from apps.predict.outputs import COLUMNS, TABLE, UNREADABLE, ScoredPicture, cells, open_table
from runtime.files import atomic_write

AT_ONCE = 200_000  # images whose rows are in memory while scores.csv is written; of more, so many at a time
SHOWN_FAULTS = 20
PENDING = ".pending.parquet"  # the end of Ray's name for a checkpoint whose part may be half-written
SCHEMA = pa.schema(
    {
        ID: pa.int64(),
        "place": pa.int64(),  # of the file, in the order of scores.csv
        "row": pa.int64(),  # among those of its file
        "file": pa.string(),
        "slice": pa.int64(),
        "score": pa.float64(),
        "threshold": pa.float64(),
        "verdict": pa.string(),
        "confidence": pa.float64(),
        "p_value": pa.float64(),
        "uncertain": pa.bool_(),
        "seconds": pa.float64(),
        "note": pa.string(),
        "error": pa.string(),  # why it was not scored; null if it was
        "map": pa.string(),
        "findings": pa.string(),
    }
)
ROW = {one.name for one in fields(ScoredPicture)} & set(SCHEMA.names)


def as_table(ids: Sequence[int], places: Sequence[int], rows: Sequence[Sequence[ScoredPicture]]) -> pa.Table:
    """Rows of files, a sequence each, as a part holds them."""
    content = [
        {ID: own, "place": place, "row": number, **_plain(row)}
        for own, place, of_file in zip(ids, places, rows, strict=True)
        for number, row in enumerate(of_file)
    ]
    return pa.Table.from_pylist(content, SCHEMA)


def _plain(row: ScoredPicture) -> dict:
    """A row's columns; what of its texts is no UTF-8 is written as its code, as in scores.csv."""
    known = {name: value for name, value in asdict(row).items() if name in ROW}
    known["error"] = row.note if row.verdict == UNREADABLE else None
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in known.items()
    }


@dataclass
class Counts:
    """What scores.csv holds: rows by verdict, files without a row, rows that were there twice, the first faults."""

    verdicts: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    duplicates: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """The folder of parts, and that of Ray's checkpoints: a file of ids for every part, by the same name.

    Ray writes a checkpoint under a pending name, then the part, then gives the checkpoint its name; before it goes on
    it takes away parts of pending ones. So a part counts when its checkpoint has its name.
    """

    scores: Path
    checkpoint: Path

    def committed(self) -> Iterator[tuple[Path, Path]]:
        """Parts and their checkpoints, as far as they are finished."""
        done = {path.stem: path for path in self.checkpoint.glob("*.parquet") if not path.name.endswith(PENDING)}
        for part in sorted(self.scores.glob("*.parquet")):
            if (own := done.get(part.stem) or done.get(part.stem.rpartition("-")[0])) is not None:
                yield part, own

    def settle(self, listing: Listing) -> int:
        """Take away rows that no longer hold: of files with a fault, changed or no longer listed; checkpoints without a
        part. Rows of the others get their present places. Gives the number of files that are finished.
        """
        finished, kept = 0, set()
        for part, checkpoint in list(self.committed()):
            kept.add(checkpoint)
            finished += self._settle(part, checkpoint, listing)
        for path in self.checkpoint.glob("*.parquet"):
            if path not in kept and not path.name.endswith(PENDING):
                path.unlink()  # its rows are lost, and are made again
        return finished

    def _settle(self, part: Path, checkpoint: Path, listing: Listing) -> int:
        table = pq.ParquetFile(part).read([ID, "place", "error"])
        ids, places = (table[name].to_numpy() for name in (ID, "place"))
        faulty = np.unique(ids[table["error"].is_valid().to_numpy()])
        now = listing.places(ids)
        holds = (now >= 0) & ~np.isin(ids, faulty)
        if not (holds.all() and (now == places).all()):
            whole = pq.ParquetFile(part).read()
            whole = whole.set_column(whole.schema.get_field_index("place"), "place", pa.array(now))
            whole = whole.filter(pa.array(holds))
            _rewrite(checkpoint, whole.select([ID]))  # first: a row without checkpoint is made again
            _rewrite(part, whole)
        return len(np.unique(ids[holds]))

    def write_csv(self, folder: Path, listing: Listing) -> Counts:
        """Write scores.csv of all finished parts, in the order of the files; each row once, whatever parts hold it."""
        parts, counts, whole = [str(part) for part, _ in self.committed()], Counts(), len(listing.ids)
        found = ds.dataset(parts, SCHEMA, format="parquet") if parts else None
        with atomic_write(folder / TABLE) as draft, open_table(draft, "w") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for first in range(0, whole, AT_ONCE):
                last = min(first + AT_ONCE, whole)
                held = (ds.field("place") >= first) & (ds.field("place") < last)
                table = SCHEMA.empty_table() if found is None else found.to_table(filter=held)
                _write_rows(writer, _each_once(table, last - first, counts), counts)
        return counts


def _each_once(table: pa.Table, files: int, counts: Counts) -> pa.Table:
    """The rows in order, without those that are there twice; `counts` learns of these and of missing files."""
    places, rows = (table[name].to_numpy() for name in ("place", "row"))
    order = np.lexsort((rows, places))
    places, rows = places[order], rows[order]
    new = np.ones(len(order), bool)
    new[1:] = (places[1:] != places[:-1]) | (rows[1:] != rows[:-1])
    counts.duplicates += int((~new).sum())
    counts.missing += files - len(np.unique(places))
    return table.take(pa.array(order[new]))


def _write_rows(writer: Any, table: pa.Table, counts: Counts) -> None:
    for batch in table.select(sorted(ROW)).to_batches(max_chunksize=10_000):
        rows = [ScoredPicture(**row) for row in batch.to_pylist()]
        writer.writerows(map(cells, rows))
        counts.verdicts.update(row.verdict for row in rows)
        room = SHOWN_FAULTS - len(counts.faults)
        counts.faults += [row.note for row in rows if row.verdict == UNREADABLE][:room]


def _rewrite(path: Path, table: pa.Table) -> None:
    with atomic_write(path) as draft:
        pq.write_table(table, draft)

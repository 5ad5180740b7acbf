"""Parts of a run on many machines: which rows hold, and one scores.csv of them."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.predicting import noise

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from apps.predict import listing as listings  # noqa: E402
from apps.predict import score_parts  # noqa: E402
from apps.predict.listing import ListedFiles, Listing, write_listing  # noqa: E402
from apps.predict.map_store import MapStore  # noqa: E402
from apps.predict.outputs import UNREADABLE, ScoredPicture  # noqa: E402
from apps.predict.roi import RegionMasks  # noqa: E402
from apps.predict.score_parts import PENDING, Parts, as_table  # noqa: E402
from runtime.errors import InputError  # noqa: E402

FILES = 10


class Run:
    """Ten files, listed, and parts of four files each: 0 to 3, 4 to 7 and 8 to 9."""

    def __init__(self, root: Path) -> None:
        self.root, self.files = root, [noise(root / "in" / f"{n}.png", (8, 8), seed=n) for n in range(FILES)]
        self.parts = Parts(root / "scores", root / "checkpoint")
        self.listed = self.listing()
        for start in range(0, FILES, 4):
            self.part(f"run_{start:06}", range(start, min(start + 4, FILES)))

    def listing(self) -> Listing:
        return write_listing(self.root / "listing.parquet", self.files, None)

    def row(self, place: int) -> ScoredPicture:
        return ScoredPicture(str(self.files[place]), None, place / 7, 0.5, "normal", 0.25)

    def part(self, name: str, places: range, faulty: int | None = None) -> None:
        """Write a part and its checkpoint as Ray names them."""
        fault = ScoredPicture(str(self.files[faulty or 0]), None, None, None, UNREADABLE, None, "can't be read")
        rows = [[fault if place == faulty else self.row(place)] for place in places]
        table = as_table(self.listed.ids[list(places)].tolist(), places, rows)
        for folder, content in ((self.parts.scores, table), (self.parts.checkpoint, table.select(["id"]))):
            folder.mkdir(exist_ok=True)
            pq.write_table(content, folder / (f"{name}-0.parquet" if content is table else f"{name}.parquet"))

    def table(self, listed: Listing | None = None) -> tuple[list[dict[str, str]], score_parts.Counts]:
        counts = self.parts.write_csv(self.root, listed or self.listed)
        with (self.root / "scores.csv").open(newline="") as file:
            return list(csv.DictReader(file)), counts

    def checkpointed(self) -> set[int]:
        return {one for path in self.parts.checkpoint.iterdir() for one in pq.read_table(path)["id"].to_pylist()}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.mark.parametrize("at_once", [200_000, 3, 1])
def test_the_table_is_in_the_files_order_however_many_rows_are_in_memory(run, monkeypatch, at_once):
    monkeypatch.setattr(score_parts, "AT_ONCE", at_once)
    rows, counts = run.table()
    assert [Path(row["file"]).name for row in rows] == [f"{number}.png" for number in range(FILES)]
    assert [float(row["score"]) for row in rows] == [number / 7 for number in range(FILES)]  # to the bit
    assert counts.verdicts == {"normal": FILES} and counts.missing == counts.duplicates == 0
    assert rows[3] == {
        **{"file": str(run.files[3]), "slice": "", "score": repr(3 / 7), "threshold": "0.5", "verdict": "normal"},
        **{"confidence": "", "p_value": "", "uncertain": "0", "seconds": "0.25", "note": "", "findings": ""},
    }


@pytest.mark.parametrize("at_once", [200_000, 3])
def test_rows_that_are_there_twice_are_written_once(run, monkeypatch, at_once):
    """As by a worker that outlived its driver."""
    monkeypatch.setattr(score_parts, "AT_ONCE", at_once)
    once, _ = run.table()
    run.part("late_000000", range(2, 6))
    rows, counts = run.table()
    assert rows == once and counts.duplicates == 4 and counts.missing == 0


def test_a_part_without_a_finished_checkpoint_does_not_count(run):
    name = "run_000004"
    os.replace(run.parts.checkpoint / f"{name}.parquet", run.parts.checkpoint / f"{name}{PENDING}")
    (run.parts.scores / f"{name}-0.parquet").write_bytes(b"half of a par")
    assert run.parts.settle(run.listed) == 6
    rows, counts = run.table()
    assert counts.missing == 4 and len(rows) == 6
    assert (run.parts.checkpoint / f"{name}{PENDING}").exists()  # Ray takes it away, with the part


def test_a_checkpoint_whose_part_is_lost_is_forgotten(run):
    (run.parts.scores / "run_000000-0.parquet").unlink()
    assert run.parts.settle(run.listed) == 6
    assert run.checkpointed() == set(run.listed.ids[4:].tolist())


def test_files_with_a_fault_are_tried_again(run):
    run.part("run_000000", range(4), faulty=2)
    rows, counts = run.table()
    assert rows[2]["verdict"] == UNREADABLE and counts.faults == ["can't be read"]
    assert pq.read_table(run.parts.scores / "run_000000-0.parquet")["error"].to_pylist()[2] == "can't be read"
    assert run.parts.settle(run.listed) == 9
    assert run.checkpointed() == set(np.delete(run.listed.ids, 2).tolist())
    run.part("again_000000", range(2, 3))
    rows, counts = run.table()
    assert rows[2]["verdict"] == "normal" and not counts.faults and not counts.duplicates


def test_changed_new_and_missing_files_move_the_others(run):
    changed = run.listed.ids[5]
    noise(run.files[5], (9, 9), seed=99)
    first = noise(run.root / "in" / "00.png", (8, 8))
    gone = run.files.pop(1)
    run.files.insert(0, first)
    listed = run.listing()
    assert run.parts.settle(listed) == FILES - 2
    assert changed not in run.checkpointed() and len(run.checkpointed()) == FILES - 2
    rows, counts = run.table(listed)
    assert [Path(row["file"]).name for row in rows] == [f"{number}.png" for number in (0, 2, 3, 4, 6, 7, 8, 9)]
    assert counts.missing == 2 and str(gone) not in {row["file"] for row in rows}
    assert run.parts.settle(listed) == FILES - 2  # nothing more to do


def test_many_rows_of_one_file_stay_in_order(run):
    slices = [ScoredPicture("v.nii", number, 0.5, 0.5, "abnormal", 0.1) for number in (0, 1, 2)]
    slices.append(ScoredPicture("v.nii", None, None, None, UNREADABLE, None, "broken from here on"))
    shutil.rmtree(run.parts.scores)
    run.parts.scores.mkdir()
    table = as_table(run.listed.ids[:1].tolist(), [0], [slices])
    pq.write_table(table.take(pa.array([2, 0, 3, 1])), run.parts.scores / "run_000000-0.parquet")
    rows, counts = run.table()
    assert [row["slice"] for row in rows] == ["0", "1", "2", ""] and counts.missing == FILES - 1


def test_a_listing_is_read_in_shares(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "SMALLEST", 3)
    name = os.fsdecode(b"caf\xe9.png")  # no UTF-8
    files = [*(noise(tmp_path / "in" / f"{n}.png", (8, 8), seed=n) for n in range(6)), tmp_path / "in" / name]
    shutil.copy(files[0], files[-1])
    listed = write_listing(tmp_path / "listing.parquet", files, None)
    assert listed.shares == pq.read_metadata(listed.path).num_row_groups == 3
    assert list(ListedFiles(listed.path)) == files and len(ListedFiles(listed.path)) == 7
    assert ListedFiles(listed.path)[6] == files[6]
    assert listed.places(np.array([listed.ids[4], 5, listed.ids[0]])).tolist() == [4, -1, 0]
    assert (listed.ids >= 0).all() and len(set(listed.ids.tolist())) == 7


def test_a_listing_names_masks_and_what_is_wrong_with_them(tmp_path):
    files = [noise(tmp_path / "in" / f"{n}.png", (8, 8)) for n in range(2)]
    mask = noise(tmp_path / "masks" / "0.png", (8, 8))
    path = tmp_path / "listing.parquet"
    before = write_listing(path, files, RegionMasks(tmp_path / "masks", files)).ids
    rows = pq.read_table(path).to_pylist()
    assert rows[0]["mask"] == os.fsencode(mask) and rows[0]["fault"] is None
    assert rows[1]["mask"] is None and "no mask" in rows[1]["fault"]
    noise(mask, (9, 9))
    after = write_listing(path, files, RegionMasks(tmp_path / "masks", files)).ids
    assert after[0] != before[0] and after[1] == before[1]


def test_files_with_one_hash_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(listings.hashlib, "blake2b", lambda *_, **__: type("", (), {"digest": lambda self: b"8" * 8})())
    with pytest.raises(InputError, match="hash"):
        write_listing(tmp_path / "l.parquet", [noise(tmp_path / f"{n}.png", (8, 8)) for n in range(2)], None)


def test_maps_go_to_a_folder_or_an_url(tmp_path):
    for place in (str(tmp_path / "a b"), f"file://{tmp_path}/c/", "memory://maps"):
        store = MapStore(place)
        where = store.put("x.png", b"content")
        assert where == f"{place.rstrip('/')}/x.png" and store.put("x.png", b"again") == where
        with store.system.open_input_stream(f"{store.root}/x.png") as stream:
            assert stream.read() == b"again"
    assert (tmp_path / "a b" / "x.png").read_bytes() == (tmp_path / "c" / "x.png").read_bytes() == b"again"


def test_an_url_of_no_known_kind_is_refused():
    with pytest.raises(InputError, match="--save_maps nowhere://bucket"):
        MapStore("nowhere://bucket")

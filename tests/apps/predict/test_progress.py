"""Runs of predict.py that end early, and those that go on with them."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
from helpers.lab import ROOT, SIZE, Lab, files
from helpers.predicting import Out, noise, predict
from PIL import Image

from apps.predict.outputs import UNREADABLE, Outputs, ScoredPicture
from apps.predict.progress import Progress
from apps.predict.spec import PredictSpec
from engine.picture_scorer import by_prompts
from engine.predictor import Predictor
from runtime.files import lock, unlock
from scoring.raw_scores import MAP_MAXIMUM

KILLED = """
import os, runpy, signal, time
from engine.predictor import Predictor

left, assess = [3], Predictor.assess

def killed(*args):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return assess(*args)

Predictor.assess, time.perf_counter = killed, lambda: 0.0
runpy.run_path("predict.py", run_name="__main__")
"""


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, so that two runs write the same seconds."""
    monkeypatch.setattr("apps.predict.score_files.time.perf_counter", lambda: 0.0)


def scored(lab: Lab, *flags: object, to: str = "out") -> tuple[Out, int]:
    """Score the folder new, and how many pictures the model saw."""
    with patch.object(Predictor, "assess", autospec=True, side_effect=Predictor.assess) as model:
        return predict(lab, "--input", lab.root / "new", *flags, to=to), model.call_count


def table(out: Out) -> bytes:
    return (out.folder / "scores.csv").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_run_goes_on_where_it_stopped(folders, still):
    """In the middle of a volume, which is scored again from its first slice."""
    values = np.random.default_rng(1).integers(0, 99, (12, 10, 3), np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folders.root / "new" / "new1.nii.gz")
    whole, _ = scored(folders, to="whole")
    flags = ["--device", "cpu", "--cache_path", folders.root / "cache", "--output", folders.root / "out"]
    flags += ["--model_name", folders.config, "--clip_path", folders.weights, "--img_size", SIZE]
    flags += ["--prompts", folders.words, "--classname", "thing", "--input", folders.root / "new"]
    command = [sys.executable, "-c", KILLED, *map(str, flags)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    part = Out(1, "", "", folders.root / "out").rows
    assert [Path(row["file"]).name for row in part] == ["new0.png"]
    draft = folders.root / "out" / "maps" / ".new1_1-0123abcd.png"
    draft.write_bytes(b"half")
    out, seen = scored(folders)
    assert out.code == 0 and seen == 7 and "going on: 1 of 6 files" in out.out and not draft.exists()
    assert table(out) == table(whole)
    assert files(out.folder) == files(whole.folder)
    for name in files(out.folder / "maps"):
        assert (out.folder / "maps" / name).read_bytes() == (whole.folder / "maps" / name).read_bytes()
    assert out.settings["counts"] == whole.settings["counts"]
    assert all(f"new{number}" in (out.folder / "report.html").read_text(encoding="utf-8") for number in range(5))


@pytest.mark.parametrize("after", [1, 3, 5])
def test_the_table_of_a_run_in_two_parts_is_that_of_one(folders, still, after):
    whole, _ = scored(folders, to="whole")
    calls, assess = [], Predictor.assess

    def failing(*args: object) -> tuple[np.ndarray, float]:
        calls.append(args)
        if len(calls) == after:
            raise SystemExit("gone")  # nothing is tidied up
        return assess(*args)

    with patch.object(Predictor, "assess", failing):
        assert predict(folders, "--input", folders.root / "new").code == "gone"
    journal = folders.root / "out" / "progress.jsonl"
    with journal.open("a") as file:
        file.write('{"file": "half a li')
    out, seen = scored(folders)
    assert table(out) == table(whole) and seen == 5 - (after - 1)
    assert scored(folders)[1] == 0 and table(out) == table(whole)  # all is done


def test_what_changed_or_is_new_is_scored(folders):
    scored(folders)
    noise(folders.root / "new" / "new2.png", seed=900)
    noise(folders.root / "new" / "new9.png", seed=901)
    out, seen = scored(folders)
    fresh, _ = scored(folders, to="fresh")
    assert seen == 2 and out.scores == fresh.scores and len(out.rows) == 6
    next((out.folder / "maps").glob("*new3*")).unlink()
    assert scored(folders)[1] == 1  # its map was gone


@pytest.mark.parametrize(
    ("flags", "named"),
    [(["--threshold", 0.2], "--threshold"), (["--window", 5, 9], "--window"), (["--prompts", "base"], "--prompts")],
)
def test_other_settings_are_refused(folders, flags, named):
    before = table(scored(folders)[0])
    refused, _ = scored(folders, *flags)
    assert refused.code == 2 and refused.err.count("\n") == 1 and named in refused.err and "--restart" in refused.err
    assert table(refused) == before
    anew, seen = scored(folders, *flags, "--restart")
    assert anew.code == 0 and seen == 5 and "holds the results" in anew.out


def test_changed_files_that_settings_name_are_refused(folders):
    flags = ["--normal", folders.root / "good"]
    scored(folders, *flags)
    noise(folders.root / "good" / "good0.png", seed=900)
    refused, _ = scored(folders, *flags)
    assert refused.code == 2 and "--normal's files" in refused.err
    (folders.root / "old").mkdir()
    (folders.root / "old" / "scores.csv").write_text("of whatever")
    refused, _ = scored(folders, to="old")
    assert refused.code == 2 and "unknown settings" in refused.err


def test_an_unforeseen_fault_is_the_files_row(folders):
    broken = folders.root / "new" / "nan.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)), broken)
    raw = bytearray(broken.read_bytes())
    raw[280:328] = np.full(12, np.nan, np.float32).tobytes()  # the affine
    broken.write_bytes(raw)
    assess = Predictor.assess

    def failing(self: Predictor, picture: Image.Image, *rest: object) -> tuple[np.ndarray, float]:
        if np.asarray(picture).shape[:2] == (7, 9):
            raise RuntimeError("out of\nsomething")
        return assess(self, picture, *rest)

    noise(folders.root / "new" / "odd.png", (9, 7))
    with patch.object(Predictor, "assess", failing):
        out, _ = scored(folders)
    rows = {Path(row["file"]).name: row for row in out.rows}
    assert out.code == 1 and {rows[f"new{number}.png"]["verdict"] for number in range(5)} <= {"normal", "abnormal"}
    assert rows["nan.nii"]["verdict"] == UNREADABLE and "affine that is not finite" in rows["nan.nii"]["note"]
    assert rows["odd.png"]["verdict"] == UNREADABLE and "RuntimeError: out of something" in rows["odd.png"]["note"]
    again, seen = scored(folders)
    assert {Path(row["file"]).name for row in again.rows if row["verdict"] != UNREADABLE} >= {"odd.png", "new0.png"}
    assert seen <= 3  # odd.png, and the slices of a volume that can't be written back


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_full_disk_ends_the_run_and_keeps_what_was_finished(folders, code):
    save, left = Image.Image.save, [8]  # two pictures of three each, and two of the third

    def failing(*args: object, **more: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        save(*args, **more)

    with patch.object(Image.Image, "save", failing):
        out, _ = scored(folders)
    lines = [line for line in out.err.splitlines() if "error:" in line]
    assert out.code == 2 and len(lines) == 1 and str(out.folder) in lines[0] and "Traceback" not in out.err
    assert len(out.rows) == 2
    out, seen = scored(folders)
    assert out.code == 0 and seen == 3 and len(out.rows) == 5


def test_outputs_that_can_not_be_written_are_found_before_scoring(folders):
    (folders.root / "out" / "report.html").mkdir(parents=True)
    out, seen = scored(folders)
    assert out.code == 2 and seen == 0 and "report.html is a folder" in out.err
    (folders.root / "other").mkdir()
    (folders.root / "other" / "maps").write_text("no folder")
    out, seen = scored(folders, to="other")
    assert out.code == 2 and seen == 0 and "maps is a file where a folder is wanted" in out.err


def test_text_is_no_formula(tmp_path):
    outputs = Outputs(tmp_path, Predictor(None, None, {}, MAP_MAXIMUM, by_prompts(4), False))
    names = ("=cmd|' /C calc'!A0.png", "+1.png", "-1.png", "@x.png", "a=b.png")
    rows = [ScoredPicture(name, 0, -0.5, 0.5, "normal", 0.1, name) for name in names]
    outputs.table(rows)
    found = Out(0, "", "", tmp_path).rows
    assert [row["file"] for row in found] == [row["note"] for row in found]
    assert [row["file"] for row in found] == [f"'{name}" for name in names[:4]] + ["a=b.png"]
    assert {row["score"] for row in found} == {"-0.5"}


def test_the_page_has_no_absolute_paths(folders):
    (folders.root / "new" / "deep").mkdir()
    (folders.root / "new" / "deep" / "bad.png").write_text("no image")
    noise(folders.root / "roi" / "new0.png", (4, 4))
    out, _ = scored(folders, "--roi", folders.root / "roi")
    page = (out.folder / "report.html").read_text(encoding="utf-8")
    assert str(folders.root) not in page and "deep/bad.png" in page and "its mask new0.png is" in page
    assert str(folders.root) in table(out).decode() and json.dumps(out.settings)


def test_settings_that_change_no_score_are_passed_over(tmp_path):
    """Where the cache lies, for one; and a file of progress without its first line is of unknown settings."""
    from apps.predict.progress import settings_of

    asked = {"input": ["a"], "output": str(tmp_path), "classname": "thing"}
    one, other = (settings_of(PredictSpec.of(more), more) for more in (asked, asked | {"cache_path": "elsewhere"}))
    assert one == other and json.loads(json.dumps(one)) == one
    assert Progress(tmp_path, one, restart=False).lines == {}


@pytest.mark.parametrize(
    "text", ["[1]", "5", "null", '{"file": 1}', '{"file": "a", "stamp": "b", "rows": 5}', "{", "\udcff"]
)
@pytest.mark.parametrize("number", [0, 1])
def test_notes_that_are_damaged_are_refused(folders, text, number):
    out, _ = scored(folders)
    path = out.folder / "progress.jsonl"
    lines = path.read_text().split("\n")
    lines[number] = text
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    refused, seen = scored(folders)
    assert refused.code == 2 and seen == 0
    assert str(path) in refused.err or "unknown settings" in refused.err or "other settings" in refused.err
    assert scored(folders, "--restart")[0].code == 0


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", None])
def test_a_map_that_is_not_whole_is_made_anew(folders, content):
    out, count = scored(folders)
    path = out.folder / "maps" / "new0.png"
    before = path.read_bytes()
    path.write_bytes(before[:-20] if content is None else content)
    again, seen = scored(folders)
    assert (again.code, seen) == (0, 1) and count > 1 and path.read_bytes() == before


def test_rows_of_another_model_are_not_gone_on_with(folders):
    """Sentences that changed behind the same flags."""
    scored(folders)
    with patch("engine.predictor.code_sha256", lambda: "another"):
        noise(folders.root / "new" / "more.png")
        refused, seen = scored(folders)
    assert refused.code == 2 and seen == 0 and "other sentences, support images, weights or code" in refused.err


def test_two_runs_do_not_share_a_folder(folders):
    (folders.root / "out").mkdir()
    held = lock(folders.root / "out")
    refused, seen = scored(folders)
    assert refused.code == 2 and seen == 0 and "is being written to by another run" in refused.err
    unlock(held)
    out, _ = scored(folders)
    assert out.code == 0 and not list(out.folder.glob(".*"))

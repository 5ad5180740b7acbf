"""Every run has a folder of its own: unfinished ones are found again, others' are left alone."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from helpers.lab import Lab, files

from engine import runs
from engine.run_folder import CHECKPOINT, RESULTS, RUN, UNFINISHED, about, open_folder, running
from runtime.errors import InputError

KEY, OTHER = "1f0c77ab" + 56 * "0", "1f0c77ab" + 56 * "1"  # two keys of the same short form


def test_a_run_that_kept_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path, KEY, {}) as folder:
        assert about(folder.path) == {"key": KEY}
        raise ZeroDivisionError
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", [UNFINISHED, CHECKPOINT])
def test_an_unfinished_run_is_found_again_by_its_whole_key(tmp_path, name):
    with open_folder(tmp_path, KEY, {"obj": "Brain"}) as folder:
        (folder.path / name).write_text("")
    with open_folder(tmp_path, OTHER, {}) as other, open_folder(tmp_path, KEY, {}, resume=True) as again:
        assert other.path != folder.path == again.path
    with open_folder(tmp_path, KEY, {}, anew=True) as third:
        assert third.path != folder.path


def test_a_finished_run_is_never_written_to_again(tmp_path):
    with open_folder(tmp_path, KEY, {}) as folder:
        for name in (UNFINISHED, RESULTS):
            (folder.path / name).write_text("{}")
    assert files(folder.path) == {RUN, RESULTS}  # what it would have gone on from is gone
    with open_folder(tmp_path, KEY, {}) as again:
        assert again.path != folder.path
    with pytest.raises(InputError, match="--resume: no unfinished run of these settings"):
        open_folder(tmp_path, KEY, {}, resume=True)


def hold(parent: Path, held: object, over: object) -> None:
    with open_folder(parent, KEY, {}) as folder:
        (folder.path / UNFINISHED).write_text("")
        held.put(folder.path)
        over.wait(60)


def test_two_processes_never_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, over = context.Queue(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, held, over))
    process.start()
    theirs = held.get(timeout=60)
    try:
        assert running(theirs)
        with open_folder(tmp_path, KEY, {}) as folder:
            assert folder.path != theirs
    finally:
        process.kill()  # and with it its hold on the folder
        process.join()
    assert not running(theirs)
    with open_folder(tmp_path, KEY, {}, resume=True) as folder:
        assert folder.path == theirs


def test_drafts_of_a_killed_run_are_swept(tmp_path):
    with open_folder(tmp_path, KEY, {}) as folder:
        (folder.path / UNFINISHED).write_text("")
        (folder.path / ".unfinished-0123abcd.pth").write_text("half")
    with open_folder(tmp_path, KEY, {}):
        assert not list(folder.path.glob(".unfinished*"))


# The command


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory) -> Lab:
    """Two runs of one object, with other seeds."""
    lab = Lab(tmp_path_factory.mktemp("made"), *tiny)
    lab.medical(test=(3, 3))
    for seed in (1, 2):
        lab.done("train_few", "--seed", seed, "--eval_every", 0)
    return lab


def says(capsys: pytest.CaptureFixture, lab: Lab, place: str, *words: str) -> list[str]:
    runs.main([*words, "--results_path", str(lab.root / place)])
    return capsys.readouterr().out.splitlines()


def test_a_second_run_destroys_nothing_of_the_first(made):
    first, second = runs.known_runs(made.root / "results")
    assert [run.settings["seed"] for run in (first, second)] == ["1", "2"]
    for run in (first, second):
        names = {"checkpoint.pth", "results.json", "results.csv", "scores.csv", "report.html", "run.json"}
        assert names == files(run.path)
        curves = made.root / "runs" / "Brain_1-shot" / run.path.name  # by --log_dir
        assert all("tfevents" in name for name in files(curves)) and files(curves)
    newest = (made.root / "ckpt" / "Brain_1-shot.pth").read_bytes()
    assert newest == (second.path / CHECKPOINT).read_bytes() != (first.path / CHECKPOINT).read_bytes()
    assert made.results("train_few/Brain_1-shot") == json.loads((second.path / RESULTS).read_text())


def test_the_record_holds_the_sentences(made):
    record = torch.load(made.root / "ckpt" / "Brain_1-shot.pth", weights_only=True)["record"]
    assert record["sentences"]["normal"] == ["a flawless Brain", "a healthy Brain"]
    assert made.results("train_few/Brain_1-shot")["sentences"] == record["sentences"]


def test_runs_are_listed_and_compared(made, capsys):
    first, second = runs.known_runs(made.root / "results")
    heading, *lines = says(capsys, made, "results")
    assert heading.split()[:3] == ["run", "state", "seed"] and len(lines) == 2
    assert [line.split()[:3] for line in lines] == [
        [run.name, "finished", run.settings["seed"]] for run in (first, second)
    ]
    table = {
        line.split()[0]: line.split()[1:]
        for line in says(capsys, made, "results", "compare", first.path.name, second.path.name)[1:]
    }
    assert table["--seed"] == ["1", "2"] and "--shot" not in table
    auroc = 100 * json.loads((first.path / RESULTS).read_text())["results"][0]["branches"]["fused"]["image_auroc"]
    (line,) = [
        line
        for line in says(capsys, made, "results", "compare", first.path.name, second.path.name)
        if "last image_auroc" in line
    ]
    assert line.split()[2] == f"{auroc:.2f}"


def test_a_tagged_run_is_not_deleted(made, capsys):
    for seed in (3, 4):
        made.done("train_few", "--seed", seed, "--epoch", 0, "--eval_every", 0, "--results_path", made.root / "more")
    first, second = runs.known_runs(made.root / "more")
    says(capsys, made, "more", "tag", first.path.name, "keep me")
    assert any(line.endswith("keep me") for line in says(capsys, made, "more"))
    with pytest.raises(InputError, match="is tagged keep me"):
        runs.main(["delete", second.path.name, first.path.name, "--results_path", str(made.root / "more")])
    assert second.path.exists() and first.path.exists()
    says(capsys, made, "more", "tag", first.path.name, "")
    says(capsys, made, "more", "delete", first.path.name)
    assert not first.path.exists() and second.path.exists()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["compare"], "runs"),
        (["compare", "x"], "compare takes two runs or more"),
        (["delete", "nowhere"], "no run is called nowhere"),
        (["delete", "Brain"], "runs are called Brain|no run is called"),
        (["list", "x"], "unrecognized arguments: x"),
        (["tag", "x"], "words"),
        (["remove"], "invalid choice"),
    ],
)
def test_the_command_refuses(lab, words, fault):
    with pytest.raises(InputError, match=fault):
        runs.main([*words, "--results_path", str(lab.root / "results")])

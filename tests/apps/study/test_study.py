"""A study from its plan to its rows, done in this process: what is shared, what is found again, what fails."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from helpers.lab import SIZE, Lab, files, write_clip

import CLIP
from apps.study import command
from apps.study import study as under_way
from apps.study.journal import claim
from apps.study.outputs.files import CSV, PAGE
from apps.study.plan import FEW, Column, Plan, Run, cells_of, runs_of
from apps.study.stored import STUDIES, list_studies, publish, read_rows
from apps.study.study import Study
from apps.study.work import Worker
from dataset import images
from dataset.registry import FAMILIES
from engine import support
from runtime.errors import InputError


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    root = tmp_path_factory.mktemp("study")
    made = Lab(root, *write_clip(root))
    made.medical("Brain", test=(3, 3))
    made.medical("Chest", masks=None, test=(3, 3))
    return made


def plan(lab: Lab, results: Path, columns: Sequence[Column], **changes: Any) -> Plan:
    settings = {
        **{"model_name": lab.config, "clip_path": lab.weights, "img_size": SIZE, "data_path": lab.data},
        **{"prompts": lab.words, "device": "cpu", "iterate": -1, "epoch": 1, "batch_size": 11, "eval_every": 0},
        **{"folds": 0, "threshold_rule": "f1"},
        **{"results_path": results, "cache_path": results / "cache"},
    }
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    known = {"name": "made", "title": "Made", "objects": ("Brain",), "shots": (1,), "seeds": (1, 2)}
    return Plan(**{**known, "columns": tuple(columns), "settings": settings, **changes})


def study(lab: Lab, results: Path, columns: Sequence[Column], **changes: Any) -> Study:
    made = plan(lab, results, columns, **changes)
    return Study(made, results / STUDIES / made.name, "python study.py made", demo=False)


def here(folder: Path, units: Sequence[Sequence[Run]], request: object, tick: Callable[[], None]) -> list:
    """The backend of these tests: this process."""
    worker = Worker(folder)
    for unit in units:
        worker.do(unit)
        tick()
    return []


def done(made: Study, **how: Any) -> list[dict[str, Any]]:
    """Run a study and give its rows of the last epoch."""
    made.check(strict=False)
    made.run(here, **{"retry": False, **how})
    made.finish()
    return read_rows(made.folder.parent.parent, made.plan.name)


MADFF, MVFA = Column("MADFF"), Column("MVFA", {"adapter": "mvfa"})
BANK = Column("bank", {"adapter": "none"}, branch="few")


@pytest.fixture(scope="module")
def made(lab, tmp_path_factory) -> tuple[Study, list[dict[str, Any]]]:
    """A small study of two objects, and its rows."""
    one = study(lab, tmp_path_factory.mktemp("results"), [MADFF, MVFA, BANK], objects=("Brain", "Chest"))
    return one, done(one)


def test_every_cell_has_rows_with_what_made_them(made):
    one, rows = made
    assert {row["state"] for row in rows} == {"finished"} and len(one.runs) == 12
    main = [row for row in rows if row["main"]]
    assert len(main) == 12 and {row["branch"] for row in main if row["method"] == "bank"} == {"few"}
    for row in rows:
        assert (one.folder / row["folder"] / "report.html").is_file() and (one.folder / row["maps"]).is_file()
        assert row["seconds"] > 0 and row["peak_memory_mb"] > 50 and row["threads"] and row["torch"]
        assert 0 <= row["image_auroc"] <= 1 and row["selected"] == "last" and len(row["job"]) == 8
    assert {row["pixel_auroc"] is None for row in rows if row["obj"] == "Chest"} == {True}
    assert "MVFA" in (one.folder / PAGE).read_text() and (one.folder / CSV).is_file()
    assert list_studies(one.folder.parent.parent)[0].startswith("made: Made; python study.py made")


def test_a_page_to_hand_on_has_the_tables_and_no_links(made, tmp_path):
    one, _ = made
    page, table = publish(one.folder.parent.parent, ["made", str(tmp_path)])
    assert page.name == "made.html" and "MVFA" in page.read_text() and "report.html" not in page.read_text()
    assert "report.html" in (one.folder / PAGE).read_text() and "data:image/" in page.read_text()
    assert table.read_text() == (one.folder / "table.md").read_text()


def test_a_study_gives_what_the_script_gives(lab, made, tmp_path):
    _, rows = made
    flags = {"results_path": tmp_path, "adapter": "mvfa", "seed": 2, "eval_every": 0, "save_path": tmp_path / "ckpt"}
    lab.done("train_few", *(part for name, value in flags.items() for part in (f"--{name}", value)))
    alone = json.loads((tmp_path / "train_few/Brain_1-shot/results.json").read_text())["results"][0]["branches"]
    for row in rows:
        if (row["method"], row["obj"], row["seed"]) == ("MVFA", "Brain", 2):
            known = {name: row[name] for name, value in alone[row["branch"]].items() if name in row}
            assert known == {name: alone[row["branch"]][name] for name in known} and len(known) > 8


def test_runs_leave_nothing_outside_their_own_folders(made):
    one, _ = made
    results = one.folder.parent.parent
    assert not any((results / "train_few").glob("*/*.*")) and not Path("ckpt/few-shot").exists()


def test_a_run_that_a_script_made_is_found_and_not_made_again(lab, tmp_path):
    flags = ["--results_path", tmp_path, "--seed", 1, "--eval_every", 0, "--save_path", tmp_path / "ckpt"]
    lab.done("train_few", *flags)
    one = study(lab, tmp_path, [MADFF], seeds=(1,))
    one.check(strict=False)
    assert one.left == [] and done(one)[0]["state"] == "finished"


def test_a_changed_grid_reuses_what_it_shares(lab, made, tmp_path):
    one, _ = made
    results = tmp_path / "results"
    shutil.copytree(one.folder.parent.parent, results)
    larger = study(lab, results, [MVFA, BANK, Column("token", {"madff_axis": "token"})], name="larger")
    larger.check(strict=False)
    assert {run.spec.madff_axis for run in larger.left} == {"token"} and len(larger.left) == 2


def test_what_runs_share_is_made_once(lab, tmp_path):
    one = study(lab, tmp_path, [MADFF, MVFA, BANK, Column("linear", {"method": "linear"})], seeds=(1,))
    with (
        patch.object(support, "load_image", side_effect=support.load_image) as support_images,
        patch.object(images, "load_pixels", side_effect=images.load_pixels) as test_images,
        patch.object(CLIP, "load_clip", side_effect=CLIP.load_clip) as towers,
    ):
        done(one)
    assert support_images.call_count == 2 and test_images.call_count == 6
    assert [call.kwargs["towers"] for call in towers.call_args_list].count(("image",)) == 1


def test_other_prompts_are_put_into_what_was_trained(lab, tmp_path):
    others = tmp_path / "others.json"
    others.write_text(lab.words.read_text().replace("flawless", "clean").replace("lesion", "spot"))
    columns = [Column("own"), Column("own, scored with others", scored_with=str(others))]
    rows = done(study(lab, tmp_path, columns, seeds=(1,)))
    own, again = ([row for row in rows if row["method"] == label] for label in ("own", "own, scored with others"))
    checkpoint = tmp_path / STUDIES / "made" / own[0]["folder"] / "checkpoint.pth"
    lab.done("test_few", "--ckpt", checkpoint, "--prompts", others, "--results_path", tmp_path / "alone")
    alone = json.loads((tmp_path / "alone/test_few/Brain_1-shot/results.json").read_text())["results"][0]["branches"]
    by_branch = {row["branch"]: row for row in again}
    assert by_branch["zero"]["image_auroc"] == alone["zero"]["image_auroc"]
    assert by_branch["fused"]["pixel_ap"] == alone["fused"]["pixel_ap"]
    assert {row["script"] for row in again} == {"test_few"} and {row["prompts"] for row in again} == {str(others)}


def test_a_run_that_fails_is_a_row_and_the_others_go_on(lab, tmp_path):
    columns = [Column("taps beyond", {"features_list": (2, 9)}), MADFF]
    one = study(lab, tmp_path, columns, seeds=(1,))
    rows = done(one)
    (failed,) = [row for row in rows if row["method"] == "taps beyond"]
    assert failed["state"] == "failed" and "--features_list 2 9" in failed["reason"]
    assert {row["state"] for row in rows if row["method"] == "MADFF"} == {"finished"}
    again = study(lab, tmp_path, columns, seeds=(1,))
    again.check(strict=False)
    assert again.left == []
    with patch.object(Worker, "_start") as started:
        done(study(lab, tmp_path, columns, seeds=(1,)), retry=True)
    assert started.call_count == 1


DAMAGES = (
    "{",
    "[]",
    {"results": []},
    {"seconds": "long"},
    {"peak_memory_mb": {}},
    {"environment": {"threads": [1]}},
    {"results": [{"selected": "last", "epoch": "one", "branches": {"few": {}}}]},
    {"results": [{"selected": "last", "epoch": 1, "branches": {"few": {"image_auroc": 2}}}]},
    {"results": [{"selected": ["last"], "epoch": 1, "branches": {"few": {}}}]},
)


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_result_is_a_row_that_names_it(lab, made, tmp_path, damage):
    results = tmp_path / "results"
    shutil.copytree(made[0].folder.parent.parent, results)
    one = study(lab, results, [MVFA, BANK], seeds=(1,))
    one.look()
    path = one.states[one.runs[0]].folder / "results.json"
    path.write_text(damage if isinstance(damage, str) else json.dumps(json.loads(path.read_text()) | damage))
    rows = done(study(lab, results, [MVFA, BANK], seeds=(1,)))
    (failed,) = [row for row in rows if row["state"] == "failed"]
    assert failed["method"] == "MVFA" and "results.json is damaged; remove" in failed["reason"]
    assert {row["state"] for row in rows if row["method"] == "bank"} == {"finished"}


def test_a_programming_error_is_a_row_too(lab, tmp_path):
    with patch("apps.study.work.train_few_shot", side_effect=ZeroDivisionError("by nought")):
        (row,) = done(study(lab, tmp_path, [MADFF], seeds=(1,)))
    assert row["state"] == "failed" and "ZeroDivisionError: by nought" in row["reason"]
    (output,) = (tmp_path / STUDIES / "made" / "output").iterdir()
    assert "Traceback" in output.read_text()


def test_missing_images_are_a_row_or_with_strict_the_end(lab, tmp_path, capsys):
    one = study(lab, tmp_path, [MADFF], objects=("Liver", "Chest"), seeds=(1,))
    with pytest.raises(InputError, match="Liver is left out"):
        one.check(strict=True)
    rows = done(one)
    assert {row["obj"]: row["state"] for row in rows} == {"Liver": "missing data", "Chest": "finished"}
    assert capsys.readouterr().out.count("Liver is left out") == 1


def test_a_run_that_another_process_does_is_left_to_it(lab, tmp_path):
    one = study(lab, tmp_path, [MADFF], seeds=(1,))
    one.check(strict=False)
    (run,) = one.left
    with claim(one.journal.known(run)) as mine, patch.object(Worker, "_do") as started:
        here(one.folder, [[run]], None, lambda: None)
        assert mine and not started.called
    here(one.folder, [[run]], None, lambda: None)
    one.look()
    assert one.left == []


def test_a_run_whose_sentences_change_before_it_starts_is_not_waited_for_forever(lab, tmp_path):
    words = tmp_path / "words.json"
    words.write_text(lab.words.read_text())
    one = study(lab, tmp_path / "results", [Column("MADFF", {"prompts": str(words)})], seeds=(1,))
    one.check(strict=False)
    passes = []

    def backend(folder: Path, units: Sequence[Sequence[Run]], *rest: Any) -> list:
        passes.append(units)
        assert len(passes) < 3
        words.write_text(lab.words.read_text().replace("flawless", "clean"))
        return here(folder, units, *rest)

    with patch.object(under_way, "WAIT", 0):
        one.run(backend, retry=False)
    (failed,) = one.those("failed")
    assert "no longer those" in one.states[failed].reason
    again = study(lab, tmp_path / "results", [Column("MADFF", {"prompts": str(words)})], seeds=(1,))
    again.check(strict=False)
    assert again.left == [] and len(again.those("finished")) == 1


def test_a_run_whose_code_changed_is_not_waited_for_forever(lab, tmp_path):
    one = study(lab, tmp_path, [MADFF], seeds=(1,))
    one.check(strict=False)
    with patch.object(under_way, "WAIT", 0), patch.object(under_way, "code_sha256", return_value="another"):
        one.run(lambda *told: [], retry=False)
    assert len(one.those("failed")) == 1


def test_a_run_that_waits_for_others_does_not_fail(lab, tmp_path):
    one = study(lab, tmp_path, [MADFF], seeds=(1,))
    one.check(strict=False)
    one.folder.mkdir(parents=True)
    one._note_changes()
    with claim(one.journal.known(one.left[0])), patch.object(under_way, "code_sha256", return_value="another"):
        one._note_changes()
    one.look()
    assert len(one.left) == 1


def test_a_failure_is_known_again_wherever_things_lie(lab, tmp_path):
    moved = plan(lab, tmp_path, [MADFF], seeds=(1,)).settings
    one, other = (
        study(lab, tmp_path, [MADFF], seeds=(1,), settings=moved | {"cache_path": place}) for place in ("a", "b")
    )
    (run,) = one.runs
    one.journal.note_failure(run, "why")
    assert other.journal.failure(other.runs[0]) == "why"


def test_names_of_any_script_make_file_names(lab, tmp_path):
    one = study(lab, tmp_path, [Column("long", {"prompts": "ü" * 200})], objects=("脑" * 60,), seeds=(1,))
    one.journal.note_failure(one.runs[0], "why")
    assert one.journal.failure(one.runs[0]) == "why"


def test_a_dry_look_at_the_demo_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with patch("dataset.demo.generate") as drawn, patch("CLIP.weights.fetch") as fetched:
        command.main(["paper", "--demo", "--obj", "Brain", "--dry", "--data_path", "images"])
        command.main(["paper", "--obj", "Brain", "--dry", "--data_path", "images"])
    assert not files(tmp_path) and not fetched.called and drawn.call_args.args[0] != Path("images")
    assert "30 runs" in capsys.readouterr().out


def test_a_run_that_somebody_deletes_meanwhile_is_made_again(lab, tmp_path):
    one = study(lab, tmp_path, [BANK], seeds=(1, 2))
    one.check(strict=False)
    deleted = []

    def backend(folder: Path, units: Sequence[Sequence[Run]], request: object, tick: Callable[[], None]) -> list:
        here(folder, units, request, tick)
        one.look()
        deleted.append(one.states[one.runs[0]].folder)
        if len(deleted) == 1:
            shutil.rmtree(deleted[0])
        return []

    one.run(backend, retry=False)
    one.finish()
    assert len(deleted) == 2 and {row["state"] for row in read_rows(tmp_path, "made")} == {"finished"}


def test_a_dry_look_says_why_runs_failed(lab, tmp_path):
    one = study(lab, tmp_path, [MADFF], seeds=(1,))
    one.journal.note_failure(one.runs[0], "no memory")
    assert any(line.startswith("failed: ") and "no memory" in line for line in one.described())


def test_a_dry_look_writes_nothing(lab, tmp_path, capsys):
    one = study(lab, tmp_path, [MADFF, BANK], objects=("Brain", "Liver"), seeds=(1,))
    lines = one.described()
    assert not files(tmp_path) and sum(line.startswith("waiting") for line in lines) == 2
    assert sum(line.startswith("missing data") for line in lines) == 2 and "no run like them" in lines[-1]


def test_what_is_left_is_reckoned_from_what_was_made(lab, made):
    one, _ = made
    results = one.folder.parent.parent
    larger = study(lab, results, [MADFF], seeds=(1, 3, 4), name="larger")
    assert "the 2 runs that are like others made here may take" in "\n".join(larger.described())


def test_without_weights_nothing_begins(lab, tmp_path):
    gone = plan(lab, tmp_path, [MADFF]).settings | {"clip_path": str(tmp_path / "none.safetensors")}
    one = study(lab, tmp_path, [MADFF], settings=gone)
    with pytest.raises(InputError, match="no weights file"):
        one.check(strict=False)
    assert not files(tmp_path)


COMMANDS = {
    ("papper",): "no study papper",
    ("paper", "more"): "paper takes no more",
    ("paper", "--set", "epohc=1"): "--set epohc=1 is not NAME=VALUE",
    ("paper", "--set", "epoch=-1", "--demo"): "--epoch -1",
    ("paper", "--name", "../x"): "is no name of a folder",
    ("paper", "--name", ".."): "is no name of a folder",
    ("paper", "--set", "seed=3"): "--set seed=3: say it by --seeds",
    ("paper", "--set", "demo=true"): "say it by --demo",
    ("paper", "--set", "results_path=x"): "say it by --results_path",
    ("compare", "a.json"): "compare takes two studies",
    ("list", "more"): "list takes no more",
    ("paper", "--demo", "--obj", "Brain", "Nope"): "Nope: none of its objects is in the demo",
    ("paper", "--prompts", "a.json"): "--prompts adds sets to the ablation",
    ("paper", "--on", "moon", "--demo"): "--on moon is none of local",
    ("compare", "one"): "compare takes two studies",
    ("compare", "one", "two"): "no study one",
    ("list", "--dry"): "list runs nothing, so --dry means nothing to it",
    ("leaderboard", "x", "--jobs", "2"): "leaderboard runs nothing, so --jobs means nothing",
    ("publish", "one"): "publish takes a study and a folder",
    ("leaderboard",): "leaderboard takes the name of one study",
    ("ablation", "--obj", "btad", "--demo"): "none of its objects is in the demo",
}


@pytest.mark.parametrize("flags", COMMANDS, ids=" ".join)
def test_commands_that_make_no_sense_are_one_line(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=COMMANDS[flags]), patch("dataset.demo.ensure"):
        command.main(list(flags))


def planned(*flags: str) -> Plan:
    return command.planned(command.Asked(**vars(command.parser().parse_args(list(flags)))))


def test_shots_that_are_asked_for_are_those_of_every_column():
    assert {
        run.spec.shot for run in runs_of(cells_of(planned("reproduction", "--shots", "2"))) if run.script == FEW
    } == {2}


def test_flags_may_be_given_twice():
    made = planned("paper", "--obj", "Brain", "--obj", "Liver", "--set", "epoch=3", "--set", "eval_every=1")
    assert made.objects == ("Brain", "Liver") and (made.settings["epoch"], made.settings["eval_every"]) == ("3", "1")
    assert "epoch" not in planned("paper").settings


def test_a_study_of_many_objects_has_a_name_that_a_folder_may_have():
    one, other = (planned("paper", "--obj", "mpdd", "btad", *FAMILIES["mvtec"][:last]).name for last in (14, 15))
    assert one.startswith("paper-16_objects_") and len(one) < 80 and one != other


def test_the_command_is_told_without_places(tmp_path):
    asked = command.parser().parse_args([str(tmp_path / "mine.yaml"), "--prompts", str(tmp_path / "a.json"), "b.json"])
    assert command._command(command.Asked(**vars(asked))) == "python study.py mine.yaml --prompts a.json b.json"
    asked = command.parser().parse_args(["paper", "--demo", "--seeds", "1", "2", "--jobs", "2", "--data_path", "/x"])
    assert command._command(command.Asked(**vars(asked))) == "python study.py paper --demo --seeds 1 2"

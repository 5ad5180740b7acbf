"""predict.py from end to end on the tiny model: scores, thresholds, and what goes wrong."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
from helpers import trees
from helpers.dicom_files import dicom_file
from helpers.lab import SIZE, files, run
from helpers.predicting import KINDS, ckpt, noise, predict
from safetensors.torch import save_file

import dataset
from apps.predict import inputs
from apps.predict.inputs import find
from engine import checkpoint
from engine.predictor import Predictor
from runtime.errors import InputError


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_scores_are_those_that_test_few_judges_by(trained, obj):
    tested = trained.done("test_few", "--obj", obj).seen[0]
    calibration = trained.checkpoint(f"{obj}_1-shot").last.calibration
    out = predict(trained, *ckpt(trained, obj), "--input", trained.data / f"{obj}_AD" / "test", to=f"few {obj}")
    assert out.code == 0
    _, samples = dataset.open_test(obj, trained.data)
    expected = tested.image_scores(SIZE, calibration)["fused"]
    found = out.scores
    assert len(found) == len(samples)
    assert {sample.image.name: float(found[sample.image.name]) for sample in samples} == {
        sample.image.name: float(score) for sample, score in zip(samples, expected, strict=True)
    }
    assert {float(row["threshold"]) for row in out.rows} == {calibration.image["fused"]}
    assert all((row["verdict"] == "abnormal") == (float(row["score"]) >= float(row["threshold"])) for row in out.rows)
    assert all(float(row["seconds"]) >= 0 and row["note"] == "" and row["slice"] == "" for row in out.rows)
    assert out.settings["calibrated"] and out.settings["pixel_threshold"] == calibration.pixel["fused"]


def test_a_checkpoint_without_abnormal_support_scores_by_its_bank_alone(trained):
    """Its colours go beyond what normal images reach."""
    trained.done("train_few", "--abnormal_shot", 0, "--save_path", trained.root / "bare")
    path = trained.root / "bare" / "Brain_1-shot.pth"
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    out = predict(trained, "--ckpt", path, "--input", image, to="bare out")
    calibration = checkpoint.read(path).last.calibration
    assert out.code == 0 and out.settings["branch"] == "few" and out.settings["colours"]["to"] == 2
    assert out.settings["threshold"] == calibration.image["few"]
    assert out.settings["options"]["abnormal_shot"] == 0  # what the checkpoint says counts, not the defaults


def test_a_transferred_checkpoint_scores_by_its_prompts_alone(trained):
    tested = trained.done("test_zero", "--save_path", trained.root / "zero").seen[0]
    path = trained.root / "zero" / "Brain.pth"
    calibration = checkpoint.read(path).last.calibration
    out = predict(trained, "--ckpt", path, "--input", trained.data / "Brain_AD" / "test", to="zero out")
    assert out.code == 0 and out.settings["branch"] == "zero" and out.settings["calibrated"]
    expected = [float(score) for score in tested.image_scores(SIZE, calibration)["zero"]]
    assert sorted(map(float, out.scores.values())) == sorted(expected)
    assert out.settings["threshold"] == calibration.image["zero"]
    other = predict(
        trained, "--ckpt", path, "--obj", "Retina_RESC", "--prompts", "base", "--input", trained.data, to="z"
    )
    assert other.code == 0 and not other.settings["calibrated"] and "uncalibrated" in other.out
    seen = predict(trained, "--ckpt", path, "--obj", "Liver", "--input", trained.data, to="liver")
    assert seen.code == 2 and "trained on Liver" in seen.err


@pytest.mark.parametrize("branches", ["few", "both"])
def test_transferred_adapters_have_no_bank_to_score_by(trained, branches):
    path = trained.root / "zero" / "Brain.pth"
    out = predict(trained, "--ckpt", path, "--input", trained.data, "--branches", branches, to="no bank")
    assert out.code == 2 and out.err.count("\n") == 1 and not out.folder.exists()
    assert f"{path} holds adapters of transfer, which have no memory bank: leave --branches out" in out.err
    for flags in (["--shot", 8], ["--abnormal_shot", 1], ["--iterate", 0], ["--bank_cap", 10]):
        refused = predict(trained, "--ckpt", path, "--input", trained.data, *flags, to="none")
        assert refused.code == 2 and f"no memory bank: leave {flags[0]} out" in refused.err
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    assert predict(trained, "--ckpt", path, "--input", image, "--branches", "zero", to="zero alone").code == 0


def test_transferred_adapters_need_no_image_of_any_object(trained, tmp_path):
    """Nor the demo's, where they were trained in it."""
    content = checkpoint.read(trained.root / "zero" / "Brain.pth")
    options = content.record["options"] | {"demo": True, "data_path": str(tmp_path / "demo")}
    path = tmp_path / "demo.pth"
    checkpoint.write(path, replace(content, record=content.record | {"options": options}))
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    out = predict(trained, "--ckpt", path, "--obj", "thing", "--input", image, to="no image")
    assert out.code == 0 and not (tmp_path / "demo").exists()


def test_adapters_that_others_published_need_to_be_told_their_object(trained):
    adapters = trained.checkpoint().last.adapters
    path = trained.root / "published.safetensors"
    save_file({f"{head}.{name}": weight for head, part in adapters.items() for name, weight in part.items()}, path)
    model = ["--model_name", trained.config, "--clip_path", trained.weights, "--img_size", SIZE, "--shot", 1]
    model += [
        "--iterate",
        -1,
        "--prompts",
        trained.words,
        "--ckpt",
        path,
        "--input",
        trained.data / "Brain_AD" / "test",
    ]
    untold = predict(trained, *model, to="untold")
    assert untold.code == 2 and "--obj" in untold.err
    told = predict(trained, *model, "--obj", "Brain", "--data_path", trained.data, to="told")
    own = predict(trained, *ckpt(trained), "--input", trained.data / "Brain_AD" / "test", to="own")
    assert told.code == 0 and told.scores == own.scores


def test_the_support_may_have_moved(trained, tmp_path):
    (tmp_path / "Brain_AD").symlink_to(trained.data / "Brain_AD")
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    one = predict(trained, *ckpt(trained), "--input", image, to="one")
    other = predict(trained, *ckpt(trained), "--data_path", tmp_path, "--input", image, to="other")
    assert one.code == other.code == 0 and one.scores == other.scores
    wrong = predict(trained, *ckpt(trained), "--obj", "Liver", "--input", image, to="wrong")
    assert wrong.code == 2 and "was trained on Brain, not on Liver; leave --obj out" in wrong.err
    gone = predict(trained, *ckpt(trained), "--data_path", tmp_path / "none", "--input", image, to="gone")
    assert gone.code == 2 and "--data_path" in gone.err


@pytest.mark.parametrize("mode", ["checkpoint", "folders", "prompts"])
def test_an_image_alone_is_judged_as_among_others(trained, mode):
    test = trained.data / "Brain_AD" / "test"
    valid = trained.data / "Brain_AD" / "valid"
    flags = {"checkpoint": ckpt(trained), "folders": ["--normal", valid / "good"], "prompts": []}[mode]
    among = predict(trained, *flags, "--input", test, to=f"{mode} all")
    for row in among.rows[:3]:
        alone = predict(trained, *flags, "--input", row["file"], to=f"{mode} alone")
        (own,) = alone.rows
        assert {key: own[key] for key in own if key != "seconds"} == {key: row[key] for key in row if key != "seconds"}
        name = Path(row["file"]).name
        for kind in KINDS:
            np.testing.assert_array_equal(alone.picture(kind, name), among.picture(kind, name))
        for path in files(alone.folder):
            (alone.folder / path).unlink()


def test_given_thresholds_override(trained):
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    low = predict(trained, *ckpt(trained), "--input", image, "--threshold", -9, "--pixel_threshold", -9, to="low")
    high = predict(trained, *ckpt(trained), "--input", image, "--threshold", 9, "--pixel_threshold", 9, to="high")
    assert [out.rows[0]["verdict"] for out in (low, high)] == ["abnormal", "normal"]
    assert [set(np.unique(out.picture("masks", "test_n0.png"))) for out in (low, high)] == [{255}, {0}]
    assert low.scores == high.scores and high.settings["threshold"] == 9


def test_the_page_says_where_scores_and_threshold_come_from(trained):
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    path = trained.root / "zero" / "Brain.pth"
    ways = {
        "Scores and threshold come from the checkpoint&#39;s support": ckpt(trained),
        "Scores and threshold come from images of the objects trained on": ("--ckpt", path),
        "Scores and threshold come from the folders of known images": ("--normal", image.parent),
        "Scores and threshold come from the prompts alone": (),
        "threshold is that of --threshold; scores come from the prompts alone": ("--threshold", 0.3),
    }
    for words, flags in ways.items():
        out = predict(trained, *flags, "--input", image, "--restart", to="said")
        assert out.code == 0 and words in (out.folder / "report.html").read_text(encoding="utf-8"), words
    assert "the threshold that of --threshold" in out.out and "a half" not in out.out


def test_unreadable_files_are_named_and_the_others_scored(folders):
    many = folders.root / "many"
    for number in range(30):
        noise(many / f"{number:02d}.png", seed=number)
    (many / "07.png").write_text("no image")
    (many / "11.png").write_bytes((many / "12.png").read_bytes()[:200])
    (many / "x.dcm").write_text("no image either")
    out = predict(folders, "--normal", folders.root / "good", "--input", many)
    bad = {Path(row["file"]).name: row for row in out.rows if row["verdict"] == "unreadable"}
    assert out.code == 1 and len(out.rows) == 31 and set(bad) == {"07.png", "11.png", "x.dcm"}
    assert all(row["score"] == row["threshold"] == row["seconds"] == "" and row["note"] for row in bad.values())
    assert "scored 28" in out.out and all(name in out.err for name in bad)
    page = (out.folder / "report.html").read_text(encoding="utf-8")
    assert all(Path(row["file"]).name in page for row in out.rows)
    assert len(files(out.folder / "maps")) == 28 and out.settings["counts"]["unreadable"] == 3


BAD = {
    "--input nowhere.png": "not there",
    "--input {root}/words.json": "no kind",
    "--input {root}/empty": "no images",
    "--input {good} --ckpt {root}/none.pth": "no checkpoint",
    "--input {good} --ckpt {root}/none.pth --normal {good}": "without --ckpt",
    "--input {good} --abnormal {good}": "--normal",
    "--input {good} --normal {root}/nowhere": "--normal",
    "--input {good} --branches few": "--normal",
    "--input {good} --tile 20 --overlap 20": "less than",
    "--input {good} --overlap 5": "--tile",
    "--input {good} --window 5 0": "width",
    "--input {good} --window nan 5": "--window: nan is not a finite number",
    "--input {good} --window 5 inf": "--window: inf is not a finite number",
    "--input {good} --threshold nan": "--threshold: nan is not a finite number",
    "--input {good} --roi {root}/nowhere": "no folder",
    "--input {good} --axis 3": "invalid choice",
    "--input {good} --adapter mvfa": "needs --ckpt",
    "--input {good} --output {root}/words.json": "where a folder is wanted",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_options_end_with_one_line(folders, flags):
    (folders.root / "empty").mkdir()
    out = predict(folders, *flags.format(root=folders.root, good=folders.root / "good").split())
    lines = [line for line in out.err.splitlines() if line.strip()]
    assert out.code == 2 and len(lines) == 1 and BAD[flags] in lines[0]
    assert not out.folder.exists()


def test_without_words_those_of_the_folder_are_taken_and_said(folders):
    usual = ["--output", folders.root / "out", "--model_name", folders.config, "--clip_path", folders.weights]
    usual += ["--img_size", SIZE, "--cache_path", folders.root / "cache", "--device", "cpu"]
    (folders.root / "steel_bolt").mkdir()
    for name in ("good", "new"):
        (folders.root / name).rename(folders.root / "steel_bolt" / name)
    bolts = folders.root / "steel_bolt"
    note = 'prompts say "steel bolt" (the folder steel_bolt); other words: --classname'
    for more in (["--input", bolts / "new"], ["--normal", bolts / "good", "--input", folders.root / "bad"]):
        done = run("predict", *usual, *more, "--restart")
        assert done.code == 0 and note in done.out
        options = json.loads((folders.root / "out" / "settings.json").read_text())["options"]
        assert options["classname"] == "steel bolt"
    assert "<h1><bdi>Steel bolt: images in bad</bdi></h1>" in (folders.root / "out" / "report.html").read_text()
    told = run("predict", *usual, "--input", bolts / "new", "--classname", "nut", "--restart")
    assert told.code == 0 and "prompts say" not in told.out
    more = ["--input", bolts / "new", "--normal", bolts / "good", "--branches", "few", "--restart"]
    bank = run("predict", *usual, *more)
    assert bank.code == 0 and "prompts say" not in bank.out  # a memory bank alone needs none
    options = json.loads((folders.root / "out" / "settings.json").read_text())["options"]
    assert options["classname"] == "object" and options["features_list"] == [1, 2, 3, 4]  # as they were settled


def test_stopping_leaves_whole_files_and_the_scores_so_far(folders):
    assess, calls = Predictor.assess, []

    def stopped(*args: object) -> tuple[np.ndarray, float]:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return assess(*args)

    with patch.object(Predictor, "assess", stopped):
        out = predict(folders, "--input", folders.root / "new")
    assert out.code == 2 and "stopped" in out.err and len(out.rows) == 2 and out.settings["stopped"]
    assert not [path for path in files(out.folder) if Path(path).name.startswith(".")]
    assert all(len(files(out.folder / kind)) == 2 for kind in KINDS)


def test_folders_are_read_whole_but_for_masks_and_results(lab):
    lab.medical("Brain", test=(2, 2))
    test = lab.data / "Brain_AD" / "test"
    names = {f"test_{kind}{number}.png" for kind in "na" for number in range(2)}
    for _ in range(2):  # the second time, what the first wrote is there
        out = predict(lab, "--input", test, "--output", test / "results")
        with (test / "results" / "scores.csv").open() as file:
            assert out.code == 0 and {Path(row["file"]).name for row in csv.DictReader(file)} == names
    pattern = predict(lab, "--input", test / "*" / "img" / "*0.png", test / "good" / "img" / "test_n0.png", to="p")
    assert set(pattern.scores) == {"test_n0.png", "test_a0.png"} and len(pattern.rows) == 2


def test_what_can_not_start_leaves_what_was_there(folders):
    bad = ["--ckpt", folders.root / "none.pth", "--input", folders.root / "new"]
    for kept in ("kept", "kept/empty"):
        (folders.root / kept).mkdir()
    assert predict(folders, *bad, to="made/deep").code == 2 and not (folders.root / "made").exists()
    assert predict(folders, *bad, to="kept/empty").code == 2 and (folders.root / "kept" / "empty").is_dir()


def test_the_page_is_titled_by_object_and_input(folders, monkeypatch):
    (folders.root / "here").mkdir()
    monkeypatch.chdir(folders.root / "here")
    assert predict(folders, "--input", folders.root / "new" / "new0.png", "--output", ".").code == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert "<h1><bdi>Thing: image new0.png</bdi></h1>" in page and '<a href="scores.csv">' in page


@pytest.mark.parametrize(("precision", "mend"), [("fp32", "leave it out"), ("bf16", "score it with --precision fp32")])
def test_a_score_that_is_no_number_names_a_mend_that_helps(folders, precision, mend):
    with patch.object(Predictor, "assess", lambda *args: (np.zeros((30, 40), np.float32), float("nan"), ())):
        out = predict(folders, "--input", folders.root / "new" / "new0.png", "--precision", precision)
    assert out.code == 1 and out.rows[0]["note"].endswith(f"its score is not a number; {mend}")


def test_the_input_folder_is_no_output(folders):
    new = folders.root / "new"
    out = predict(folders, "--input", new, "--output", folders.root / "good" / ".." / "new")
    assert out.code == 2 and "is the input folder" in out.err and len(files(new)) == 5


@pytest.mark.parametrize("pattern", ["**/*.png", "**", "*"])
@pytest.mark.parametrize("place", [".", "results"])
def test_patterns_do_not_find_what_a_run_wrote(folders, pattern, place):
    output = folders.root / "new" / place
    for _ in range(2):
        out = predict(folders, "--input", folders.root / "new" / pattern, "--output", output)
        with (output / "scores.csv").open() as file:
            assert out.code == 0 and len(list(csv.DictReader(file))) == 5
    assert {path.name for path in output.iterdir() if path.is_dir()} <= set(inputs.WRITTEN)


def test_a_file_is_scored_once_whatever_links_lead_there(folders):
    new = folders.root / "new"
    (new / "loop").symlink_to(new)
    (new / "other").symlink_to(folders.root / "good")
    found = inputs.find([str(new), str(new / ".." / "new" / "new0.png"), str(new / "*" / "new1.png")])
    assert [file.name for file in found] == [*(f"new{n}.png" for n in range(5)), *(f"good{n}.png" for n in range(4))]


def test_folders_among_a_patterns_hits_are_entered(folders):
    noise(folders.root / "masks" / "m.png")
    assert len(inputs.find([str(folders.root / "*")])) == 4 + 3 + 5


def test_files_of_no_kind_are_counted(folders):
    for name in ("readme.txt", "table.csv"):
        (folders.root / "new" / name).write_text("text")
    assert "2 files passed over of no kind that is read" in predict(folders, "--input", folders.root / "new").out


def test_files_named_by_uid_are_scored_under_their_whole_name(folders):
    (folders.root / "in").mkdir()
    for number in (1, 2):
        dicom_file(folders.root / "in" / f"1.2.840.{number}")
    out = predict(folders, "--input", folders.root / "in")
    assert out.code == 0 and files(out.folder / "maps") == {"1.2.840.1.png", "1.2.840.2.png"}


def test_same_names_do_not_overwrite_each_other(lab):
    for folder in ("a", "b"):
        trees.picture(lab.root / "in" / folder / "same.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)), lab.root / "in" / "a" / "same.nii.gz")
    out = predict(lab, "--input", lab.root / "in")
    assert out.code == 0 and len(out.rows) == 4 and len(files(out.folder / "maps")) == 4


def test_a_slice_and_an_image_do_not_overwrite_each_other(lab):
    """The first slice of scan.nii would be scan_0.png too, and the second Scan_1.png where case is folded."""
    (lab.root / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)), lab.root / "in" / "scan.nii")
    for name in ("scan_0.png", "Scan_1.png"):
        noise(lab.root / "in" / name)
    out = predict(lab, "--input", lab.root / "in")
    assert out.code == 0 and len(out.rows) == 4
    assert all(len({path.lower() for path in files(out.folder / kind)}) == 4 for kind in KINDS)


def test_what_is_no_file_is_passed_over_with_a_word(tmp_path, capsys):
    noise(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    for name, to in (("loop.png", "loop.png"), ("gone.png", "nothing")):
        (tmp_path / "in" / name).symlink_to(to)
    assert find([str(tmp_path / "in")]) == [tmp_path / "in" / "a.png"]
    assert "3 files passed over that are pipes or devices, or links to nothing" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pipe.png", "loop.png"])
def test_an_input_that_is_no_file_is_one_line(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(InputError, match=name):
        find([str(tmp_path / name)])

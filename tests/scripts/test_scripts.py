"""Whole runs: what is trained is tested to the same figures, on every kind of data, and the record tells all of it."""

import csv
import json
import re
import subprocess
import sys
from math import isfinite
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lab import PROMPTS, ROOT, files, same
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import prompt
from report.panels import TITLES
from report.tables import DEMO_NOTE
from runtime.files import sha256

PAIRS = {"few": "Brain_1-shot", "zero": "Brain"}  # kind of script -> the run's name


# Train, then test


@pytest.mark.parametrize(("obj", "masks"), [("Brain", "anomaly_mask"), ("Chest", None)])
@pytest.mark.parametrize("kind", ["few", "zero"])
def test_testing_gives_the_figures_of_training(lab, kind, obj, masks):
    lab.medical(obj, masks=masks)
    lab.others()
    trained = lab.done(f"train_{kind}", "--obj", obj, "--epoch", 3)
    tested = lab.done(f"test_{kind}", "--obj", obj)
    name = f"{obj}_1-shot" if kind == "few" else obj
    one, other = (lab.results(f"{way}_{kind}/{name}")["results"] for way in ("train", "test"))
    assert [result["selected"] for result in one] == ["last", "best"]
    assert one == other
    assert all(isfinite(figure) for result in one for row in result["branches"].values() for figure in row.values())
    assert same(trained.seen, tested.seen)
    said = [run.out[run.out.index(f"{obj}, last epoch") :] for run in (trained, tested)]
    assert said[0] == said[1]


FOLLOWED = ("--adapter mvfa --branches few", "--adapter projector", "--madff_axis token --madff")


@pytest.mark.parametrize("flags", FOLLOWED)
def test_testing_follows_the_checkpoint(lab, flags):
    lab.medical()
    lab.done("train_few", *flags.split(), "--protocol", "sound", "--features_list", 2, 3, "--classname", "cat")
    lab.done("test_few")
    one, other = (lab.results(f"{way}_few/Brain_1-shot") for way in ("train", "test"))
    assert one["results"] == other["results"]
    for key in ("adapter", "madff", "madff_axis", "branches", "features_list", "protocol", "classname", "img_size"):
        assert one["options"][key] == other["options"][key], key


@pytest.mark.parametrize("kind", PAIRS)
def test_the_same_seed_gives_the_same_bits(lab, kind):
    lab.medical()
    lab.others()
    found = []
    for seed in (1, 1, 2):
        run = lab.done(f"train_{kind}", "--seed", seed)
        kept = lab.checkpoint(PAIRS[kind])
        found.append((run.seen, kept.last.adapters, kept.best.adapters, kept.last.calibration))
    (seen, *first), (again, *second), (other, *third) = found
    assert same(seen, again) and not same(seen, other)
    assert first[2] == second[2] != third[2]
    for one, two, three in zip(first[:2], second[:2], third[:2], strict=True):
        for head in one:
            assert all(one[head][name].equal(two[head][name]) for name in one[head])
            assert not any(one[head][name].equal(three[head][name]) for name in one[head])


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
@pytest.mark.parametrize("kind", PAIRS)
def test_scores_do_not_depend_on_their_company_nor_on_who_reads(lab, kind, obj):
    lab.medical(obj, test=(6, 5))
    lab.others()
    lab.done(f"train_{kind}", "--obj", obj, "--eval_every", 0)
    found = []
    for flags in ("--batch_size 1", "--batch_size 7", "--batch_size 7 --num_workers 2", ""):
        run = lab.done(f"test_{kind}", "--obj", obj, *flags.split())
        name = f"{obj}_1-shot" if kind == "few" else obj
        found.append((run.seen, lab.results(f"test_{kind}/{name}")["results"]))
    seen, results = found[0]
    assert all(same(seen, other) and results == others for other, others in found[1:])


@pytest.mark.parametrize("branches", ["few", "zero", "both"])
def test_other_branches_than_in_training_may_be_tested(lab, branches):
    """Patch scores of a branch never depend on the other; a threshold there is for each branch that is scored."""
    lab.medical()
    lab.done("train_few", "--branches", "both")
    whole = lab.results("train_few/Brain_1-shot")["results"][0]["branches"]
    lab.done("train_few", "--branches", branches)
    for tested, rows in (("few", ["few"]), ("zero", ["zero"]), ("both", ["zero", "few", "fused"])):
        lab.done("test_few", "--branches", tested)
        last = lab.results("test_few/Brain_1-shot")["results"][0]
        assert last["branches"] == {row: whole[row] for row in rows}


@pytest.mark.parametrize("kind", PAIRS)
def test_other_prompts_than_in_training_may_be_tested(lab, kind):
    lab.medical()
    lab.others()
    lab.done(f"train_{kind}")
    pictures = lab.root / "pictures"
    run = lab.done(f"test_{kind}", "--prompts", "base", "--save_images", pictures)
    assert "the prompts are not those of the training run" in run.out
    assert len(files(pictures)) == 7
    one, other = (lab.results(f"{way}_{kind}/{PAIRS[kind]}") for way in ("train", "test"))
    assert one["prompts_sha256"] != other["prompts_sha256"]
    assert ("sensitivity" in other["results"][0]["branches"]["zero"]) == (kind == "few")


# What a run leaves behind


@pytest.mark.parametrize("kind", PAIRS)
def test_the_record_tells_how_figures_came_about(lab, kind):
    lab.medical()
    lab.others()
    lab.done(f"train_{kind}", "--seed", 5, "--epoch", 2)
    name = PAIRS[kind]
    record, stored = lab.results(f"train_{kind}/{name}"), lab.checkpoint(name)
    results, means = record.pop("results"), record.pop("means")
    assert json.loads(json.dumps(stored.record)) | {"seconds": record["seconds"]} == record  # which took longer
    assert record["options"]["seed"] == 5 and record["options"]["features_list"] == [1, 2, 3, 4]
    assert {"obj", "data_path", "adapter", "learning_rate", "epoch", "prompts"} < record["options"].keys()
    assert (record["obj"], record["masks"], record["adapter"], record["device"]) == ("Brain", True, "madff", "cpu")
    assert record["weights_sha256"] == sha256(lab.weights)
    words = [[text.format(classname="Brain") for text in PROMPTS[label]["prompts"]] for label in PROMPTS]
    assert record["prompts_sha256"] == prompt.digest(*words)
    assert record["seconds"] > 0
    assert record["environment"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"python", "numpy", "cpu", "platform", "commit", "device"} < record["environment"].keys()
    if kind == "few":
        assert all(len(names) == 1 for names in record["support"].values())
        assert record["counts"]["scored"] == {"normal": 4, "abnormal": 3, "published": None}
    else:
        assert record["trained_on"] == ["Liver", "Histopathology"]
    assert (results[0]["selected"], results[0]["epoch"]) == ("last", 2) and not means
    with (lab.root / "results" / f"train_{kind}" / name / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, (result, branch) in zip(rows, [(one, name) for one in results for name in one["branches"]], strict=True):
        assert (row["obj"], row["selected"], row["branch"]) == ("Brain", result["selected"], branch)
        assert all(float(row[key]) == figure for key, figure in result["branches"][branch].items())


def test_a_test_run_names_its_checkpoint(lab):
    lab.medical()
    lab.done("train_few")
    lab.done("test_few")
    trained, tested = (lab.results(f"{way}_few/Brain_1-shot") for way in ("train", "test"))
    assert tested["script"] == "test_few.py" and tested["checkpoint"] == str(lab.root / "ckpt" / "Brain_1-shot.pth")
    for key in ("obj", "support", "counts", "prompts_sha256", "weights_sha256", "environment", "adapter"):
        assert tested[key] == trained[key], key


def test_a_checkpoint_is_tensors_and_plain_data(lab):
    lab.medical()
    lab.done("train_few", "--eval_every", 0)
    content = torch.load(lab.root / "ckpt" / "Brain_1-shot.pth", weights_only=True)
    assert content.keys() == {"format", "record", "seg_adapters", "det_adapters", "epoch", "calibration", "sha256"}
    assert all(isinstance(part, Tensor) for head in ("seg_adapters", "det_adapters") for part in content[head].values())
    assert content["calibration"]["image"].keys() == {"zero", "few", "fused"}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_picture_of_every_test_image_at_its_own_resolution(lab, kind):
    root = lab.medical()
    lab.others()
    pictures = lab.root / "pictures" / PAIRS[kind]
    lab.done(f"train_{kind}", "--save_images", pictures.parent)
    images = sorted((root / "test").glob("*/img/*.png"))
    assert files(pictures) == {f"test_{path.parts[-3]}_img_{path.name}" for path in images}
    panel = np.array(Image.open(pictures / "test_Ungood_img_test_a0.png"))
    image = np.array(Image.open(root / "test" / "Ungood" / "img" / "test_a0.png"))
    assert panel.shape[1] > len(TITLES) * image.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(panel, image.shape)[:, :, 0]  # the input's tile is the file's
    assert (windows == image).all(axis=(2, 3, 4)).any()
    before = {name: (pictures / name).read_bytes() for name in files(pictures)}
    lab.done(f"test_{kind}", "--save_images", pictures.parent)
    assert {name: (pictures / name).read_bytes() for name in files(pictures)} == before


# Adapters published by others


def save_published(path: Path, adapters: dict[str, dict[str, Tensor]]) -> Path:
    """As MVFA-AD publishes them, or flat as safetensors."""
    if path.suffix == ".pth":
        torch.save(adapters, path)
    else:
        save_file({f"{head}.{name}": part for head, of in adapters.items() for name, part in of.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("flags", ["--adapter mvfa", "--adapter madff", "--adapter projector", "--madff sca fab"])
def test_published_adapters_give_the_figures_of_their_training(lab, flags, suffix):
    """The kind of adapter is told by the names in the file; what it can not tell is given again."""
    lab.medical()
    trained = lab.done("train_few", *flags.split(), "--eval_every", 0)
    one = lab.results("train_few/Brain_1-shot")
    path = save_published(lab.root / f"published{suffix}", lab.checkpoint().last.adapters)
    tested = lab.done("test_few", "--ckpt", path, "--threshold_rule", "f1", bare=True)
    other = lab.results("test_few/Brain_1-shot")
    assert same(trained.seen, tested.seen)
    assert one["results"][0]["branches"] == other["results"][0]["branches"]
    assert all(one[key] == other[key] for key in ("adapter", "support", "prompts_sha256"))
    assert all(one["options"][key] == other["options"][key] for key in ("adapter", "madff"))


def test_published_adapters_of_transfer(lab):
    lab.medical()
    lab.others()
    trained = lab.done("train_zero", "--eval_every", 0)
    path = save_published(lab.root / "published.pth", lab.checkpoint("Brain").last.adapters)
    tested = lab.done("test_zero", "--ckpt", path, "--save_images", lab.root / "pictures", bare=True)
    assert same(trained.seen, tested.seen)
    one, other = (lab.results(f"{way}_zero/Brain")["results"][0]["branches"]["zero"] for way in ("train", "test"))
    by_threshold = ("sensitivity", "specificity", "balanced_accuracy_max")
    assert other == {key: value for key, value in one.items() if key not in by_threshold}
    assert len(files(lab.root / "pictures")) == 7  # without the training images no threshold, but maps


def test_adapters_of_transfer_serve_few_shot_scoring(lab):
    """--ckpt takes any adapter file of ours, whichever script wrote it."""
    lab.medical()
    lab.others()
    lab.done("train_zero", "--eval_every", 0, "--adapter", "mvfa")
    path = lab.root / "ckpt" / "Brain.pth"
    plain = save_published(lab.root / "plain.pth", lab.checkpoint("Brain").last.adapters)
    found = []
    for file in (path, plain):
        run = lab.done("test_few", "--ckpt", file, "--shot", 1, "--iterate", -1, bare=True)
        found.append((run.seen, lab.results("test_few/Brain_1-shot")["results"][0]["branches"]))
    assert same(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_the_object_of_a_checkpoint_need_not_be_named(lab):
    lab.medical("Liver")
    lab.done("train_few", "--obj", "Liver")
    assert "Liver AUC" in lab.done("test_few", "--ckpt", lab.root / "ckpt" / "Liver_1-shot.pth").out


def test_adapters_of_another_object_may_be_transferred(lab):
    """A few-shot checkpoint is a zero-shot one for every object but its own."""
    lab.medical("Liver", test=(2, 2))
    lab.medical("Brain")
    lab.done("train_few", "--obj", "Liver")
    path = lab.root / "ckpt" / "Liver_1-shot.pth"
    assert lab.done("test_zero", "--obj", "Brain", "--ckpt", path).seen[0].map_patches.few is None
    record = lab.results("test_zero/Brain")
    assert record["trained_on"] == ["Liver"]
    assert "sensitivity" not in record["results"][0]["branches"]["zero"]
    run = lab.run("test_zero", "--ckpt", path)
    assert run.code == 2 and "was trained on Liver itself" in run.err


# As a user runs them


def test_as_a_process(lab):
    lab.medical()
    done = subprocess.run(
        [sys.executable, ROOT / "train_few.py", *map(str, lab.flags("train_few"))],
        **{"capture_output": True, "text": True, "cwd": lab.root},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Brain pAUC : 0\.\d+$", done.stdout, re.M) and re.search(r"^Brain AUC : ", done.stdout, re.M)
    lab.done("test_few")
    one, other = (lab.results(f"{way}_few/Brain_1-shot")["results"] for way in ("train", "test"))
    assert one == other  # another process, the same figures
    assert {path.name for path in lab.root.iterdir()} == {"data", "ckpt", "results", "runs", "cache", "words.json"}


@pytest.mark.slow
def test_the_demo(tmp_path):
    """The readme's first command, for one epoch, and its test."""
    flags = ["--obj", "Brain", "--shot", "4", "--save_path", tmp_path / "ckpt", "--results_path", tmp_path / "results"]
    train = ["--demo", "--epoch", "1", "--data_path", tmp_path / "data", "--log_dir", tmp_path / "runs"]
    for script, more in (("train_few", train), ("test_few", [])):
        command = [sys.executable, ROOT / f"{script}.py", *flags, *more]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert DEMO_NOTE in done.stdout
    one, other = (
        json.loads((tmp_path / "results" / f"{way}_few" / "Brain_4-shot" / "results.json").read_text())
        for way in ("train", "test")
    )
    assert one["results"] == other["results"]
    assert one["options"]["model_name"] == other["options"]["model_name"] == "ViT-T-16-demo"
    assert one["counts"]["scored"] == {"normal": 25, "abnormal": 25, "published": None}

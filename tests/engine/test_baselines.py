"""Runs of baselines: what is fitted on what, calibrated without itself, evaluated, tested again, asked of a picture."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.lab import Lab, Run, same

from dataset import demo
from engine import FewShotSpec, Predictor, evaluate, few_shot, options, train_few_shot
from engine.baselines import BaselineRun
from engine.open_checkpoint import open_checkpoint
from engine.predictor import to_picture
from engine.spec import METHODS, UNFIT, FewShotTestSpec
from runtime.errors import InputError

BASELINES = METHODS[1:]
BRANCHES = {"patchcore": ["few"], "winclip": ["zero", "few", "fused"], "linear": ["few"]}
OBJECTS = ("Brain", "Chest")  # with and without masks


@pytest.fixture(scope="module")
def usual(tiny, tmp_path_factory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("baselines"), *tiny)
    lab.medical("Brain", valid=(5, 5))
    lab.medical("Chest", masks=None, valid=(5, 5))
    return lab


def folders(lab: Lab, name: str) -> list[object]:
    """Flags by which a run has its files for itself."""
    place = lab.root / name
    return ["--save_path", place / "ckpt", "--results_path", place / "results"]


@pytest.fixture(scope="module")
def made(usual) -> Callable[..., tuple[Run, Path]]:
    """Trains once: the run, and the folder that holds its ckpt and results."""
    known: dict[tuple, tuple[Run, Path]] = {}

    def train(method: str, obj: str = "Brain", shot: int = 2, *flags: object) -> tuple[Run, Path]:
        key = (method, obj, shot, *flags)
        if key not in known:
            name = "-".join(map(str, key)).replace("--", "")
            asked = ["--method", method] if method in METHODS else ["--adapter", method]
            run = usual.done("train_few", *asked, "--obj", obj, "--shot", shot, *flags, *folders(usual, name))
            known[key] = run, usual.root / name
        return known[key]

    return train


def opened(folder: Path, obj: str = "Brain", shot: int = 2, **settings: object) -> BaselineRun:
    """The run of a checkpoint."""
    path = folder / "ckpt" / f"{obj}_{shot}-shot.pth"
    return open_checkpoint(path, FewShotTestSpec, {"device": "cpu", **settings}, purpose="few-shot test").run


def results(folder: Path, script: str, name: str) -> dict:
    return json.loads((folder / "results" / script / name / "results.json").read_text())


@pytest.mark.parametrize("obj", OBJECTS)
@pytest.mark.parametrize("method", [*BASELINES, "none"])
def test_every_method_is_evaluated_and_tested_again_to_the_digit(usual, made, method, obj):
    run, folder = made(method, obj, 2, "--batch_size", 16)
    again = usual.done("test_few", "--obj", obj, "--shot", 2, "--batch_size", 1, *folders(usual, folder.name))
    one, other = (results(folder, f"{way}_few", f"{obj}_2-shot") for way in ("train", "test"))
    assert one["results"] == other["results"] and same(run.seen, again.seen)
    assert "taken anew" not in again.out  # its own calibration holds
    (last,) = one["results"]
    assert list(last["branches"]) == BRANCHES.get(method, ["zero", "few", "fused"]) and last["epoch"] == 0
    assert all(("pixel_aupro" in figures) == (obj == "Brain") for figures in last["branches"].values())
    assert one["options"]["method"] == (method if method in METHODS else "clipmpcad")
    assert one["options"]["adapter"] == one["adapter"] == "none"
    for file in ("results.csv", "scores.csv", "report.html"):
        assert (folder / "results" / "train_few" / f"{obj}_2-shot" / file).is_file()


@pytest.mark.parametrize("method", BASELINES)
def test_titles_and_tables_say_the_method(made, method):
    _, folder = made(method, "Brain", 2, "--batch_size", 16)
    place = folder / "results" / "train_few" / "Brain_2-shot"
    assert f"<title>Brain, 2-shot, {method}" in (place / "report.html").read_text(encoding="utf-8")
    with (place / "results.csv").open(newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {method}


@pytest.mark.parametrize("obj", OBJECTS)
@pytest.mark.parametrize("method", BASELINES)
def test_a_picture_gets_the_score_that_it_has_in_the_test_set(usual, made, method, obj):
    _, folder = made(method, obj, 2, "--batch_size", 16)
    predictor = Predictor.from_checkpoint(folder / "ckpt" / f"{obj}_2-shot.pth", device="cpu")
    with (folder / "results" / "train_few" / f"{obj}_2-shot" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows[:3]:
        found = predictor.predict(usual.data / row["image"])
        assert found.score == pytest.approx(float(row[predictor.branch]), abs=1e-6)
        assert found.threshold == pytest.approx(float(row["threshold"]), abs=1e-6)


@pytest.mark.parametrize("method", ["patchcore", "winclip"])
def test_normal_images_are_fitted_as_they_are_and_calibrated_without_themselves(made, method):
    run = opened(made(method, "Brain", 2, "--batch_size", 16)[1])
    support, rows = run.support, run.calibration_rows()
    assert support.variant[run.fitted_rows()].tolist() == [0, 0] and support.labels[run.fitted_rows()].sum() == 0
    assert support.variant[rows].tolist() == [0] * 4 and support.labels[rows].tolist() == [1, 1, 0, 0]
    one, other = run.fitted_rows().tolist()
    (prefix,) = run._prefixes(torch.tensor([one]))
    found = run.score_support()
    alone = run.system.baseline_scores(prefix, run.fit([other]))["map"].few
    assert found.map_patches.few[2:3].equal(alone)
    itself = run.system.baseline_scores(prefix, run.model)["map"].few
    assert alone.min() > itself.min()


@pytest.mark.parametrize("method", ["patchcore", "winclip"])
def test_of_one_normal_image_the_variants_stand_for_normal_images(made, method):
    run = opened(made(method, "Brain", 1)[1], shot=1)
    rows = run.calibration_rows()
    normal = rows[run.support.labels[rows] == 0]
    assert run.support.variant[normal].tolist() == list(range(1, 11)) and len(rows) == 11
    assert run.support.variant[run.fitted_rows()].tolist() == [0]
    distances = run.score_support().map_patches.few.amax(dim=(1, 2, 3))
    assert len(distances) == 11 and distances.min() > 1e-3  # nothing is compared with itself


def test_the_linear_probe_is_calibrated_out_of_fold(made):
    run = opened(made("linear", "Brain", 2, "--batch_size", 16)[1])
    support, tied = run.support, run.left_out_together()
    assert tied.equal(support.source) and len(run.fitted_rows()) == 44
    assert run.calibration_rows().equal(torch.arange(44))
    values = run.score_support().mean_patches.few.flatten()
    row = 5  # of an abnormal image
    others = (support.source != support.source[row]).nonzero()[:, 0].tolist()
    (prefix,) = run._prefixes(torch.tensor([row]))
    assert len(others) == 33
    expected = run.system.baseline_scores(prefix, run.fit(others))["image"].few
    assert values[row] == expected.flatten()[0]
    assert values[row] != run.system.baseline_scores(prefix, run.model)["image"].few.flatten()[0]


def test_a_labels_only_image_is_left_out_variant_by_variant(made):
    run = opened(made("linear", "Brain", 2, "--abnormal_shot", 1)[1])
    labels, tied = run.support.labels, run.left_out_together()
    assert len(tied[labels == 1].unique()) == 11 and len(tied[labels == 0].unique()) == 2
    assert len(run.score_support().mean_patches) == 33


def test_linear_needs_both_labels(usual):
    run = usual.run("train_few", "--method", "linear", "--abnormal_shot", 0)
    assert run.code == 2 and run.complaints == [
        "error: --method linear is fitted on both labels: leave --abnormal_shot 0 out"
    ]


@pytest.mark.parametrize("method", ["patchcore", "winclip", "none"])
def test_the_others_do_without_abnormal_images(usual, made, method):
    _, folder = made(method, "Brain", 2, "--abnormal_shot", 0)
    found = results(folder, "train_few", "Brain_2-shot")
    assert list(found["results"][0]["branches"]) == BRANCHES.get(method, ["zero", "few", "fused"])
    assert found["support"]["abnormal"] == []


def test_winclip_needs_the_last_block(usual):
    run = usual.run("train_few", "--method", "winclip", "--features_list", 1, 2)
    assert run.code == 2 and "--features_list end in 4" in run.err


@pytest.mark.parametrize("branches", ["zero", "few"])
def test_winclip_scores_one_branch_alone(made, branches):
    both = made("winclip", "Brain", 2, "--batch_size", 16)[0].seen[0]
    alone = made("winclip", "Brain", 2, "--branches", branches)[0].seen[0]
    for whole, part in ((both.map_patches, alone.map_patches), (both.mean_patches, alone.mean_patches)):
        off = "few" if branches == "zero" else "zero"
        assert getattr(part, branches).equal(getattr(whole, branches)) and getattr(part, off) is None


def test_a_bank_cap_is_patchcores(made):
    path = made("patchcore", "Brain", 2, "--bank_cap", "coreset:9")[1]
    assert len(opened(path).model.bank.levels[0]) == 9
    assert len(opened(made("patchcore", "Brain", 2, "--batch_size", 16)[1]).model.bank.levels[0]) == 3  # of 32


def test_adapter_none_is_the_bare_trunk_with_bank_and_prompts(usual, made):
    """Its bank is that of --abnormal_shot 0, and the abnormal images only calibrate."""
    run, folder = made("none", "Brain", 2, "--batch_size", 16)
    bare = usual.done("train_few", "--shot", 2, "--abnormal_shot", 0, *folders(usual, "bare"))
    assert run.seen[0].map_patches.few.equal(bare.seen[0].map_patches.few) and bare.seen[0].map_patches.zero is None
    assert "nothing to train" in run.out
    few = opened(folder)
    assert few.support.labels[few.calibration_rows()].unique().tolist() == [0, 1]


def test_transfer_without_adapters_is_the_trunk_under_the_prompts(usual):
    usual.others()
    flags = ("--adapter", "none", *folders(usual, "transfer"))
    run = usual.done("train_zero", *flags)
    again = usual.done("test_zero", *folders(usual, "transfer"))
    assert same(run.seen, again.seen) and run.seen[0].map_patches.zero is not None
    assert results(usual.root / "transfer", "train_zero", "Brain")["adapter"] == "none"


# What is refused


@pytest.mark.parametrize(("method", "name"), [(method, name) for method, names in UNFIT.items() for name in names])
def test_settings_that_mean_nothing_are_refused(method, name):
    values = {"adapter": "mvfa", "madff": ("sca",), "madff_axis": "token", "bank_cap": "5", "recipe": "robust"}
    values |= {"epoch_by": "support", "average_epochs": 2, "ensemble": 2, "synthetic": 1, "fusion": "support"}
    values |= {"image_score": "top", "smooth": 1.0, "neighbourhood": 3, "bank_taps": "support", "bank_variants": "none"}
    values |= {"head": "linear"}
    with pytest.raises(InputError, match=f"^--{name} means nothing for --method {method}; leave it out$"):
        FewShotSpec(method=method, **{name: values[name]})


@pytest.mark.parametrize("flags", ["--adapter madff", "--madff sca llspm fab", "--madff_axis sequence"])
def test_settings_that_are_as_by_default_are_refused_where_they_are_asked_for(flags):
    with pytest.raises(InputError, match=f"^{flags.split()[0]} means nothing for --method linear"):
        options.parse(FewShotSpec, ["--method", "linear", *flags.split()])


@pytest.mark.parametrize("method", ["patchcore", "linear"])
def test_prompts_alone_are_winclips(method):
    with pytest.raises(InputError, match=f"--branches zero .*--method {method}"):
        FewShotSpec(method=method, branches="zero")
    assert FewShotSpec(method="winclip", branches="zero").adapter == FewShotSpec(method=method).adapter == "none"


def test_a_checkpoint_is_of_one_method(usual, made):
    _, folder = made("patchcore", "Brain", 2, "--batch_size", 16)
    path = folder / "ckpt" / "Brain_2-shot.pth"
    for flags, words in (
        (("--method", "winclip"), "was trained with --method patchcore, not winclip"),
        (("--adapter", "mvfa"), "--adapter means nothing for --method patchcore"),
        (("--branches", "zero"), "--branches zero"),
    ):
        run = usual.run("test_few", "--ckpt", path, *flags)
        assert run.code == 2 and words in run.err
    usual.done("test_few", "--ckpt", path, "--method", "patchcore")
    trained = usual.done("train_few", *folders(usual, "trained"))
    assert trained.code == 0
    run = usual.run("test_few", "--ckpt", usual.root / "trained" / "ckpt" / "Brain_1-shot.pth", "--method", "winclip")
    assert run.code == 2 and "was trained with --method clipmpcad, not winclip" in run.err


@pytest.mark.parametrize("purpose", ["lab", "ranking", "transfer test"])
def test_what_wants_adapters_or_prompts_alone_refuses_baselines(made, purpose):
    _, folder = made("winclip", "Brain", 2, "--batch_size", 16)
    with pytest.raises(InputError, match=r"holds a baseline \(--method winclip\)"):
        open_checkpoint(folder / "ckpt" / "Brain_2-shot.pth", FewShotTestSpec, {}, purpose=purpose)


def test_tiles_and_regions_are_refused_where_scores_would_be_others(usual, made):
    path = {method: made(method, "Brain", 2, "--batch_size", 16)[1] / "ckpt/Brain_2-shot.pth" for method in BASELINES}
    with pytest.raises(InputError, match="leave --tile out"):
        Predictor.from_checkpoint(path["patchcore"], device="cpu", tile=32)
    image = to_picture(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    region = torch.zeros(64, 64, dtype=torch.bool)
    region[:32] = True
    whole, score = Predictor.from_checkpoint(path["patchcore"], device="cpu").map_and_score(image, region.numpy())
    assert (whole[32:] == 0).all() and score == whole.max()
    for method in ("winclip", "linear"):
        with pytest.raises(InputError, match="leave --roi out"):
            Predictor.from_checkpoint(path[method], device="cpu").map_and_score(image, region.numpy())


def test_digests_tell_baselines_apart(made):
    paths = [made(method, "Brain", 2, "--batch_size", 16)[1] / "ckpt/Brain_2-shot.pth" for method in BASELINES]
    digests = [Predictor.from_checkpoint(path, device="cpu").digest() for path in paths]
    assert len(set(digests)) == len(digests)
    assert Predictor.from_checkpoint(paths[0], device="cpu").digest() == digests[0]


def test_nothing_of_the_epochs_matters(usual, made):
    first = made("linear", "Brain", 2, "--batch_size", 16)[0]
    run = made("linear", "Brain", 2, "--epoch", 7, "--eval_every", 3, "--learning_rate", 5)[0]
    assert same(first.seen, run.seen)


def test_from_python(usual):
    place = {"save_path": usual.root / "py", "results_path": usual.root / "py", "cache_path": usual.root / "cache"}
    model = {"model_name": str(usual.config), "clip_path": usual.weights, "img_size": 64, "device": "cpu"}
    spec = FewShotSpec(method="patchcore", shot=2, iterate=-1, data_path=usual.data, **model, **place)
    (found,) = train_few_shot(spec)
    assert list(found.branches) == ["few"] and few_shot.protocol(spec) == 2


@pytest.mark.parametrize("method", BASELINES)
def test_on_the_demo(tmp_path, monkeypatch, method):
    """Of few pictures, by its own trunk: trained, and from the checkpoint in other batches to the digit."""
    monkeypatch.setattr(demo, "VALID", 3)
    monkeypatch.setattr(demo, "TEST", 4)
    places = {name: tmp_path / name for name in ("data_path", "save_path", "results_path", "cache_path")}
    spec = FewShotSpec.of(demo=True, shot=2, method=method, batch_size=16, img_size=96, device="cpu", **places)
    trained = train_few_shot(spec)
    tested = evaluate(tmp_path / "save_path" / "Brain_2-shot.pth", batch_size=1, cache_gb=0, device="cpu")
    assert trained == tested and trained[0].branches.keys() == set(BRANCHES[method])

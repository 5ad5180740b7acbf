"""Training on folds, epoch by the support, averages, ensembles and the robust recipe, end to end on tiny data."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.lab import Lab

from apps.export.exporting import export
from engine import FewShotSpec, Predictor, evaluate, few_shot
from engine.checkpoint import read
from engine.fold_training import out_of_fold, training_key
from engine.options import parse
from engine.weight_average import WeightAverage
from runtime.errors import InputError
from scoring.reliability import ThresholdRule
from utils import seed_everything


@pytest.fixture(scope="module")
def lab(tiny, tmp_path_factory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("folds"), *tiny)
    lab.medical("Brain", valid=(4, 4))
    lab.medical("Chest", masks=None, valid=(4, 4))
    return lab


def flags(lab: Lab, name: str) -> list[object]:
    place = lab.root / name
    places = ["--save_path", place / "ckpt", "--results_path", place / "results"]
    return [*places, "--threshold_rule", "balanced", "--eval_every", 0]


def spec_of(lab: Lab, **more: object) -> FewShotSpec:
    """Of the lab's flags."""
    return FewShotSpec.of(parse(FewShotSpec, list(map(str, lab.flags("train_few")))), obj="Brain", **more)


def trained(lab: Lab, name: str, *more: object, obj: str = "Brain", shot: int = 3):
    """A run's words and its checkpoint."""
    run = lab.done("train_few", "--obj", obj, "--shot", shot, *flags(lab, name), *more)
    return run, lab.root / name / "ckpt" / f"{obj}_{shot}-shot.pth"


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_thresholds_are_of_images_held_out(lab, obj):
    run, path = trained(lab, f"held-{obj}", "--folds", 3, obj=obj)
    calibration = read(path).last.calibration
    known = calibration.evidence["fused"]
    assert known.held_out and len(known.normal) == len(known.abnormal) == 3
    assert calibration.image["fused"] == pytest.approx(known.threshold(ThresholdRule("balanced")))
    assert "each scored without itself" in run.out and "AUROC" in run.out
    assert not list((lab.root / f"held-{obj}" / "results").rglob("folds"))  # gone with the end of the run


def test_a_fold_is_scored_by_adapters_and_bank_of_the_rest_alone(lab, tmp_path):
    """What an image gets does not change when the pixels of it that a fold trains on do."""
    spec = spec_of(lab, shot=3, folds=3)
    found = []
    for poison in (False, True):
        seed_everything(spec.seed)
        run = few_shot.open_run(spec, "Brain")
        start, (first, *_) = run.system.decoder.adapter_state(), run.folds
        if poison:
            prefixes = run.keep_prefixes().clone()
            out = torch.isin(run.owners, torch.tensor(first.owners))
            prefixes[out & (torch.arange(len(out)) != first.left_out[0])] = 100.0
            run.kept_prefixes = prefixes
        folder = run.open_folder("train_few", anew=True)
        with folder:
            found.append(out_of_fold(run, folder, start, {1})[1])
    row = run.calibration_rows().tolist().index(int(first.left_out[0]))
    for one, other in zip(found[0].values(), found[1].values(), strict=True):
        assert torch.equal(one.zero[row], other.zero[row]) and torch.equal(one.few[row], other.few[row])


def test_without_folds_nothing_is_promised(lab):
    run, path = trained(lab, "none", "--folds", 0)
    assert not read(path).last.calibration.evidence["fused"].held_out
    assert "the adapters were trained on" in run.out
    (rows,) = [list(csv.DictReader(one.open())) for one in (lab.root / "none" / "results").rglob("*-shot/scores.csv")]
    assert {row["confidence"] for row in rows} == {""}


def test_robust_from_training_to_prediction(lab):
    _, path = trained(lab, "robust", "--recipe", "robust", "--folds", 3)
    calibration = read(path).last.calibration
    assert calibration.cues.names == (
        *("bank peak", "bank mean", "text peak", "text mean", "text whole", "linear", "map"),
    )
    (one,) = (lab.root / "robust" / "results").rglob("*-shot/scores.csv")
    rows = {row["image"]: row for row in csv.DictReader(one.open())}
    predictor = Predictor.from_checkpoint(path, data_path=lab.data)
    for name, row in list(rows.items())[:4]:
        found = predictor.predict(next(lab.data.rglob(name)) if not (lab.data / name).exists() else lab.data / name)
        assert np.float32(found.score) == np.float32(row["fused"]) and found.confidence == pytest.approx(
            float(row["confidence"])
        )
        assert int(found.uncertain) == int(row["uncertain"])
    results = evaluate(path, data_path=lab.data, results_path=lab.root / "robust" / "again")
    stored = json.loads(next((lab.root / "robust" / "results").rglob("*-shot/results.json")).read_text())["results"]
    assert results[0].branches["fused"]["image_auroc"] == stored[0]["branches"]["fused"]["image_auroc"]


def test_a_rule_given_anew_takes_the_evidence(lab):
    _, path = trained(lab, "held-Brain", "--folds", 3)
    usual = Predictor.from_checkpoint(path, data_path=lab.data)
    other = Predictor.from_checkpoint(path, data_path=lab.data, threshold_rule="specificity:0.9")
    known = usual.calibration.evidence["fused"]
    assert other.calibration.image["fused"] == known.threshold(ThresholdRule("specificity", 0.9))
    assert usual.calibration.image["fused"] != other.calibration.image["fused"]


@pytest.mark.parametrize(
    "part",
    [
        ("--epoch_by", "support"),
        ("--average_epochs", 2),
        ("--ensemble", 2),
        ("--synthetic", 1),
        ("--fusion", "support"),
        ("--image_score", "top"),
        ("--neighbourhood", 3),
        ("--smooth", 2),
        ("--bank_taps", "support"),
        ("--bank_variants", "none"),
        ("--image_score", "cues"),
    ],
    ids=lambda part: f"{part[0][2:]}={part[1]}",
)
def test_each_part_changes_scores_and_is_recalled(lab, part):
    name = "-".join(map(str, part)).strip("-")
    _, plain = trained(lab, "plain", "--folds", 2, "--epoch", 2)
    _, path = trained(lab, name, *part, "--folds", 2, "--epoch", 2)
    image = next((lab.data / "Brain_AD" / "test").rglob("*.png"))
    scores = [Predictor.from_checkpoint(one, data_path=lab.data).predict(image).score for one in (plain, path)]
    changed = part[0] not in ("--epoch_by", "--fusion")  # which may choose the last epoch, or halves
    assert (scores[0] != scores[1]) or not changed
    record = read(path).record["options"]
    assert str(record[part[0][2:]]) in (str(part[1]), str(float(part[1])) if isinstance(part[1], int) else "")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--folds", 1), "--folds 1"),
        (("--image_score", "cues", "--folds", 0), "--folds be 2"),
        (("--head", "linear"), "--image_score cues"),
        (("--epoch_by", "support", "--folds", 0), "--epoch_by support"),
        (("--threshold_rule", "best"), "--threshold_rule"),
        (("--method", "linear", "--recipe", "robust"), "--recipe"),
        (("--synthetic", 1, "--obj", "Chest"), "--synthetic"),
    ],
)
def test_what_contradicts_itself_is_refused(lab, asked, said):
    run = lab.run("train_few", "--obj", "Brain", "--shot", 2, *flags(lab, "refused"), *asked)
    assert run.code == 2 and said in run.err and len(run.err.strip().splitlines()) == 1


def test_weights_are_averaged_over_the_last():
    average = WeightAverage(2)
    for value in (1.0, 2.0, 4.0):
        average.add({"seg_adapters": {"one": torch.tensor([value])}})
    assert average.value()["seg_adapters"]["one"].item() == 3
    none = WeightAverage(1)
    none.add({"seg_adapters": {}})
    assert none.value() is None


def test_runs_that_train_alike_have_one_key(lab):
    def key(**more: object) -> tuple:
        return training_key(few_shot.open_run(spec_of(lab, shot=2, **more), "Brain"))

    assert key() == key(neighbourhood=3, smooth=2.0, image_score="top")
    assert len({key(), key(seed=7), key(synthetic=1), key(ensemble=2), key(prompts="base")}) == 5


def test_top_is_of_the_map_where_nothing_is_masked_too(lab):
    chest = few_shot.open_run(replace(spec_of(lab, shot=2), obj="Chest", image_score="top"), "Chest")
    assert (chest.rule.map_head, chest.rule.mean_head) == ("det", None)
    assert few_shot.open_run(replace(spec_of(lab, shot=2), obj="Chest"), "Chest").rule.mean_head == "det"


def test_tiles_are_scored_by_their_maps(lab):
    _, path = trained(lab, "robust", "--recipe", "robust", "--folds", 3)
    predictor = Predictor.from_checkpoint(path, data_path=lab.data, tile=8, overlap=0)
    assert not predictor.rule.cues and predictor.reader is None and predictor.calibration.cues is None
    image = next((lab.data / "Brain_AD" / "test").rglob("*.png"))
    found = predictor.predict(image)
    assert found.score == pytest.approx(float(found.anomaly_map.max()), abs=0.05)


def test_many_epochs_have_a_short_name_and_none_no_folds(lab):
    run, _ = trained(lab, "many", "--epoch", 90, "--epoch_by", "support", "--folds", 2, "--batch_size", 99, shot=1)
    assert "of 90: the best on folds" in run.out
    trained(lab, "untrained", "--epoch", 0, "--epoch_by", "support", "--folds", 2)


def test_what_onnx_has_no_form_for_is_refused(lab):
    _, path = trained(lab, "robust", "--recipe", "robust", "--folds", 3)
    with pytest.raises(InputError, match="--image_score cues, which has no ONNX form"):
        export({"ckpt": path, "onnx": lab.root / "a.onnx", "data_path": lab.data, "device": "cpu"})
    assert not (lab.root / "a.onnx").exists()

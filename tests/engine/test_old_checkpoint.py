"""Checkpoints that were written before settings were specs load as they did, to the figures that they had then.

`golden/before_specs*` came of train_few.py and train_zero.py at commit 0068977, on the small CLIP of the golden
numbers and trees of noise that are made here again:

    --obj Brain --model_name clip_small.json --clip_path clip_small.safetensors --img_size 56 --features_list 2
    --data_path data --prompts words.json --device cpu, and for few-shot --shot 1 --iterate -1 --epoch 1
    --batch_size 11 --madff sca fab, for transfer --epoch 2 --batch_size 2 --adapter projector
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from helpers.goldens import CONFIG, GOLDEN, WEIGHTS
from helpers.lab import Lab, run

from engine import Predictor, checkpoint, evaluate
from engine.open_checkpoint import open_checkpoint
from engine.recipe import PARTS
from engine.spec import FewShotSpec, FewShotTestSpec, TransferSpec, TransferTestSpec
from runtime.errors import InputError
from scoring.reliability import ThresholdRule

FIGURES = json.loads((GOLDEN / "before_specs.json").read_text(encoding="utf-8"))
CLOSE = {"abs": 1e-4}  # products of other machines may differ in their last bits
KINDS = {  # protocol -> file, spec of training, spec of testing, what it is opened for
    "few": ("before_specs.pth", FewShotSpec, FewShotTestSpec, "few-shot test"),
    "transfer": ("before_specs_transfer.pth", TransferSpec, TransferTestSpec, "transfer test"),
}
RUN = {"save_every", "resume", "restart", "ensemble", "deterministic"}
LATER = {  # settings that came since
    "few": {*RUN, "method", "recipe", "folds", "threshold_rule", *PARTS},
    "transfer": RUN,
}
LATER_FIGURES = {"balanced_accuracy_max"}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where the checkpoints were trained: the paths that they recall are relative to it."""
    monkeypatch.chdir(tmp_path)
    for file in (CONFIG, WEIGHTS, *(GOLDEN / name for name, *_ in KINDS.values())):
        shutil.copy(file, tmp_path)
    lab = Lab(tmp_path, tmp_path / CONFIG.name, tmp_path / WEIGHTS.name)  # words.json lies there now
    lab.medical("Brain")
    return tmp_path


def same(found: object, expected: object) -> bool:
    """Whether nested dicts and lists of numbers, words and None are equal, numbers nearly, but for later figures."""
    if isinstance(expected, dict):
        return found.keys() - LATER_FIGURES == expected.keys() and all(
            same(found[key], value) for key, value in expected.items()
        )
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == (pytest.approx(expected, **CLOSE) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(("script", "kind"), [("test_few", "few"), ("test_zero", "transfer")])
def test_the_scripts_give_the_figures_of_then(place, script, kind):
    done = run(script, "--ckpt", KINDS[kind][0], "--device", "cpu", "--cache_path", "cache")
    assert done.code == 0 and not done.complaints, done.err
    assert "taken anew" not in done.out and "left out" not in done.out  # its own thresholds hold
    name = {"few": "Brain_1-shot", "transfer": "Brain"}[kind]
    record = json.loads((place / "results" / script / name / "results.json").read_text())
    assert same(record["results"], FIGURES[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_public_names_give_them_too(place, kind):
    found = evaluate(KINDS[kind][0], device="cpu", cache_gb=0)
    assert same([asdict(result) for result in found], FIGURES[kind])
    predictor = Predictor.from_checkpoint(KINDS[kind][0], device="cpu", cache_gb=0)
    prediction = predictor.predict(place / "data" / "Brain_AD" / "test" / "good" / "img" / "test_n0.png")
    threshold = checkpoint.read(KINDS[kind][0]).last.calibration.image["fused" if kind == "few" else "zero"]
    assert prediction.threshold == threshold and prediction.abnormal == (prediction.score >= threshold)


def test_its_calibration_is_what_the_support_gives_now(place):
    """But for the image threshold, which was of all variants then and is of the images now."""
    asked = {"device": "cpu"}
    opened = open_checkpoint(Path("before_specs.pth"), FewShotTestSpec, asked, purpose="few-shot test")
    stored, now = opened.load("last").calibration, opened.run.calibrate()
    assert opened.holds and not now.evidence["fused"].held_out and not stored.evidence
    assert same(*(asdict(replace(one, evidence={}, dark={}, image={})) for one in (now, stored)))
    assert now.image.keys() == stored.image.keys()
    assert now.image == {branch: known.threshold(ThresholdRule("balanced")) for branch, known in now.evidence.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_was_recorded_is_understood(place, kind):
    """Every option of then is a setting of now, and a spec made of them says the same."""
    name, trained, tested, purpose = KINDS[kind]
    record = checkpoint.read(name).record
    now = trained.of(record["options"]).plain()
    assert now.items() >= record["options"].items()
    assert now.keys() - record["options"].keys() == LATER[kind]
    spec = open_checkpoint(Path(name), tested, {"device": "cpu"}, purpose=purpose).spec
    kept = ("model_name", "clip_path", "pretrain", "img_size", "features_list", "adapter", "madff", "prompts", "seed")
    assert {key: spec.plain()[key] for key in kept} == {key: record["options"][key] for key in kept}


def test_a_record_of_today_has_the_keys_of_then(place):
    shutil.copytree("data/Brain_AD", "data/Liver_AD")
    flags = ["--model_name", CONFIG.name, "--clip_path", WEIGHTS.name, "--img_size", 56, "--features_list", 2]
    flags += ["--prompts", "words.json", "--device", "cpu", "--epoch", 0, "--cache_gb", 0]
    for script, more, name, kind in (
        ("train_few", ["--shot", 1, "--iterate", -1], "few-shot/Brain_1-shot", "few"),
        ("train_zero", [], "zero-shot/Brain", "transfer"),
    ):
        done = run(script, *flags, *more)
        assert done.code == 0, done.err
        then, now = (checkpoint.read(path).record for path in (KINDS[kind][0], f"ckpt/{name}.pth"))
        assert (
            now.keys() - then.keys()
            == {"sentences", "peak_memory_mb"} | ({"support_sha256"} if kind == "few" else set())
            and now["options"].keys() - then["options"].keys() == LATER[kind]
        )
        assert now.keys() >= then.keys() and now["options"].keys() >= then["options"].keys()
        assert now["environment"].keys() - {"kernels"} == then["environment"].keys()
        assert now["weights_sha256"] == then["weights_sha256"] and now["prompts_sha256"] == then["prompts_sha256"]


def test_records_of_fewer_settings_take_todays_defaults(place):
    """Those that came later: the bank's limit, the precision, the attention's axis."""
    content = torch.load("before_specs.pth", weights_only=True)
    for name in ("bank_cap", "precision", "compile", "madff_axis", "cache_gb", "log_dir"):
        content["record"]["options"].pop(name, None)
    torch.save(content, "older.pth")
    opened = open_checkpoint(Path("older.pth"), FewShotTestSpec, {"device": "cpu"}, purpose="few-shot test")
    assert opened.holds and opened.spec.bank_cap is None and opened.spec.madff_axis == "sequence"


@pytest.mark.parametrize("key", ["obj", "masks", "options", "weights_sha256", "prompts_sha256"])
def test_a_record_that_lacks_what_every_version_wrote_is_refused(place, key):
    content = torch.load("before_specs.pth", weights_only=True)
    del content["record"][key]
    torch.save(content, "broken.pth")
    with pytest.raises(InputError, match=rf"^broken\.pth: not laid out .*its record's {key} is None"):
        checkpoint.read("broken.pth")

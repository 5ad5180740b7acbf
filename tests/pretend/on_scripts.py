"""Every script's path on the pretend device gives the CPU's losses and scores, to the last bit where images go one by
one. Started by test_pretend.py."""

import signal
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from helpers.lab import run
from helpers.predicting import noise, predict
from helpers.promptlab import asked
from pretend.running import Pair, alike, on

from apps.export.exporting import TOLERANCE, ExportSpec, scorer_of
from apps.export.exporting import test_images as checked_images
from apps.export.graph import settle, without_fft
from apps.promptlab.session import LabSession
from dataset import to_unit
from engine.open_checkpoint import open_checkpoint
from engine.training import Log

CKPT = "Brain_1-shot.pth"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Path, Path], device: torch.device) -> Pair:
    """Brain trained on either, as published."""
    pair = Pair.of(tmp_path_factory.mktemp("trained"), tiny, device)
    pair.done("train_few")
    return pair


@pytest.fixture
def pair(tmp_path: Path, tiny: tuple[Path, Path], device: torch.device) -> Pair:
    return Pair.of(tmp_path, tiny, device)


def test_bytes_become_the_same_numbers_there(device):
    every = torch.arange(256, dtype=torch.uint8)
    assert to_unit(every.to(device)).cpu().equal(to_unit(every))


def test_few_shot_testing(trained):
    for _ in ("new to the cache", "known to it"):
        trained.done("test_few")
    trained.near("test_few", "--batch_size", 2, "--cache_gb", 0)


def test_checkpoints_go_from_one_device_to_the_other(trained):
    for lab, other in ((trained.cpu, trained.other), (trained.other, trained.cpu)):
        with on(trained.device if lab is trained.cpu else torch.device("cpu")):
            tested = lab.done("test_few", "--ckpt", other.root / "ckpt" / CKPT, "--shot", 1)
        assert tested.seen


def test_zero_shot_training_and_testing(pair):
    pair.done("train_zero")
    pair.done("test_zero")


def test_recipe_with_folds(pair):
    """Out-of-fold scores, cues, the linear probe, a coreset."""
    more = ["--epoch_by", "support", "--bank_cap", "coreset", "--neighbourhood", 3]
    pair.done("train_few", "--folds", 2, "--recipe", "robust", *more)


def test_ensemble(pair):
    pair.done("train_few", "--ensemble", 2, "--eval_every", 0)


def test_object_without_masks(pair):
    for lab in (pair.cpu, pair.other):
        lab.medical("Chest", masks=None)
    pair.done("train_few", "--obj", "Chest")


@pytest.mark.parametrize("method", ["patchcore", "winclip", "linear"])
def test_baselines(pair, method):
    pair.done("train_few", "--method", method)


def test_resuming_after_a_stop_gives_the_same_bits(pair):
    """Stopped after its first epoch, on the device."""
    lab, flags, add, stopped = pair.other, ["--epoch", 2, "--eval_every", 0], Log.add, []
    flags += ["--deterministic"] if pair.device.type == "cuda" else []

    def stop(self: Log, step: int, **values: float) -> None:
        if "loss" in values and not stopped:
            stopped.append(step)
            signal.raise_signal(signal.SIGTERM)
        add(self, step, **values)

    with on(pair.device):
        with patch.object(Log, "add", stop):
            broken = lab.run("train_few", *flags)
        assert broken.code != 0 and "the same command goes on from there" in broken.err
        again = lab.done("train_few", *flags, "--resume")
        assert "going on after 1 of 2 epochs" in again.out
        resumed = lab.checkpoint().last.adapters
        lab.done("train_few", *flags, "--restart")
    whole = lab.checkpoint().last.adapters
    assert all(resumed[head][name].equal(tensor) for head, part in whole.items() for name, tensor in part.items())


def test_predicting(trained):
    outs = []
    for lab in trained.both:
        for number in range(3):
            noise(lab.root / "new" / f"{number}.png", seed=number)
        outs.append(predict(lab, "--input", lab.root / "new", "--ckpt", lab.root / "ckpt" / CKPT))
    assert [out.code for out in outs] == [0, 0], outs[1].err
    scores = [{name: float(score) for name, score in out.scores.items()} for out in outs]
    assert alike(*scores, trained.device) and len(scores[0]) == 3
    assert all(alike(*(out.map(f"{number}.png").tolist() for out in outs), trained.device) for number in range(3))


def test_the_lab(trained, tmp_path):
    answers = []
    for place, lab in enumerate(trained.both):
        session = LabSession(asked(lab), tmp_path / str(place))
        session.check()
        opened = session.lab("Brain", CKPT)
        names = session.chosen(opened, 2)
        image = next((lab.data / "Brain_AD" / "test" / "Ungood" / "img").iterdir())
        judged = opened.judge(image, opened.start)
        pulls = opened.pulls(opened.predict([session.names(opened)[name] for name in names], opened.start))
        figures = session.answer("Brain", CKPT, names, "name", session.start(opened) * 2).figures
        scores = {branch: float(score) for branch, score in judged.scores.items()}
        answers.append((len(names), scores, judged.findings, pulls, figures))
    assert alike(*answers, trained.device) and answers[0][0] == 4


def test_exporting(trained):
    """The graph, which goes to the CPU before it is traced, and what the file is checked against."""
    found = []
    for lab in trained.both:
        settings = {"device": "cpu", "cache_path": lab.root / "cache"}
        opened = open_checkpoint(lab.root / "ckpt" / CKPT, ExportSpec, settings, purpose="prediction")
        scorer = scorer_of(opened.run, opened.load("last").calibration)
        images = checked_images(opened.run)
        expected = scorer.reference(images)
        without_fft(opened.run.system.decoder, settle(opened.run.system))
        with torch.no_grad():
            assert all(
                torch.allclose(*pair, rtol=0, atol=TOLERANCE) for pair in zip(scorer(images), expected, strict=True)
            )
        found.append(expected)
    assert alike(*([one.tolist() for one in each] for each in found), trained.device)


def test_ranking_prompts(trained):
    ranks = []
    for lab in trained.both:
        usual = ["--device", "cpu", "--cache_path", lab.root / "cache", "--csv", lab.root / "a"]
        ranked = run("prompt", "rank", *usual, "--ckpt", lab.root / "ckpt" / CKPT)
        assert ranked.code == 0, ranked.err
        ranks.append((lab.root / "a").read_text())
    assert alike(*ranks, trained.device) and ranks[0].count("\n") > 4

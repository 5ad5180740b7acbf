"""How often the host waits for the device, and what is copied between them, a training step and a scored batch.
Started by test_pretend.py."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lab import SIZE, Lab
from helpers.predicting import noise
from PIL import Image
from pretend.device import counting
from pretend.running import on

from dataset import ImageSet, Sample, images
from engine import few_shot, held_images, zero_shot
from engine.few_shot_run import FewShotRun
from engine.fold_training import few_shot_steps
from engine.held_images import HOST, NOWHERE, PIXELS, TOKENS, HeldImages
from engine.options import parse
from engine.predictor import Predictor
from engine.score_images import score_images
from engine.spec import FewShotSpec, TransferSpec
from engine.training import Trainer, finite
from runtime.cache import Cache
from runtime.errors import InputError
from scoring.patch_scores import PatchScores

GRID, TAPS, WIDTH = SIZE // 16, 4, 32
IMAGE, SCORES, PREFIX = 3 * SIZE**2, TAPS * GRID**2 * 4, (1 + GRID**2) * WIDTH * 4  # bytes


@pytest.fixture
def data(tmp_path: Path, tiny: tuple[Path, Path], device: torch.device) -> Iterator[Lab]:
    lab = Lab(tmp_path, *tiny)
    lab.medical(test=(3, 3))
    lab.others()
    with on(device):
        yield lab


def opened(lab: Lab, *flags: object) -> FewShotRun:
    given = map(str, [*lab.flags("train_few"), "--folds", 2, "--batch_size", 6, *flags])
    return few_shot.open_run(FewShotSpec.of(parse(FewShotSpec, list(given))), "Brain")


@pytest.mark.parametrize("flags", [(), ("--ensemble", 2), ("--adapter", "mvfa")])
def test_a_few_shot_step_waits_for_nothing(data, flags):
    """In steady state, from the second epoch on: the epoch's rows go in, and its losses come out at the end."""
    run = opened(data, *flags)
    trainer, order, rows = Trainer(run.system, 1e-3), torch.Generator().manual_seed(0), torch.arange(22)
    list(few_shot_steps(run, trainer, order, rows))
    steps, losses = few_shot_steps(run, trainer, order, rows), []
    with counting() as counts:
        losses.append(next(steps))
        assert dict(counts) == {"copies_in": 1, "bytes_in": 22 * 8}
    with counting() as counts:
        losses += steps
        assert len(losses) == 4 and not counts
    with counting() as counts:
        assert len(finite(losses)) == 4
        assert dict(counts) == {"waits": 1, "copies_out": 1, "bytes_out": 4 * 4}


def test_an_epoch_of_a_run_waits_once(data):
    """The whole loop of train_few.py without evaluations: what the second epoch costs."""
    totals = []
    for epochs in (0, 1, 2):  # the first one fills the cache
        with counting() as counts:
            data.done("train_few", "--epoch", epochs, "--folds", 0, "--eval_every", 0, "--branches", "zero")
            totals.append(dict(counts))
    added = {name: count - totals[1][name] for name, count in totals[2].items()}
    assert added == {"waits": 1, "copies_in": 1, "copies_out": 1, "bytes_in": 22 * 8, "bytes_out": 2 * 4}


def test_a_zero_shot_step_waits_for_nothing(data):
    """Prefix tokens, labels and masks of its images go in, one copy each."""
    given = map(str, [*data.flags("train_zero"), "--batch_size", 2])
    run = zero_shot.open_run(TransferSpec.of(parse(TransferSpec, list(given))), "Brain")
    run.system.keeping_pays = True
    trainer, order = Trainer(run.system, 1e-3), torch.Generator().manual_seed(0)
    plan = zero_shot.batches(run.sources, 2, order)
    list(zero_shot._epoch_losses(trainer, run, plan))
    with counting() as counts:
        losses = list(zero_shot._epoch_losses(trainer, run, plan))
        images, masked = 8, 4
        assert len(losses) == 4 and not counts["waits"]
        assert counts["copies_in"] == 3 * 2 + 2 * 2
        assert counts["bytes_in"] == images * (PREFIX + 4) + masked * SIZE**2 * 4


def test_a_loss_that_is_no_number_is_seen_at_the_end_of_its_epoch(data, monkeypatch):
    """On the device the steps go on; nothing is evaluated or saved of it."""
    run = opened(data)
    trainer, order = Trainer(run.system, 1e-3), torch.Generator().manual_seed(0)
    run.kept_prefixes = run.keep_prefixes() * math.nan
    losses = list(few_shot_steps(run, trainer, order, torch.arange(22)))
    with pytest.raises(InputError, match=r"the loss became nan; train with a lower --learning_rate \(nothing was sa"):
        finite(losses)
    for flags in (["--eval_every", 0], ["--eval_every", 1], ["--folds", 2, "--eval_every", 0, "--epoch_by", "support"]):
        with monkeypatch.context() as patched:
            patched.setattr(FewShotRun, "keep_prefixes", lambda self, own=run: own.kept_prefixes)
            broken = data.run("train_few", *flags, "--restart", "--save_every", 1e-6)
        (line,) = broken.complaints
        assert broken.code == 2 and "the loss became nan" in line and "nothing was saved" in line
        assert not list(data.root.rglob("*.pth")) and not list(data.root.rglob("results.json"))


@pytest.mark.parametrize(
    ("branches", "kinds"),
    [("both", 2), ("few", 1), ("zero", 1)],
)
def test_a_scored_batch_goes_in_and_out_once(data, branches, kinds):
    run = opened(data, "--branches", branches)
    assert len(run.test) == 6
    banks, text = run.banks(keep=False), run.scored_text()
    given = (run.system, run.test, run.rule.heads, text, banks)
    score_images(*given, batch_size=3)
    for keep, pays, bytes_in in ((False, True, IMAGE), (True, False, IMAGE), (True, True, IMAGE), (True, True, PREFIX)):
        run.system.keeping_pays = pays
        with counting() as counts:
            score_images(*given, batch_size=3, keep=keep)
        kept = keep and pays and bytes_in == IMAGE  # tokens come out for the cache, once for ever
        assert (counts["copies_in"], counts["copies_out"], counts["waits"]) == (2, 2 + 2 * kept, 2 + 2 * kept)
        assert (counts["bytes_in"], counts["bytes_out"]) == (6 * bytes_in, 6 * (kinds * SCORES + kept * PREFIX))


def equal(found: dict[str, PatchScores], others: dict[str, PatchScores]) -> bool:
    """Whether patch scores are the same to the last bit."""
    pairs = [(found[name], others[name]) for name in found]
    return all(one.zero.equal(other.zero) and one.few.equal(other.few) for one, other in pairs)


@pytest.mark.parametrize(("kind", "bytes_in"), [(TOKENS, 0), (PIXELS, 0), (HOST, IMAGE)])
def test_images_that_are_held_stay_where_they_are(data, monkeypatch, kind, bytes_in):
    """Their files are not even there any more in the second pass, and nothing but scores is copied on the device."""
    monkeypatch.setattr(held_images, "place_for", lambda *given: kind)
    run, held = opened(data), HeldImages()
    given = (run.system, run.test, run.rule.heads, run.scored_text(), run.banks(keep=False))
    first = score_images(*given, batch_size=3, held=held)
    assert held.whole and [len(one) for one in held.batches] == [3, 3]
    for sample in run.test:
        sample.image.unlink()
    with counting() as counts:
        second = score_images(*given, batch_size=3, held=held)
    assert (counts["copies_in"], counts["bytes_in"]) == (2 * (kind == HOST), 6 * bytes_in)
    assert (counts["copies_out"], counts["waits"], counts["bytes_out"]) == (2, 2, 6 * 2 * SCORES)
    assert equal(first, second)


def test_a_pass_that_was_broken_off_is_done_again(data):
    run, held = opened(data), HeldImages()
    begun = held.prefixes(run.system, run.test, 4, 0, False)
    next(begun)
    begun.close()
    assert not held.whole
    assert [len(one) for one in held.prefixes(run.system, run.test, 3, 0, False)] == [3, 3] and held.whole


def test_what_has_no_room_is_read_again(data, monkeypatch):
    monkeypatch.setattr(held_images, "place_for", lambda *given: NOWHERE)
    run, held = opened(data), HeldImages()
    for _ in range(2):
        assert [len(one) for one in held.prefixes(run.system, run.test, 4, 0, False)] == [4, 2]
        assert not held.whole and not held.batches


def test_a_training_decodes_its_test_images_once(data, monkeypatch):
    """Of three epochs with an evaluation each, without the cache."""
    decoded, real = [], images.load_pixels
    monkeypatch.setattr(images, "load_pixels", lambda path, size: decoded.append(path) or real(path, size))
    for script, more in (("train_few", ["--epoch", 3]), ("train_zero", ["--epoch", 1, "--eval_every", 0.5])):
        decoded.clear()
        data.done(script, *more, "--cache_gb", 0)
        tests = [path for path in decoded if "Brain_AD" in path.parts]
        assert sorted(tests) == sorted((data.data / "Brain_AD" / "test").glob("*/img/*"))


@pytest.mark.parametrize("cheaper", [True, False])
def test_whether_tokens_are_kept_is_measured_on_the_first_batch(data, monkeypatch, cheaper):
    """And changes no score."""
    run = opened(data)
    given = (run.system, run.test, run.rule.heads, run.scored_text(), run.banks(keep=False))
    plain = score_images(*given, batch_size=3)
    monkeypatch.setattr("engine.prefix_files.PrefixFiles.seconds", lambda *given: 0 if cheaper else math.inf)
    with counting() as counts:
        assert equal(plain, score_images(*given, batch_size=3, keep=True))
    assert run.system.keeping_pays is cheaper and counts["waits"] == 2 + 2 * 3 * 2 + 2 * cheaper
    entries = sum(run.system.known_prefixes(sample.image) is not None for sample in run.test)
    assert entries == 6 * cheaper
    assert equal(plain, score_images(*given, batch_size=3, keep=True))


def test_seconds_of_the_cache_are_measured(data):
    """Where nothing can be kept they are endless. The image is not known by it."""
    run = opened(data)
    path, prefix = run.test[0].image, run.support.images[:1]
    files = run.system.known_prefixes
    assert 0 < files.seconds(path, run.system.prefix(prefix)[0]) < 60
    assert files(path) is None
    full = replace(files, cache=Cache(data.root / "full", 10))
    assert full.seconds(path, run.system.prefix(prefix)[0]) == math.inf


def test_eight_bits_and_more_go_in_as_floats(data):
    """A batch with a deep image is float32; each image is what it is by itself."""
    run = opened(data)
    deep = data.root / "deep.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 65535, (20, 20), np.uint16)).save(deep)
    own = [*ImageSet([run.test[0], Sample(deep, 0)], SIZE, masks=False)]
    assert [item.image.dtype for item in own] == [torch.uint8, torch.float32] and own[0].mask is None
    with counting() as counts:
        together = run.system.prefixes(own, keep=False)
    assert counts["bytes_in"] == 2 * 4 * IMAGE
    alone = torch.cat([run.system.prefixes([item], keep=False) for item in own])
    assert torch.allclose(together.cpu(), alone.cpu(), atol=1e-5)


def test_a_batch_with_cues_brings_the_probes_tokens_out_too(data):
    """The linear probe works in doubles, on the CPU: bare tokens come out, its value goes back to the other cues."""
    run = opened(data, "--recipe", "robust")
    given = (run.system, run.test, run.rule.heads, run.scored_text(), run.banks(keep=False), run.reader())
    score_images(*given, batch_size=3)
    with counting() as counts:
        found = score_images(*given, batch_size=3)
    cues = len(found["cues"].names)
    assert (counts["copies_in"], counts["copies_out"], counts["waits"]) == (2 * 2, 2 * 2, 2 * 2)
    assert counts["bytes_in"] == 6 * (IMAGE + 4)
    assert counts["bytes_out"] == 6 * (2 * SCORES + cues * 4 + TAPS * GRID**2 * WIDTH * 4)


def test_a_picture_goes_in_once(data):
    """Scores come out, and by another copy what its regions resemble."""
    data.done("train_few", "--epoch", 0)
    predictor = Predictor.from_checkpoint(data.root / "ckpt" / "Brain_1-shot.pth", cache_path=str(data.root / "cache"))
    picture = noise(data.root / "a.png")
    predictor.predict(picture)
    with counting() as counts:
        predictor.predict(picture)
    assert (counts["copies_in"], counts["bytes_in"], counts["copies_out"], counts["waits"]) == (1, IMAGE, 2, 2)

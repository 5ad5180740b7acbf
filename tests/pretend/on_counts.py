"""How often the host waits for the device, and what is copied between them, a training step and a scored batch.
Started by test_pretend.py."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.lab import SIZE, Lab
from helpers.predicting import noise
from pretend.device import counting
from pretend.running import on

from engine import few_shot, zero_shot
from engine.few_shot_run import FewShotRun
from engine.fold_training import few_shot_steps
from engine.options import parse
from engine.predictor import Predictor
from engine.score_images import score_images
from engine.spec import FewShotSpec, TransferSpec
from engine.training import Trainer, finite
from runtime.errors import InputError

GRID, TAPS, WIDTH = SIZE // 16, 4, 32
IMAGE, SCORES, PREFIX = 3 * SIZE**2 * 4, TAPS * GRID**2 * 4, (1 + GRID**2) * WIDTH * 4  # bytes


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
    for keep, bytes_in in ((False, IMAGE), (True, IMAGE), (True, PREFIX)):
        with counting() as counts:
            score_images(*given, batch_size=3, keep=keep)
        kept = keep and bytes_in == IMAGE  # tokens come out for the cache, once for ever
        assert (counts["copies_in"], counts["copies_out"], counts["waits"]) == (2, 2 + 2 * kept, 2 + 2 * kept)
        assert (counts["bytes_in"], counts["bytes_out"]) == (6 * bytes_in, 6 * (kinds * SCORES + kept * PREFIX))


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

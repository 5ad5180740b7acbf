"""What an unfinished training goes on from: the same bits, or a refusal."""

import random

import numpy as np
import pytest
import torch

from decoder import MDecoder
from engine import unfinished
from engine.checkpoint import Snapshot
from engine.unfinished import Progress, TrainingHistory
from engine.weight_average import WeightAverage
from runtime.errors import InputError


@pytest.fixture
def decoder(clip) -> MDecoder:
    torch.manual_seed(0)
    return MDecoder(clip, adapter="mvfa")


def optimizers(decoder: MDecoder) -> dict[str, torch.optim.Adam]:
    return {
        "seg": torch.optim.Adam(decoder.seg_adapters.parameters()),
        "det": torch.optim.Adam(decoder.det_adapters.parameters()),
    }


def stepped(decoder: MDecoder, both: dict[str, torch.optim.Adam]) -> None:
    for parameter in (*decoder.seg_adapters.parameters(), *decoder.det_adapters.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
    for one in both.values():
        one.step()


def drawn(order: torch.Generator) -> list[float]:
    """The next draw of every generator."""
    own = [torch.rand(1, generator=order).item(), torch.rand(1).item()]
    return [*own, float(np.random.rand()), random.random()]  # noqa: NPY002


@pytest.mark.parametrize("best", ["none", "last", "another"])
def test_there_and_back(tmp_path, decoder, clip, best):
    order, both = torch.Generator().manual_seed(3), optimizers(decoder)
    stepped(decoder, both)
    history = TrainingHistory.untrained(decoder)
    if best != "none":
        history.best = history.last if best == "last" else Snapshot(0.4, decoder.adapter_state(), None)
        history.best_value = 1.25
    average = WeightAverage(3)
    average.add(decoder.adapter_state())
    progress = Progress(history, unfinished.random_states(order), average, 7, [0.5, 0.1 + 0.2], True, 12.5)
    unfinished.save(tmp_path / "a.pth", progress, decoder, both)
    expected = drawn(order)
    stepped(decoder, both)
    after = decoder.adapter_state()

    other = MDecoder(clip, adapter="mvfa")
    theirs, order = optimizers(other), torch.Generator().manual_seed(9)
    found = unfinished.load(tmp_path / "a.pth", other, theirs, order)
    assert drawn(order) == expected
    assert (found.steps, found.losses, found.evaluated, found.seconds) == (7, [0.5, 0.1 + 0.2], True, 12.5)
    assert found.history.best_value == history.best_value
    (kept,) = found.average.states
    assert all(tensor.equal(average.states[0][head][name]) for head in kept for name, tensor in kept[head].items())
    assert (found.history.best is found.history.last) == (best == "last")
    assert (found.history.best is None) == (best == "none")
    stepped(other, theirs)  # the optimisers' own state matters here
    assert all(
        after[head][name].equal(tensor) for head, part in other.adapter_state().items() for name, tensor in part.items()
    )


def test_a_gpus_random_states_come_back_too(monkeypatch, tmp_path, decoder):
    """On a mock of two GPUs."""
    states = [torch.arange(16, dtype=torch.uint8), torch.arange(16, dtype=torch.uint8) + 1]
    restored, order, both = [], torch.Generator().manual_seed(1), optimizers(decoder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.append)
    draws = unfinished.random_states(order)
    progress = Progress(TrainingHistory.untrained(decoder), draws, WeightAverage(1))
    unfinished.save(tmp_path / "a.pth", progress, decoder, both)
    unfinished.load(tmp_path / "a.pth", decoder, both, order)
    ((first, second),) = restored
    assert first.equal(states[0]) and second.equal(states[1])


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "empty", "text", "another format"])
def test_a_damaged_file_is_refused(tmp_path, decoder, damage):
    path, order, both = tmp_path / "a.pth", torch.Generator(), optimizers(decoder)
    unfinished.save(
        path,
        Progress(TrainingHistory.untrained(decoder), unfinished.random_states(order), WeightAverage(1)),
        decoder,
        both,
    )
    content = bytearray(path.read_bytes())
    if damage == "another format":
        torch.save(torch.load(path, weights_only=True) | {"format": 99}, path)
    elif damage == "a flipped bit":
        weight = decoder.seg_adapters[0].fc1[0].weight.detach().numpy().tobytes()
        content[content.index(weight) + 100] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes({"cut short": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(InputError, match=r"a\.pth \(--restart begins anew\): the unfinished training"):
        unfinished.load(path, decoder, both, order)


def test_several_objects_go_on_with_those_that_are_not_finished(lab):
    """A finished one is not trained again; --resume of one object alone still wants an unfinished run."""
    lab.mvtec("mpdd/tubes")
    lab.mvtec("mpdd/connector")
    flags = ["--epoch", 1, "--eval_every", 0, "--obj"]
    lab.done("train_few", *flags, "mpdd/tubes")
    before = lab.results("train_few/mpdd_tubes_1-shot")["results"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dataset.expand", lambda obj: ["mpdd/tubes", "mpdd/connector"])
        again = lab.done("train_few", *flags, "mpdd", "--resume")
    assert "mpdd/tubes: finished before" in again.out and again.out.count("checkpoint:") == 1
    assert lab.results("train_few/mpdd_tubes_1-shot")["results"] == before
    assert "no unfinished run of these settings" in lab.run("train_few", *flags, "mpdd/tubes", "--resume").err

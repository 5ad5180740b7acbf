"""benchmarks/speed.py on another device than the CPU. Started by test_pretend.py."""

from pathlib import Path

import pytest
import torch
from helpers.lab import SIZE
from pretend.device import WAITING, counting

import CLIP
from benchmarks import speed, timing
from engine.system import System
from runtime import devices


@pytest.fixture
def tiny_speed(tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The benchmark of the tiny CLIP; its weights."""

    def trunk(device: torch.device):
        model, image = CLIP.load_clip(*tiny).to(device), torch.rand(1, 3, SIZE, SIZE).to(device)
        return lambda: model.encode_image(image)

    given = {"MODEL": tiny[0], "SIZE": SIZE, "trunk": trunk, "PROMPTS": 20, "SHOT": 1, "REPEATS": 2, "TOGETHER": 3}
    for name, value in given.items():
        monkeypatch.setattr(speed, name, value)
    return tiny[1]


def test_the_clock_is_read_when_the_device_is_done(device):
    with counting() as counts:
        assert devices.timed(lambda: torch.ones(3, device=device) + 1, device) >= 0
    assert dict(WAITING) == {"synchronize": 2} and counts["waits"] == 2
    with counting() as counts:
        devices.timed(lambda: None, torch.device("cpu"))
    assert not counts


def test_what_the_device_cannot_do_is_left_out(device, capsys):
    def impossible() -> None:
        raise NotImplementedError("no such operator\nhere")

    assert set(timing.in_turns({"T": lambda: None, "a": impossible}, 2, device)) == {"T"}
    assert capsys.readouterr().out == f"a: left out, since it fails on {device}: no such operator\n"
    with pytest.raises(NotImplementedError):
        timing.in_turns({"a": impossible}, 2)


@pytest.mark.parametrize("part", ["test", "step", "text"])
@pytest.mark.parametrize("kind", ["pretend", "cpu"])
def test_rows_are_of_the_device(device, tiny_speed, tmp_path, monkeypatch, part, kind):
    device = torch.device(kind, 0) if kind == device.type else torch.device(kind)
    seen, tokens = set(), System.tokens

    def noting(self: System, *given: object):
        seen.add(self.device)
        return tokens(self, *given)

    monkeypatch.setattr(System, "tokens", noting)
    monkeypatch.setattr(torch, "compile", lambda run, options: run)
    rows = speed.PARTS[part](tmp_path, tiny_speed, device)
    assert all(value > 0 for value in rows.values()) and seen <= {device}
    expected = {
        "test": {"test image", "test image seen before", speed.SEVERAL, "bare trunk by our products"},
        "step": {"training step, its prefix known", "one adapter"},
        "text": {"a prompt of 1,000", "a changed prompt of 1,000, tower loaded", "1,000 prompts, second run"},
    }
    if kind == "cpu":
        expected["test"].remove(speed.SEVERAL)
    assert expected[part] | {"T in seconds"} <= set(rows)
    assert set(rows) - {"T in seconds"} <= set(speed.LIMITS)


def test_a_device_has_a_table_of_its_own(device, tmp_path, monkeypatch):
    """And says nothing of what is at most allowed, which is of the CPU."""
    monkeypatch.setattr(speed, "OUT", tmp_path)
    monkeypatch.setattr(speed, "kind", lambda device: "amd" if device.type == "cpu" else device.type)
    found = {"test": {"commit": "abc", "T": 0.5, "rows": {"test image": 1.25}}}
    speed.write(found, device)
    speed.write(found, torch.device("cpu"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "speed_amd.json",
        "speed_amd.md",
        "speed_pretend.json",
        "speed_pretend.md",
    ]
    own, cpu = ((tmp_path / name).read_text() for name in ("speed_pretend.md", "speed_amd.md"))
    assert "--device pretend`: pretend (" in own and "| test image | 1.25 T |  | 0.5 s | abc |" in own
    assert "--device" not in cpu and "| test image | 1.25 T | 0.62 T | 0.5 s | abc |" in cpu

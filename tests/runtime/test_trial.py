"""Trials: measured once a machine, read from then on, and never a reason to fail."""

import json

import platformdirs
import pytest

from runtime import trial
from runtime.trial import remembered


@pytest.fixture
def file(monkeypatch, tmp_path):
    """Where trials are remembered in this test."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    return tmp_path / "cache" / "trials.json"


def counted(calls: list[str]) -> dict:
    return {name: lambda name=name: calls.append(name) for name in ("one", "other")}


def test_measured_once_and_then_read(file):
    calls: list[str] = []
    found = remembered("products", counted(calls))
    assert found.keys() == {"one", "other"} and all(seconds > 0 for seconds in found.values())
    assert len(calls) == 2 * (1 + trial.ROUNDS) and calls[:4] == ["one", "other", "one", "other"]  # in turns
    assert remembered("products", counted(calls)) == found and len(calls) == 2 * (1 + trial.ROUNDS)


def test_another_trial_or_machine_is_measured_by_itself(file, monkeypatch):
    calls: list[str] = []
    first = remembered("products", counted(calls))
    remembered("others", counted(calls))
    monkeypatch.setattr(trial, "processor", lambda: "another")
    remembered("products", counted(calls))
    assert len(calls) == 6 * (1 + trial.ROUNDS)
    kept = json.loads(file.read_text())
    assert sorted(map(sorted, kept.values())) == [["others", "products"], ["products"]]
    assert first in [trials["products"] for trials in kept.values()]


def test_other_calls_under_a_name_are_measured_anew(file):
    calls: list[str] = []
    remembered("products", {"one": lambda: calls.append("one")})
    assert remembered("products", counted(calls)).keys() == {"one", "other"}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"m": 1}', '{"m": {"p": {"one": "fast"}}}', '{"m": {"p": {"one": NaN}}}', "[" * 100_000],
)
def test_a_damaged_file_is_measured_over(file, content):
    file.parent.mkdir()
    file.write_text(content)
    calls: list[str] = []
    found = remembered("products", counted(calls))
    assert calls and [trials["products"] for trials in json.loads(file.read_text()).values()] == [found]


def test_where_nothing_can_be_written(monkeypatch, tmp_path):
    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "a file" / "cache")
    calls: list[str] = []
    assert remembered("products", counted(calls)).keys() == {"one", "other"}

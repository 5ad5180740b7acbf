"""What is kept is found again, bounded, and never trusted when it is damaged."""

import os

import pytest
import torch
from torch import Tensor

from runtime.cache import Cache, key_of

GENERATOR = torch.Generator().manual_seed(0)


def entry(numbers: int = 1000) -> dict[str, Tensor]:
    """About 4 · `numbers` bytes."""
    return {"x": torch.randn(numbers, generator=GENERATOR), "n": torch.tensor([1, 2])}


def test_there_and_back(tmp_path):
    cache, kept = Cache(tmp_path, 1e6), entry()
    assert cache.get(key_of("a")) is None
    cache.put(key_of("a"), kept)
    found = Cache(tmp_path, 1e6).get(key_of("a"))
    assert found.keys() == kept.keys() and all(found[name].equal(kept[name]) for name in kept)


def test_keys_tell_their_parts_apart():
    keys = [key_of(*parts) for parts in (("ab",), ("a", "b"), ("a", b"b"), (1, 2), (12,), ((1, 2),), (1.0, 2), (None,))]
    assert len(set(keys)) == len(keys) and key_of("a", 1) == key_of("a", 1)


@pytest.mark.parametrize("spoil", ["flip a bit", "cut short", "empty"])
def test_a_damaged_entry_is_not_trusted(tmp_path, spoil):
    cache = Cache(tmp_path, 1e6)
    cache.put(key_of("a"), entry())
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes({"flip a bit": bytes(content), "cut short": bytes(content[:-100]), "empty": b""}[spoil])
    assert cache.get(key_of("a")) is None
    cache.put(key_of("a"), entry())
    assert cache.get(key_of("a")) is not None


def test_the_longest_unused_entry_of_earlier_runs_makes_room(tmp_path):
    earlier = Cache(tmp_path, 1e6)
    for age, name in enumerate("cba"):
        earlier.put(key_of(name), entry())
        path = earlier._path(key_of(name))
        os.utime(path, (1e9 + age, 1e9 + age))
    now = Cache(tmp_path, 3 * 4600)
    assert now.get(key_of("c")) is not None  # the oldest, used again
    now.put(key_of("new"), entry())
    there = {name for name in ("a", "b", "c", "new") if Cache(tmp_path, 1e6).get(key_of(name)) is not None}
    assert there == {"a", "c", "new"}


def test_what_this_run_uses_stays(tmp_path):
    """A set that does not fit comes round and round: what came first must stay, or nothing is ever found."""
    cache = Cache(tmp_path, 3 * 4600)
    for name in "abcde":
        cache.put(key_of(name), entry())
    assert [cache.get(key_of(name)) is not None for name in "abcde"] == [True] * 3 + [False] * 2
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 3 * 4600


def test_an_entry_written_again_counts_once(tmp_path):
    earlier = Cache(tmp_path, 1e6)
    earlier.put(key_of("a"), entry())
    for cache in (earlier, Cache(tmp_path, 3 * 4600)):
        for _ in range(9):
            assert cache.get(key_of("a")) is not None
            cache.put(key_of("a"), entry())
    cache.put(key_of("b"), entry())
    assert cache.get(key_of("a")) is not None and cache.get(key_of("b")) is not None
    cache.put(key_of("a"), entry(9000))  # too large: the one before stays, and counts
    assert cache.get(key_of("a")) is not None and cache.size < 3 * 4600


def test_without_room_nothing_is_written(tmp_path):
    cache = Cache(tmp_path / "none", 0)
    cache.put(key_of("a"), entry())
    assert cache.get(key_of("a")) is None and not (tmp_path / "none").exists()


def test_a_folder_that_can_not_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "below", 1e6)
    cache.put(key_of("a"), entry())
    assert cache.get(key_of("a")) is None

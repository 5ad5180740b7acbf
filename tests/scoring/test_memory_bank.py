"""The memory bank built image by image, limited, and searched without an image's own tokens."""

import pytest
import torch
import torch.nn.functional as F
from helpers.parts import bank_of
from torch import Tensor

from runtime.errors import InputError
from runtime.linear import packs
from scoring import memory_bank
from scoring.memory_bank import PROJECTED, BankLimit, MemoryBank, greedy_coreset

IMAGES, LENGTH, TAPS, WIDTH = 6, 5, 2, 8


def tokens() -> list[Tensor]:
    """(N, L, h) a tap."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(IMAGES, LENGTH, WIDTH, generator=generator) for _ in range(TAPS)]


WHOLE = BankLimit()


def built(limit: BankLimit = WHOLE, seed: int = 0) -> MemoryBank:
    """Image 0 and 1 are of owner 0, 2 and 3 of owner 1, ..."""
    images = (([level[[number]] for level in tokens()], number // 2) for number in range(IMAGES))
    return MemoryBank.build(images, IMAGES, limit, seed)


def test_image_by_image_is_all_at_once():
    for level, whole in zip(built().levels, bank_of(tokens()).levels, strict=True):
        assert level.equal(whole)
    assert built().owners[0].tolist() == [owner for owner in range(3) for _ in range(2 * LENGTH)]


def test_an_owner_left_out_is_not_found():
    bank, queries = built(), tokens()[0][2:3]
    assert torch.allclose(bank.distance(0, queries), torch.zeros(1, LENGTH - 1), atol=1e-6)
    others = bank_of([level[[0, 1, 4, 5]] for level in tokens()])
    assert torch.allclose(bank.distance(0, queries, without=[1]), others.distance(0, queries), atol=1e-6)


@pytest.mark.parametrize(
    "limit", [BankLimit(7), BankLimit(7, coreset=True), BankLimit(None, coreset=True), BankLimit(1000)]
)
def test_a_limit_keeps_some_of_the_tokens_by_the_seed(limit):
    total = IMAGES * LENGTH
    expected = min(total, limit.tokens or total // 10)
    bank, whole = built(limit), bank_of(tokens())
    for tap in range(TAPS):
        assert bank.levels[tap].shape == (expected, WIDTH) and bank.owners[tap].shape == (expected,)
        rows = [(whole.levels[tap] == token).all(dim=1).nonzero().item() for token in bank.levels[tap]]
        assert rows == sorted(set(rows))  # real tokens, none twice
        assert [row // (2 * LENGTH) for row in rows] == bank.owners[tap].tolist()
    assert all(one.equal(other) for one, other in zip(bank.levels, built(limit).levels, strict=True))
    if expected < total:
        assert not built(limit, seed=1).levels[0].equal(bank.levels[0])


def test_a_coresets_points_are_the_farthest_from_those_before():
    points = torch.tensor([[0.0], [0.1], [10.0], [10.1], [5.0], [5.1]])
    chosen = points[greedy_coreset(points, 3, torch.Generator().manual_seed(0))][:, 0]
    assert sorted(chosen.round().tolist()) == [0.0, 5.0, 10.0]


def test_a_coreset_covers_better_than_chance():
    generator = torch.Generator().manual_seed(0)
    dense, rare = torch.randn(1, 200) + 0.01 * torch.randn(500, 200, generator=generator), torch.randn(20, 200)
    points = F.normalize(torch.cat([dense, rare]), dim=1)
    assert points.shape[1] > PROJECTED
    chosen = greedy_coreset(points, 25, generator)
    assert set(range(500, 520)) <= set(chosen.tolist())


def test_there_and_back_through_tensors():
    bank = built(BankLimit(9))
    other = MemoryBank.from_tensors(bank.tensors(), torch.device("cpu"))
    assert all(one.equal(two) for one, two in zip(bank.levels + bank.owners, other.levels + other.owners, strict=True))


def test_limits_in_words():
    assert BankLimit.parse(None) == BankLimit() and BankLimit.parse("20000") == BankLimit(20000)
    assert BankLimit.parse("coreset") == BankLimit(None, True) and BankLimit.parse("coreset:500") == BankLimit(
        500, True
    )
    for text in ("x", "coreset:", "0", "-3", "random:5", "1.5", "coreset:x", ""):
        with pytest.raises(InputError, match="--bank_cap"):
            BankLimit.parse(text)


@pytest.mark.skipif(not packs(torch.bfloat16), reason="this machine has no products in 16 bits")
def test_sought_in_16_bits_cosines_are_still_those_of_float32(monkeypatch):
    monkeypatch.setattr(memory_bank, "CHUNK", 100)
    level, queries = torch.randn(1000, 64), torch.randn(2, 30, 64)
    owners = [torch.arange(1000) // 50]
    exact = MemoryBank([F.normalize(level, dim=1)], owners)
    quick = MemoryBank(exact.levels, owners, search=torch.bfloat16)
    assert quick.search is torch.bfloat16 and exact.search is None
    chunk_left_out = tuple(range(2, 8))  # all of the chunks 1, 2 and 3
    for without in ((), (3,), chunk_left_out, tuple(range(19))):
        found, expected = (bank.nearest(0, queries, without) for bank in (quick, exact))
        cosines = F.normalize(queries, dim=-1) @ exact.levels[0].T
        there = (1 - found[..., None] - cosines[..., ~torch.isin(owners[0], torch.tensor(without))]).abs()
        assert (there.amin(dim=-1) < 1e-6).all()  # a token's own cosine, to float32's roundings
        assert (found - expected).abs().max() < 0.01 and (found >= expected - 1e-6).all()
        assert ((found - expected).abs() < 1e-6).double().mean() > 0.9  # mostly the nearest itself
    near = F.normalize(queries + 0.1 * torch.randn_like(queries), dim=-1)
    assert torch.equal(quick.nearest(0, near), torch.cat([quick.nearest(0, one[None]) for one in near]))


def test_sought_in_float32_where_the_machine_has_nothing_else(monkeypatch):
    monkeypatch.setattr(memory_bank, "packs", lambda dtype: False)
    assert MemoryBank([torch.eye(3)], search=torch.bfloat16).search is None

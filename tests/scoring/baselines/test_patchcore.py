"""PatchCore on hand-made tokens."""

import pytest
import torch
from torch import Tensor

from scoring.baselines import MAP
from scoring.baselines.patchcore import CORESET, PatchCore, descriptors, inner_taps
from scoring.memory_bank import BankLimit, neighbourhood_means

GRID, WIDTH, TAPS = 4, 6, 4


def tokens(seed: int, images: int = 1) -> list[Tensor]:
    """(B, L, C) a tap."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 1 + GRID**2, WIDTH, generator=generator) for _ in range(TAPS)]


def fitted(*seeds: int, limit: BankLimit = CORESET) -> PatchCore:
    return PatchCore.fit([descriptors(tokens(seed)) for seed in seeds], limit, seed=0)


@pytest.mark.parametrize(("taps", "inner"), [(4, [1, 2]), (3, [1]), (2, [0, 1]), (1, [0]), (6, [1, 2, 3, 4])])
def test_the_inner_taps(taps, inner):
    levels = [torch.full((1,), float(tap)) for tap in range(taps)]
    assert [int(level) for level in inner_taps(levels)] == inner


def test_a_neighbourhood_is_the_mean_of_what_is_there():
    patches = torch.arange(9.0).view(1, 9, 1)  # 0 1 2 / 3 4 5 / 6 7 8
    means = neighbourhood_means(patches, 3).flatten().tolist()
    assert means == [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0]


def test_descriptors_are_unit_parts_of_the_inner_taps_without_the_class_token():
    levels = tokens(0, images=2)
    found = descriptors(levels)
    assert found.shape == (2, GRID**2, 2 * WIDTH)
    assert torch.allclose(found[..., :WIDTH].norm(dim=-1), torch.ones(2, GRID**2))
    other = [level.clone() for level in levels]
    for level in (other[0], other[3]):  # the outer taps
        level += 1
    for level in other:
        level[:, 0] += 1
    assert descriptors(other).equal(found)
    other[1][:, 5] += 1
    assert not descriptors(other).equal(found)


def test_a_known_image_is_at_no_distance_and_another_is():
    whole = fitted(0, 1, limit=BankLimit())
    known, new = (whole.score(tokens(seed))[MAP] for seed in (0, 7))
    assert known.zero is None and known.few.shape == (1, 1, GRID, GRID)
    assert torch.allclose(known.few, torch.zeros(()), atol=1e-6) and new.few.min() > 0.01


def test_a_distance_is_one_less_the_highest_cosine():
    bank, image = (descriptors(tokens(seed))[0] for seed in (0, 1))
    cosines = torch.nn.functional.cosine_similarity(image[:, None], bank[None], dim=-1)
    found = fitted(0, limit=BankLimit()).score(tokens(1))[MAP].few
    assert torch.allclose(found.flatten(), 1 - cosines.amax(dim=1), atol=1e-6)


def test_the_coreset_keeps_a_tenth_or_what_is_said():
    seeds = range(10)
    assert len(fitted(*seeds).bank.levels[0]) == 16  # of 160
    assert len(fitted(*seeds, limit=BankLimit(7, coreset=True)).bank.levels[0]) == 7
    assert fitted(*seeds).tensors()["level0"].equal(fitted(*seeds).tensors()["level0"])


def test_a_batch_is_scored_as_one_by_one():
    model = fitted(0, 1)
    whole = model.score(tokens(3, images=3))[MAP].few
    parts = [model.score([level[row : row + 1] for level in tokens(3, images=3)])[MAP].few for row in range(3)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-6)

"""Cues: read off tokens, weighed by what they told the support apart."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from runtime.errors import InputError
from scoring.baselines.linear import LinearProbe, features
from scoring.cues import FLOOR, CueReader, Cues, CueWeights
from scoring.memory_bank import BankLimit, MemoryBank

TAPS, TOKENS, WIDTH = 2, 17, 8


@pytest.fixture
def levels():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, TOKENS, WIDTH, generator=generator) for _ in range(TAPS)]


@pytest.fixture
def text():
    return F.normalize(torch.randn(WIDTH, 2, generator=torch.Generator().manual_seed(1)), dim=0)


def bank_of(levels, rows):
    images = (([level[row : row + 1] for level in levels], row) for row in rows)
    return MemoryBank.build(images, len(rows), BankLimit(), 0)


def test_cues_by_hand(levels, text):
    probe = LinearProbe.fit(features(levels), torch.tensor([0.0, 1, 1]))
    found = CueReader(text, bank_of(levels, [0]), probe).read(levels, levels)
    named = dict(zip(found.names, found.values.T, strict=True))
    assert list(named) == ["bank peak", "bank mean", "text peak", "text mean", "text whole", "linear"]
    unit = [F.normalize(level, dim=-1) for level in levels]
    distance = sum(1 - (level[:, 1:] @ level[0].T).amax(dim=-1) for level in unit)  # (3, P)
    assert torch.allclose(named["bank peak"], distance.amax(dim=1), atol=1e-5)
    assert torch.allclose(named["bank mean"], distance.mean(dim=1), atol=1e-5)
    axis = text[:, 1] - text[:, 0]
    likeness = sum((100 * level[:, 1:] @ axis).sigmoid() for level in unit)
    assert torch.allclose(named["text mean"], likeness.mean(dim=1), atol=1e-4)
    assert torch.allclose(named["text whole"], 100 * unit[-1][:, 0] @ axis, atol=1e-4)
    assert torch.allclose(named["linear"], probe.decide(features(levels)).float())


def test_what_is_missing_gives_no_cue(levels, text):
    assert CueReader(text, None, None).read(levels, levels).names == ("text peak", "text mean", "text whole")
    assert CueReader(None, bank_of(levels, [0]), None).read(levels, levels).names == ("bank peak", "bank mean")


def test_owners_are_left_out(levels):
    both, bank = CueReader(None, bank_of(levels, [1]), None), bank_of(levels, [0, 1])
    without = CueReader(None, bank, None, (0,)).read(levels, levels).values
    assert torch.equal(without, both.read(levels, levels).values)
    assert not torch.equal(without, CueReader(None, bank, None).read(levels, levels).values)


def cues(*columns):
    return Cues(torch.tensor(columns, dtype=torch.float32).T, tuple(f"cue {place}" for place in range(len(columns))))


def test_weights_by_auroc_shrunk():
    """The first tells all apart, the second half of what it could, the third nothing, the fourth never changes."""
    known, labels = cues([0, 1, 4, 5], [0, 2, 1, 3], [0, 1, 0, 1], [7, 7, 7, 7]), np.array([0, 0, 1, 1])
    found = CueWeights.fit(known, labels)
    weights = np.array(found.weights)
    assert weights / weights[0] == pytest.approx((1, FLOOR + (1 - FLOOR) * 0.5, FLOOR, 0))
    assert found.centers[0] == 2.5 and found.spreads[0] == pytest.approx(0.5)
    scores = found.scores(known)
    assert scores.min() == 0 and scores.max() == 1
    assert torch.equal(scores, found.scores(known[[0, 1, 2, 3]]))


def test_one_half_is_the_maps():
    """Whatever it tells apart: its deviation within the labels is that of the cues' sum."""
    known, labels = cues([0, 1, 4, 5], [0, 2, 1, 3]).beside(torch.tensor([0.4, 0.2, 0.3, 0.1])), np.array([0, 0, 1, 1])
    found = CueWeights.fit(known, labels)
    assert found.names == ("cue 0", "cue 1", "map") and found.weights[-1] == 1
    standard = (known.values.double().numpy() - found.centers) / found.spreads
    for part in (standard[:, :2] @ found.weights[:2], standard[:, 2]):
        assert np.mean([part[labels == label].var() for label in (0, 1)]) == pytest.approx(1)


def test_of_normal_images_alone_all_cues_weigh_the_same():
    found = CueWeights.fit(cues([0, 2], [10, 30]).beside(torch.tensor([0.0, 0.5])), np.zeros(2, int))
    assert found.weights == (0.5, 0.5, 1) and found.centers == (1, 20, 0.25) and found.spreads == (1, 10, 0.25)


def test_other_cues_than_weights_are_of():
    found = CueWeights.fit(cues([0, 2], [10, 30]), np.zeros(2, int))
    with pytest.raises(InputError, match="by the cues cue 0, cue 1, and there are cue 0; train again"):
        found.scores(cues([1, 2]))


def test_a_score_does_not_depend_on_its_company():
    found, many = CueWeights.fit(cues([0, 1, 4, 5.5]), np.array([0, 0, 1, 1])), cues([0.1, 0.7, 9.3])
    together = found.scores(many)
    assert all(torch.equal(together[place], found.scores(many[[place]])[0]) for place in range(3))


def test_joined_and_put_back():
    known = cues([1, 2, 3])
    assert torch.equal(Cues.join([known[:1], known[1:]]).values, known.values)
    room = known.room(3)
    room.put(0, known[:2])
    room.put(2, known[2:])
    assert torch.equal(room.values, known.values) and room.names == known.names and len(room) == 3

"""The linear probe on hand-made tokens: its fit, and a map that sums up to the decision value."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from scoring.baselines import IMAGE, MAP
from scoring.baselines.linear import LinearProbe, features, moments

GRID, WIDTH, TAPS, IMAGES = 3, 5, 2, 12
LABELS = (torch.arange(IMAGES) % 3 == 0).float()  # 4 abnormal, 8 normal


def tokens() -> list[Tensor]:
    """(B, L, C) a tap; the abnormal images have one patch that is far out."""
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(IMAGES, 1 + GRID**2, WIDTH, generator=generator) for _ in range(TAPS)]
    for level in levels:
        level[LABELS == 1, 4, 2] += 6
    return levels


@pytest.fixture
def probe() -> LinearProbe:
    return LinearProbe.fit(features(tokens()), LABELS)


def test_features_are_means_then_deviations_of_the_patches():
    found = features(tokens())
    assert found.shape == (IMAGES, 2 * TAPS * WIDTH) and found.dtype == torch.float64
    patches = tokens()[1][3, 1:].double()  # the second tap of an image
    assert torch.allclose(found[3, WIDTH : 2 * WIDTH], patches.mean(dim=0))
    centred = patches - patches.mean(dim=0)
    assert torch.allclose(found[3, 3 * WIDTH :], centred.square().mean(dim=0).sqrt())


def test_decisions_are_those_of_the_fit_on_standardised_features(probe):
    described = features(tokens()).numpy()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", max_iter=10_000))
    expected = pipeline.fit(described, LABELS.numpy()).decision_function(described)
    assert probe.decide(features(tokens())).numpy() == pytest.approx(expected, abs=1e-9)
    assert ((probe.decide(features(tokens())) > 0) == (LABELS == 1)).all()


def test_the_evidence_sums_up_to_the_decision_value(probe):
    evidence, values = probe.evidence(tokens()), probe.decide(features(tokens()))
    assert evidence.shape == (IMAGES, GRID**2)
    assert torch.allclose(evidence.sum(dim=1), values, atol=1e-10)
    assert values.abs().min() > 1e-3


def test_the_evidence_lies_where_an_image_is_abnormal(probe):
    assert (probe.evidence(tokens())[LABELS == 1].argmax(dim=1) == 3).float().mean() >= 0.75  # token 4 is patch 3


def test_a_channel_that_does_not_vary_adds_nothing_by_its_deviation(probe):
    levels = [level[:1].clone() for level in tokens()]
    levels[0][:, :, 1] = 0.5
    assert moments(levels)[1][0, 0, 1] == 0
    evidence = probe.evidence(levels)
    assert evidence.isfinite().all()
    assert evidence.sum().item() == pytest.approx(probe.decide(features(levels)).item(), abs=1e-10)


def test_a_feature_that_never_varies_is_no_fault():
    levels = tokens()
    levels[0][:, :, 0] = 1.0
    fitted = LinearProbe.fit(features(levels), LABELS)
    assert all(part.isfinite().all() for part in fitted.tensors().values())


def test_scores_hold_the_decision_value_in_a_grid_of_one(probe):
    found = probe.score(tokens())
    assert found[MAP].few.shape == (IMAGES, 1, GRID, GRID) and found[IMAGE].few.shape == (IMAGES, 1, 1, 1)
    assert found[MAP].zero is None and found[IMAGE].zero is None and probe.branch == "few"
    assert torch.allclose(found[IMAGE].few.flatten(), probe.decide(features(tokens())).float())
    assert torch.allclose(found[MAP].few.sum(dim=(1, 2, 3)), found[IMAGE].few.flatten(), atol=1e-5)

"""The losses: golden numbers, small cases by hand, and gradients where probabilities are 0 and 1."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import FORWARD, arrays, relative
from torch import Tensor

from decoder import Decoded
from loss import adapter_loss, detection, dice, focal

EXACT = 1e-6


def test_golden_focal_and_dice():
    golden = {name: torch.from_numpy(values) for name, values in arrays("loss").items()}
    assert relative(focal(golden["prob"], golden["mask"]), golden["focal"]) < FORWARD
    assert relative(dice(golden["prob"][:, 1], golden["mask"][:, 0]), golden["dice"]) < FORWARD


def test_focal_by_hand():
    probability = torch.tensor([[[[0.3, 0.9]], [[0.7, 0.1]]]])  # (1, 2, 1, 2)
    mask = torch.tensor([[[[1.0, 1.0]]]])
    terms = []
    for normal, abnormal in ((0.3, 0.7), (0.9, 0.1)):
        right = (1 - 1e-5) * abnormal + 1e-5 * normal + 1e-5
        terms.append(-((1 - right) ** 2) * math.log(right))
    assert focal(probability, mask).item() == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_focal_takes_both_classes_alike():
    probability = torch.rand(2, 1, 5, 5, generator=torch.manual_seed(0))
    mask = (torch.rand(2, 1, 5, 5, generator=torch.manual_seed(1)) > 0.5).float()
    both = torch.cat([1 - probability, probability], dim=1)
    assert relative(focal(both.flip(1), 1 - mask), focal(both, mask)) < EXACT


def test_dice_by_hand():
    probability = torch.tensor([[[0.5, 0.5], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])  # (2, 2, 2)
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    first = (2 * 0.5 + 1) / (1 + 1 + 1)
    assert dice(probability[:1], mask[:1]).item() == pytest.approx(1 - first)
    assert dice(probability, mask).item() == pytest.approx(1 - (first + 1) / 2)  # nothing there, nothing found: 1


def test_detection_by_hand():
    probability = torch.tensor([[0.0, 0.5], [1.0, 0.5]])  # means 0.25 and 0.75, taken as logits
    normal, abnormal = math.log(1 + math.exp(0.25)), math.log(1 + math.exp(-0.75))
    assert detection(probability[:1], torch.tensor([0])).item() == pytest.approx(normal)
    assert detection(probability[1:], torch.tensor([1])).item() == pytest.approx(abnormal)
    assert detection(probability, torch.tensor([0, 1])).item() == pytest.approx((normal + abnormal) / 2)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_gradients_are_finite_at_the_ends(value, truth):
    abnormal = torch.full((1, 1, 4, 4), value, requires_grad=True)
    mask = torch.full((1, 1, 4, 4), truth)
    losses = [
        focal(torch.cat([1 - abnormal, abnormal], dim=1), mask),
        dice(abnormal[:, 0], mask[:, 0]),
        detection(abnormal.flatten(1), torch.tensor([truth])),
    ]
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, abnormal, retain_graph=True)
        assert loss.isfinite() and gradient.isfinite().all()
    if value == truth:
        assert losses[0].abs() < 1e-6 and losses[1].abs() < 1e-6
    else:
        assert losses[0] > 1 and losses[1] > 0.9


def decoded(batch: int, taps: int = 2, patches: int = 9, scale: float = 1.0) -> Decoded:
    """Random tokens with gradients, class token first."""
    generator = torch.Generator().manual_seed(3)

    def tokens() -> list[Tensor]:
        shape = (batch, 1 + patches, 6)
        return [(scale * torch.randn(shape, generator=generator)).requires_grad_() for _ in range(taps)]

    return Decoded(torch.zeros(batch, 6), tokens(), tokens())


@pytest.fixture
def text() -> Tensor:
    """Two directions (6, 2), near enough that no probability is saturated."""
    first, step = torch.randn(2, 6, generator=torch.manual_seed(1))
    return F.normalize(torch.stack([first, first + 0.02 * step], dim=1), dim=0)


@pytest.fixture
def mask() -> Tensor:
    return (torch.rand(2, 1, 12, 12, generator=torch.manual_seed(2)) > 0.6).float()


def test_adapter_loss_is_the_formula(text, mask):
    tokens, label = decoded(2), torch.tensor([1.0, 0.0])
    expected = 0
    for det in tokens.det_tokens:
        logits = 100 * F.cosine_similarity(det[:, 1:, None], text.T, dim=-1)  # (B, P, 2)
        mean = logits.softmax(dim=-1)[..., 1].mean(dim=1)
        expected += F.binary_cross_entropy_with_logits(mean, label)
    assert relative(adapter_loss(tokens, text, label, None), expected) < 1e-5
    for seg in tokens.seg_tokens:
        logits = 100 * F.cosine_similarity(seg[:, 1:, None], text.T, dim=-1)
        grids = logits.transpose(1, 2).reshape(2, 2, 3, 3)
        probability = F.interpolate(grids, 12, mode="bilinear", align_corners=True).softmax(dim=1)
        expected += focal(probability, mask) + dice(probability[:, 1], mask[:, 0])
    assert relative(adapter_loss(tokens, text, label, mask), expected) < 1e-5


def test_a_batch_has_the_mean_loss_of_its_images(text, mask):
    tokens, label = decoded(2), torch.tensor([1.0, 0.0])
    singles = []
    for row in (slice(0, 1), slice(1, 2)):
        alone = Decoded(
            tokens.pooled[row], *([t[row] for t in part] for part in (tokens.seg_tokens, tokens.det_tokens))
        )
        singles.append(adapter_loss(alone, text, label[row], mask[row]))
    assert relative(adapter_loss(tokens, text, label, mask), sum(singles) / 2) < EXACT


def test_without_masks_the_seg_tokens_do_not_count(text):
    tokens = decoded(2)
    adapter_loss(tokens, text, torch.tensor([1.0, 0.0]), None).backward()
    assert all(part.grad is None for part in tokens.seg_tokens)
    assert all(part.grad[:, 1:].any() and not part.grad[:, 0].any() for part in tokens.det_tokens)


def test_class_tokens_do_not_count(text, mask):
    tokens = decoded(2)
    adapter_loss(tokens, text, torch.tensor([1.0, 0.0]), mask).backward()
    assert all(part.grad[:, 1:].any() and not part.grad[:, 0].any() for part in tokens.seg_tokens)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_gradients_are_finite_for_saturated_and_for_vanishing_tokens(mask, scale):
    far = F.normalize(torch.tensor([[1.0, -1.0]] + [[0.1, 0.1]] * 5), dim=0)  # 100·cos differ by up to 200
    tokens = decoded(2, scale=scale)
    loss = adapter_loss(tokens, far, torch.tensor([1.0, 0.0]), mask)
    loss.backward()
    assert loss.isfinite()
    assert all(part.grad.isfinite().all() for part in tokens.seg_tokens + tokens.det_tokens)

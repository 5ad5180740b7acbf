"""WinCLIP-style scoring on hand-made tokens."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scoring.baselines import IMAGE, MAP
from scoring.baselines.winclip import WinCLIP, abnormal_logits, association, spread, windows

GRID, WIDTH, JOINT = 4, 6, 5
MATRIX = torch.randn(WIDTH, JOINT, generator=torch.Generator().manual_seed(9))
TEXT = F.normalize(torch.randn(JOINT, 2, generator=torch.Generator().manual_seed(8)), dim=0)


def project(x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,)) @ MATRIX


def tokens(seed: int, images: int = 1, grid: int = GRID) -> Tensor:
    """(B, L, C) of the last tap."""
    return torch.randn(images, 1 + grid**2, WIDTH, generator=torch.Generator().manual_seed(seed))


def fitted(*seeds: int, text: Tensor | None = TEXT) -> WinCLIP:
    return WinCLIP.fit(project, text, [windows(tokens(seed), project) for seed in seeds] if seeds else None)


def test_windows_are_projected_means_of_their_patches():
    found, patches = windows(tokens(0), project), tokens(0)[0, 1:].view(GRID, GRID, WIDTH)
    assert [scale.shape for scale in found.scales] == [(1, 9, JOINT), (1, 4, JOINT)]
    small, middle = patches[1:3, 2:4].mean(dim=(0, 1)), patches[1:4, :3].mean(dim=(0, 1))
    assert torch.allclose(found.scales[0][0, 5], F.normalize(project(small), dim=0), atol=1e-6)
    assert torch.allclose(found.scales[1][0, 2], F.normalize(project(middle), dim=0), atol=1e-6)
    assert torch.allclose(found.whole[0], F.normalize(project(tokens(0)[0, 0]), dim=0), atol=1e-6)


@pytest.mark.parametrize(("grid", "scales"), [(1, 0), (2, 1), (3, 2)])
def test_windows_that_do_not_fit_are_left_out(grid, scales):
    found = windows(tokens(0, grid=grid), project)
    assert len(found.scales) == scales
    few = fitted_small(grid).score([tokens(1, grid=grid)])
    assert few[MAP].few.shape == few[MAP].zero.shape == (1, 1, grid, grid)


def fitted_small(grid: int) -> WinCLIP:
    return WinCLIP.fit(project, TEXT, [windows(tokens(5, grid=grid), project)])


def test_a_patch_gets_the_mean_of_the_windows_that_hold_it():
    values = torch.tensor([[1.0, 2, 3, 4]])  # windows of 2 x 2 on a grid of 3: 1 2 / 3 4
    assert spread(values, 3)[0].tolist() == [[1, 1.5, 2], [2, 2.5, 3], [3, 3.5, 4]]
    assert spread(values, 2)[0].tolist() == [[1, 2], [3, 4]]  # patches stay as they are


def test_probabilities_are_averaged_harmonically_over_windows_and_scales():
    found = windows(tokens(0), project)
    logits, whole = abnormal_logits(found, TEXT)

    def probability(unit: Tensor) -> float:
        return (100 * (unit @ TEXT)).double().softmax(dim=-1)[1].item()

    def harmonic(values: list[float]) -> float:
        return len(values) / sum(1 / value for value in values)

    row, column = 1, 3  # held by 2 windows of 2 x 2 and by 2 of 3 x 3
    small = harmonic([probability(found.scales[0][0, 3 * top + 2]) for top in (0, 1)])
    middle = harmonic([probability(found.scales[1][0, 2 * top + 1]) for top in (0, 1)])
    image = probability(found.whole[0])
    assert whole.sigmoid().item() == pytest.approx(image, rel=1e-5)
    assert logits[0, row, column].sigmoid().item() == pytest.approx(harmonic([small, middle, image]), rel=1e-4)


def test_the_surest_words_stay_finite():
    certain = torch.stack([-windows(tokens(0), project).whole[0], windows(tokens(0), project).whole[0]], dim=1)
    for text in (certain, certain.flip(1)):
        found = fitted(text=text).score([tokens(0)])
        assert found[MAP].zero.isfinite().all() and found[IMAGE].zero.abs().item() == pytest.approx(200, rel=1e-4)


def test_association_is_half_the_distance_averaged_harmonically():
    found, known = windows(tokens(0), project), windows(tokens(1), project)
    unlike = [(1 - (one[0] @ other[0].T).amax(dim=1)) / 2 for one, other in zip(found.local, known.local, strict=True)]
    corner = torch.stack([unlike[0][0], unlike[1][0], unlike[2][0]]).mean()  # a corner is in one window a scale
    small = 2 / (1 / unlike[1][0] + 1 / unlike[1][1])
    middle = 2 / (1 / unlike[2][0] + 1 / unlike[2][1])
    edge = torch.stack([unlike[0][1], small, middle]).mean()
    scores = association(found, [part[0] for part in known.local])[0]
    assert torch.allclose(scores[0, :2].float(), torch.stack([corner, edge]), atol=1e-6)


def test_what_is_known_is_at_no_distance():
    found = fitted(0, 1).score([tokens(0)])
    assert found[MAP].few.max() < 1e-5 and found[IMAGE].few.item() < 1e-5
    new = fitted(0, 1).score([tokens(2)])
    assert new[MAP].few.min() > 1e-3 and new[IMAGE].few.item() == new[MAP].few.max()
    assert new[MAP].few.max() <= 1


def test_branches_that_are_off():
    for model, branch in ((fitted(), "zero"), (fitted(0, text=None), "few"), (fitted(0), "fused")):
        found = model.score([tokens(2, images=2)])
        assert model.branch == branch
        for part in found.values():
            assert (part.zero is None) == (branch == "few") and (part.few is None) == (branch == "zero")
    assert fitted(0).tensors().keys() == {"text", "scale0", "scale1", "scale2"}


def test_a_batch_is_scored_as_one_by_one():
    model, images = fitted(0, 1), tokens(3, images=3)
    whole = model.score([images])
    for name, part in whole.items():
        alone = [model.score([images[row : row + 1]])[name] for row in range(3)]
        assert torch.allclose(part.zero, torch.cat([one.zero for one in alone]), atol=1e-4)
        assert torch.allclose(part.few, torch.cat([one.few for one in alone]), atol=1e-6)

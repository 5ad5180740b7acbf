"""One pass over many maps gives what several passes over all of them give."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.counting import binned_pixel_metrics
from scipy import ndimage

from decoder import upsample
from runtime.errors import InputError
from scoring import evaluation, map_pass, maps
from scoring.evaluation import branch_figures, selection
from scoring.maps import Calibration, Scale, branch_maps, map_scale, max_scores, upsampled_rows
from scoring.metrics import pixel_metrics
from scoring.patch_scores import PatchScores, ScoreRecipe
from scoring.pixel_counts import PixelCounts, Regions
from scoring.raw_scores import RawScores

IMAGES, SIZE = 41, 48
LABELS = np.arange(IMAGES) % 2
LIMITS = Scale((0.5, 3.0), (1.0, 3.0), 0.4)
BY_SUPPORT = Calibration(LIMITS, LIMITS, dict.fromkeys(("zero", "few", "fused"), 0.5), {})


def grids(seed: int = 0, recipe: ScoreRecipe | None = None) -> PatchScores:
    """Logits and distances of four taps, higher where something is abnormal."""
    generator = torch.Generator().manual_seed(seed)
    zero, few = (torch.rand(IMAGES, 4, 6, 6, generator=generator) for _ in range(2))
    zero[1::2, :, 2:4, 2:4] += 0.4
    few[1::2, :, 2:4, 2:4] += 0.3
    return PatchScores(4 * zero - 3, few, recipe or ScoreRecipe())


def masks() -> np.ndarray:
    """Of every second image: a square, and of some a smaller one beside it."""
    found = np.zeros((IMAGES, SIZE, SIZE), bool)
    found[1::2, 16:32, 16:32] = True
    found[3::6, 2:5, 40:44] = True
    return found


class Asked:
    """Masks that remember which rows were asked for."""

    def __init__(self) -> None:
        self.rows = []

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.rows += range(IMAGES)[rows]
        return masks()[rows]


@pytest.fixture
def many(monkeypatch) -> None:
    """So many images that their maps do not fit into memory; counted in several runs."""
    monkeypatch.setattr(evaluation, "IN_MEMORY", 0)
    monkeypatch.setattr(map_pass, "PIXELS", 2 * maps.MAP_CHUNK * SIZE**2)


@pytest.fixture
def threads() -> Iterator[None]:
    """What a test sets is undone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("calibration", [None, BY_SUPPORT])
@pytest.mark.parametrize("recipe", [ScoreRecipe(), ScoreRecipe(2.0, 0.01), ScoreRecipe(support_scaled=True)])
def test_figures_of_many_images_are_those_of_few(recipe, calibration, request):
    raw = RawScores(grids(recipe=recipe), None)
    exact = branch_figures(raw, LABELS, masks(), SIZE, calibration)
    best = selection(raw, LABELS, masks(), SIZE)
    request.getfixturevalue("many")
    asked = Asked()
    found = branch_figures(raw, LABELS, asked, SIZE, calibration)
    assert sorted(asked.rows) == list(range(IMAGES))  # each mask is read once
    assert found.keys() == exact.keys() == {"zero", "few", "fused"}
    for branch, figures in exact.items():
        for name, value in figures.items():
            off = 2e-4 if name == "pixel_f1_max" else 1e-5  # F1 moves by 8e-5 for each of these few pixels
            assert found[branch][name] == pytest.approx(value, abs=off if name.startswith("pixel") else 0), name
    assert selection(raw, LABELS, masks(), SIZE) == pytest.approx(best, abs=1e-6)


def test_image_scores_that_are_means_stay_means(many):
    raw = RawScores(grids(), grids(1))
    found = branch_figures(raw, LABELS, masks(), SIZE, None)
    assert found["few"]["pixel_auroc"] > 0.7
    alone = branch_figures(raw, LABELS, None, SIZE, None)
    for branch, figures in alone.items():
        assert figures.items() <= found[branch].items()


def test_threads_change_no_bit(many, threads):
    found = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(branch_figures(RawScores(grids(), None), LABELS, masks(), SIZE, BY_SUPPORT))
    assert found[0] == found[1] == found[2]


def test_a_pass_finds_the_highest_values_by_each_scale(many):
    scale = map_scale(grids(), SIZE)
    found = map_pass.map_pass(grids(), scale, SIZE, masks(), ["few"], {None: scale, LIMITS: LIMITS})
    assert found.pixels.keys() == {"few"}
    for key, limits in ((None, scale), (LIMITS, LIMITS)):
        expected = max_scores(grids(), limits, SIZE)
        assert found.highest[key].keys() == expected.keys()
        assert all(found.highest[key][branch].equal(expected[branch]) for branch in expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("branch", ["zero", "few"])
def test_a_map_of_many_that_is_no_number_is_refused(many, bad, branch):
    broken = grids()
    getattr(broken, branch)[17, 1, 2, 3] = bad
    with pytest.raises(InputError, match="scores are not finite"):
        branch_figures(RawScores(broken, grids()), LABELS, masks(), SIZE, None)


@pytest.mark.parametrize(
    "crowd",
    [
        lambda values: values,
        lambda values: values**6,
        lambda values: values**20,
        lambda values: (12 * values - 6).sigmoid(),
        lambda values: (60 * values - 45).sigmoid(),
        lambda values: (40 * values - 20).sigmoid(),
        lambda values: 1 - (1 - values) ** 6,
    ],
    ids=["even", "6th power", "20th power", "probabilities", "saturated at 0", "at both ends", "crowded at 1"],
)
def test_steps_move_no_figure_by_what_could_be_seen(crowd):
    """Of maps of 6 · 10^5 pixels at the size that CLIP works on, spread evenly and crowded at either end."""
    values = upsample(grids().few[:12].sum(dim=1, keepdim=True), 240)[:, 0]
    values = crowd((values - values.min()) / (values.max() - values.min()))
    values = ((values - values.min()) / (values.max() - values.min())).numpy()
    marked = np.kron(masks()[:12], np.ones((5, 5), bool))
    exact = pixel_metrics(values, marked)
    found = binned_pixel_metrics([(values[:5], marked[:5]), (values[5:], marked[5:])])
    assert 0.6 < exact["auroc"] < 1
    assert found == pytest.approx(exact, abs=3e-5)
    assert [found[name] for name in ("auroc", "aupro")] == pytest.approx([exact["auroc"], exact["aupro"]], abs=1e-6)


def test_steps_by_hand():
    """Eight steps begin at (1/3)^8 / 2 = 7.6e-5, (2/3)^8 / 2 = 0.0195 and 1/2, the others as far from 1."""
    counts = PixelCounts(8)
    assert counts.steps(torch.tensor([[[-0.1, 0.0, 7e-5], [8e-5, 0.01, 0.02]]])).tolist() == [[[0, 0, 0], [1, 1, 2]]]
    assert counts.steps(torch.tensor([[[0.49, 0.51, 0.98], [0.9806, 1.0, 1.1]]])).tolist() == [[[2, 4, 4], [5, 7, 7]]]
    assert counts.least().tolist() == pytest.approx(
        [0, 7.6208e-5, 0.0195092, 0.5, 0.5, 0.9804908, 0.9999238, 1], rel=1e-5
    )


def test_steps_rise_with_the_scores():
    scores = torch.cat([torch.rand(1 << 16), torch.linspace(0.4999, 0.5001, 1 << 12), torch.rand(1 << 12) ** 40])
    scores = torch.cat([scores, 1 - scores]).sort().values
    steps = PixelCounts().steps(scores)
    assert (steps.diff() >= 0).all() and steps.min() >= 0 and steps.max() < PixelCounts().bins


def test_the_threshold_is_the_least_score_of_its_step():
    scores, marked = np.full((1, 4, 4), 0.001, np.float32), np.zeros((1, 4, 4), bool)
    scores[0, 0], marked[0, 0] = 0.3, True
    assert binned_pixel_metrics([(scores, marked)])["threshold"] == pytest.approx(0.3, rel=1e-4)


def test_regions_are_those_of_scipy():
    rng = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(rng.normal(size=(3, 70, 70)), (0, 3, 3)) > 0.08
    blobs[1] = False
    found, shares = Regions.of(blobs), np.zeros(blobs.shape)
    for share, mask in zip(shares, blobs, strict=True):
        labelled, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        share[mask] = 1 / np.bincount(labelled.ravel())[labelled[mask]]
    assert found.count == round(shares.sum()) > 10
    assert np.array_equal(found.pixels, np.flatnonzero(blobs)) and np.array_equal(found.shares, shares[blobs])


@pytest.mark.parametrize(
    ("taps", "side", "size"), [(4, 15, 240), (1, 14, 224), (3, 4, 9), (2, 6, 5), (2, 1, 3), (4, 7, 7)]
)
def test_upsampling_along_rows_is_upsampling(taps, side, size):
    values = 3 * torch.randn(3, taps, side, side, generator=torch.Generator().manual_seed(0))
    expected, found = upsample(values, size), upsampled_rows(values, size)
    assert found.shape == (3, size, taps, size)
    assert torch.allclose(found.transpose(1, 2), expected, rtol=0, atol=3e-6)  # values reach 10
    for image in range(3):
        assert upsampled_rows(values[[image]], size).equal(found[[image]])


@pytest.mark.parametrize("recipe", [ScoreRecipe(), ScoreRecipe(smooth=2.0)])
@pytest.mark.parametrize("size", [SIZE, 6, 4])
def test_limits_are_those_of_all_maps(size, recipe):
    seen = grids(recipe=recipe)
    for branch, limits in (("zero", map_scale(seen, size).zero), ("few", map_scale(seen, size).few)):
        every = torch.cat([branch_maps(part, branch, size) for part in maps.chunks(seen)])
        assert limits == (float(every.min()), float(every.max()))


def test_limits_are_sought_where_patches_leave_them_open(monkeypatch):
    built, outlying = [], grids()
    outlying.few[9] += 2
    outlying.few[30] -= 2

    def noted(patches: PatchScores, branch: str, size: int) -> torch.Tensor:
        built.append(patches.few)
        return branch_maps(patches, branch, size)

    monkeypatch.setattr(maps, "branch_maps", noted)
    found = map_scale(PatchScores(None, outlying.few), SIZE).few
    assert found == tuple(map(float, branch_maps(outlying, "few", SIZE).aminmax()))
    assert len(built) == 2 < len(list(maps.chunks(outlying)))

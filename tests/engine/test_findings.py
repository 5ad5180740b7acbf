"""Regions of maps: which there are, where, their share of the score, and what they resemble, on stub texts."""

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers.lab import Lab

import prompt
from decoder import Decoded
from engine import Predictor
from engine.findings import (
    CLOSEST,
    EVERYWHERE,
    Finding,
    FindingTexts,
    Resemblance,
    find_regions,
    measured,
    patch_pixels,
    place_of,
    plain,
)
from engine.kept_scores import KeptScores
from engine.tiles import Tiling, tiles
from runtime.cache import Cache
from scoring.raw_scores import DET_MEAN, MAP_MAXIMUM

TEXTS = FindingTexts.of(
    torch.tensor([1.0, 0, 0, 0]),
    {
        "a hole": torch.tensor([[0.0, 1, 0, 0]]),
        "a crack": torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 1]]),  # two sentences: halfway between
        "a spot": torch.tensor([[0.0, 0, 1, 0]]),
        "a stain": torch.tensor([[1.0, 0, 0, 0]]),
    },
)


def two_regions() -> np.ndarray:
    values = np.zeros((5, 6), np.float32)
    values[0, 0], values[1, 1] = 0.5, 0.75  # one region: corners touch
    values[3:5, 4:6] = 0.875
    return values


def test_regions_by_hand():
    first, second = find_regions(two_regions(), 0.5).sorted()
    assert first == Finding((4, 3, 6, 5), 4, 0.875, "lower right", 1.5 / 1.75)
    assert second == Finding((0, 0, 2, 2), 2, 0.75, "upper left", 0.25 / 1.75)
    assert find_regions(two_regions(), 1.0).findings == () == find_regions(two_regions(), float("nan")).findings


def test_shares_of_a_maximum_add_up_to_one():
    values = np.random.default_rng(0).random((40, 50), np.float32)
    found = find_regions(values, 0.7).findings
    assert len(found) > 20 and sum(one.share for one in found) == pytest.approx(1)
    level = np.where(values >= 0.7, np.float32(0.75), 0)
    areas = [one.area for one in find_regions(level, 0.75).findings]  # none has more than the threshold: by area
    assert [one.share for one in find_regions(level, 0.75).findings] == [area / sum(areas) for area in areas]


def test_shares_of_a_mean_are_parts_of_the_whole_map():
    values = two_regions()
    values[2, 3], values[0, 5] = 0.25, -5  # below the threshold; what is negative does not count
    shares = [one.share for one in find_regions(values, 0.5, mean=True).sorted()]
    assert shares == [pytest.approx(3.5 / 5), pytest.approx(1.25 / 5)]


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        ((0, 10), (0, 10), "upper left"),
        ((0, 5), (13, 17), "upper centre"),
        ((13, 17), (26, 30), "centre right"),
        ((12, 18), (12, 18), "centre"),
        ((25, 30), (12, 18), "lower centre"),
        ((8, 15), (0, 5), "centre left"),  # two of its seven rows lie in the upper third
        ((0, 30), (0, 30), EVERYWHERE),
    ],
)
def test_places(rows, columns, place):
    values = np.zeros((30, 30), np.float32)
    values[slice(*rows), slice(*columns)] = 1
    (found,) = find_regions(values, 0.5).findings
    assert found.place == place


def test_a_ring_lies_where_it_is_and_not_in_its_empty_middle():
    ring = np.ones((20, 20), bool)
    ring[3:17, 3:17] = False
    assert place_of(ring, (0, 0), (20, 60)) != "centre"
    assert place_of(ring, (0, 0), (20, 60)).endswith("left")


def test_areas_are_measured_where_the_spacing_is_known():
    (one,) = measured(find_regions(two_regions(), 0.8).findings, (0.5, 3.0))
    assert one.area == 4 and one.area_mm2 == 6
    (same,) = measured([one], None)
    assert same is one


def test_pixels_of_patches():
    labels = np.zeros((6, 9), np.int32)
    labels[:2, :4], labels[5, 8] = 7, 3
    numbers, pixels = patch_pixels(labels, 3)
    assert numbers.tolist() == [0, 3, 7] and pixels.sum() == labels.size
    np.testing.assert_array_equal(pixels[1:], [[0, 0, 0, 0, 0, 0, 0, 0, 1], [6, 2, 0, 0, 0, 0, 0, 0, 0]])


def margins(*patches: list[float]) -> torch.Tensor:
    """Of 2 x 2 patches whose trunk tokens are given, in two taps of a decoder that projects nothing."""
    level = torch.tensor([[9.0, 0, 0, 0], *patches])[None]  # the class token counts for nothing
    decoder = SimpleNamespace(visual=SimpleNamespace(project=lambda tokens: tokens))
    return TEXTS.margins(Decoded(None, [], [], [level, 3 * level]), decoder)


HOLE, SPOT, NORMAL = [0.0, 2, 0, 0], [0.0, 0, 5, 0], [1.0, 0, 0, 0]


def resembled(values: np.ndarray, found: torch.Tensor) -> list[dict[str, float]]:
    """What each region of a map resembles, the highest region first."""
    (tile,) = tiles(values.shape, None)
    regions = find_regions(values, 0.5).compared(TEXTS, [(tile, found)]).sorted()
    assert all(len(one.resembles) == CLOSEST for one in regions)
    return [{like.finding: pytest.approx(like.margin, abs=1e-3) for like in one.resembles} for one in regions]


def test_a_patch_is_as_close_as_its_cosines_say():
    found = margins(HOLE, SPOT, NORMAL, NORMAL)
    assert found.shape == (4, 2, 2)
    np.testing.assert_allclose(found[:, 0, 0], [100, 0, 0, 0], atol=1e-4)  # a hole, a crack, a spot, a stain
    np.testing.assert_allclose(found[:, 0, 1], [0, 100 * 0.5**0.5, 100, 0], atol=1e-4)
    np.testing.assert_allclose(found[:, 1, 0], [-100, -100, -100, 0], atol=1e-4)


def test_what_a_region_resembles_is_by_its_patches_beside_the_others():
    """Above left tokens like a hole, above right like a spot; below normal ones, as nothing but the stain is."""
    values = np.zeros((4, 10), np.float32)
    values[:2, 0:4], values[:2, 6:] = 0.9, 0.8
    outside = [(4 * one + 20 * other) / 24 for one, other in ((50, -100), (35.3553, -100), (50, -100), (0, 0))]
    hole, crack, spot, _ = outside
    left, right = resembled(values, margins(HOLE, SPOT, NORMAL, NORMAL))
    assert left == {"a hole": 100 - hole, "a spot": -spot, "a crack": -crack}
    assert right == {"a spot": 100 - spot, "a crack": 70.7107 - crack, "a hole": -hole}


def test_what_the_whole_picture_resembles_tells_no_region_apart():
    """All patches are as close to the hole; the region alone is a little like a spot."""
    mixed = [0.0, 2, 1, 0]
    values = np.zeros((4, 4), np.float32)
    values[:2, :2] = 1
    (found,) = resembled(values, margins(mixed, HOLE, HOLE, HOLE))
    assert next(iter(found)) == "a spot" and "a hole" not in list(found)[:2]


def test_a_region_across_patches_has_their_mean():
    values = np.ones((4, 4), np.float32)
    values[1:, 0] = 0  # three pixels of the left patches, which are alike
    (found,) = resembled(values, margins(HOLE, SPOT, HOLE, SPOT))
    share = 5 / 13  # of the region's pixels, in the left patches
    assert found == {"a spot": 100 * (1 - share), "a crack": 70.7107 * (1 - share), "a stain": 0}


def test_a_region_without_outside_is_compared_with_nothing():
    (found,) = resembled(np.ones((4, 4), np.float32), margins(HOLE, HOLE, HOLE, HOLE))
    assert found == {"a hole": 100, "a crack": 0, "a spot": 0}


def test_sentences_of_findings_are_neutral():
    for obj in (*prompt.P_PROMPTS, "thing"):
        for finding, sentences in prompt.findings(obj).items():
            assert "{" not in finding and "  " not in finding
            assert all(finding in sentence and "{" not in sentence and "  " not in sentence for sentence in sentences)
    assert "an area of oedema" in prompt.findings("Brain") and "a hole" in prompt.findings("own/thing")
    assert any("steel bolt" in sentence for sentence in prompt.findings("own", "steel bolt")["a hole"])


@pytest.fixture(scope="module")
def predictor(trained: Lab) -> Predictor:
    return Predictor.from_checkpoint(trained.root / "ckpt" / "Brain_1-shot.pth", device="cpu", cache_gb=0)


def judged(predictor: Predictor, image: float, pixel: float, **more: object) -> Predictor:
    """The predictor with thresholds."""
    known, branch = predictor.calibration, predictor.branch
    return replace(predictor, calibration=replace(known, image={branch: image}, pixel={branch: pixel}), **more)


PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def test_only_abnormal_pictures_resemble_something_and_no_score_changes(predictor):
    plain_ones = judged(predictor, -9.0, 0.3, finding_texts=None).predict(PIXELS)
    abnormal, normal = (judged(predictor, image, 0.3).predict(PIXELS) for image in (-9.0, 9.0))
    assert plain_ones.score == abnormal.score == normal.score
    assert np.array_equal(plain_ones.anomaly_map, abnormal.anomaly_map)
    assert normal.findings == plain_ones.findings and normal.findings
    assert [replace(one, resembles=()) for one in abnormal.findings] == list(normal.findings)
    known = set(prompt.findings("Brain"))
    for one in abnormal.findings:
        margins = [like.margin for like in one.resembles]
        assert len(margins) == CLOSEST and margins == sorted(margins, reverse=True)
        assert {like.finding for like in one.resembles} <= known
    assert sum(one.share for one in abnormal.findings) == pytest.approx(1)


def test_tiles_tell_what_their_regions_resemble(predictor):
    found = judged(predictor, -9.0, 0.3, tiling=Tiling(20, 4)).predict(PIXELS)
    assert found.findings and all(len(one.resembles) == CLOSEST for one in found.findings)


def test_the_bank_alone_resembles_nothing(trained):
    path = trained.root / "ckpt" / "Brain_1-shot.pth"
    few = Predictor.from_checkpoint(path, device="cpu", cache_gb=0, branches="few", threshold=-9, pixel_threshold=0.1)
    found = few.predict(PIXELS)
    assert few.finding_texts is None and found.findings and not any(one.resembles for one in found.findings)


def test_a_mean_has_shares_of_the_map(predictor):
    found = judged(replace(predictor, rule=DET_MEAN, banks={}), -9.0, 0.3)
    shares = [one.share for one in found.predict(PIXELS).findings]
    assert shares and 0 < sum(shares) <= 1


def test_other_finding_texts_are_another_predictor(predictor):
    """So that a run of other words does not go on with rows that hold these."""
    texts = predictor.finding_texts
    other = replace(predictor, finding_texts=replace(texts, findings=("another", *texts.findings[1:])))
    assert other.digest() != predictor.digest()


def test_scores_from_the_cache_have_the_same_findings(predictor, tmp_path):
    first = judged(predictor, -9.0, 0.3, kept=KeptScores(Cache(tmp_path, 1 << 30), "known"))
    made = first.predict(PIXELS)
    with patch.object(type(first), "_raw_scores", side_effect=AssertionError("made again")):
        assert first.predict(PIXELS).findings == made.findings
    assert made.findings and all(one.resembles for one in made.findings)


def test_cues_make_no_mean():
    assert DET_MEAN.by_mean and not replace(DET_MEAN, cues=True).by_mean and not MAP_MAXIMUM.by_mean


def test_findings_as_json_are_plain():
    (one,) = plain([Finding((0, 1, 2, 3), 6, 0.123456, "centre", 1.0, None, (Resemblance("a hole", 1.98766),))])
    assert one["resembles"] == [{"finding": "a hole", "margin": 1.9877}] and one["box"] == [0, 1, 2, 3]

"""Figures and thresholds on patch scores small enough to be worked out by hand."""

from math import inf, isnan, nan

import numpy as np
import pytest
import torch

from runtime.errors import InputError
from scoring.calibration import NORMAL_QUANTILE, CalibrationRule, Known, calibrate
from scoring.evaluation import branch_figures, selection
from scoring.maps import Calibration, Scale, map_scale, mean_scale
from scoring.patch_scores import PatchScores
from scoring.raw_scores import RawScores, full_maps, main_branch, score_rule
from scoring.reliability import ThresholdRule

SIZE = 2  # grids of 2 x 2 are their own maps
NONE = np.zeros((4, SIZE, SIZE), bool)
F1 = CalibrationRule(ThresholdRule("f1"))


def few(*images: list[float]) -> PatchScores:
    """Distances of images of four patches, at one tap."""
    return PatchScores(None, torch.tensor(images, dtype=torch.float32).view(-1, 1, SIZE, SIZE))


def calibrated(raw: RawScores, labels: np.ndarray, masks: np.ndarray | None, rule: CalibrationRule = F1) -> Calibration:
    """Of images that each stand for themselves."""
    return calibrate(raw, Known(labels, masks, np.arange(len(labels))), SIZE, rule)


def both(zero: list[float], few: list[float]) -> PatchScores:
    """Constant grids: a probability and a distance for each image."""
    grids = [torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE) for values in (zero, few)]
    return PatchScores(grids[0].logit(), grids[1])


# Two normal and two abnormal images, scaled already: lowest 0, highest 1.
IMAGES = few([0, 0, 0.25, 0], [0.5, 0.125, 0, 0], [0.75, 0.25, 0, 0], [1, 0.75, 0.125, 0])
LABELS = np.array([0, 0, 1, 1])
MASKS = np.stack([*NONE[:2], [[True, False], [False, False]], [[True, True], [False, False]]])


def test_thresholds_lie_half_way_below_the_largest_f1():
    found = calibrated(RawScores(IMAGES, None), LABELS, MASKS)
    assert found.maps == found.means == Scale(None, (0.0, 1.0))
    assert found.image == {"few": 0.625}  # between 0.75 and 0.5
    assert found.pixel == {"few": 0.75}  # all three abnormal pixels are at or above it, and no other


def test_a_mistaken_order_takes_the_largest_f1():
    mixed = few([0, 0, 0, 0], [0.75, 0, 0, 0], [0.5, 0, 0, 0], [1, 0, 0, 0])
    found = calibrated(RawScores(mixed, None), LABELS, None)
    assert found.image == {"few": 0.25}  # F1 at 1: 2/3, at 0.75: 1/2, at 0.5: 4/5
    masks = NONE.copy()
    masks[2:, 0, 0] = True
    assert calibrated(RawScores(mixed, None), LABELS, masks).pixel == {"few": 0.5}


def test_no_lower_score_leaves_the_threshold_where_it_is():
    same = few([1, 0, 0, 0], [1, 0, 0, 0])
    assert calibrated(RawScores(same, None), np.array([0, 1]), None).image == {"few": 1.0}


def test_normal_support_alone_puts_the_threshold_above_its_highest_score():
    found = calibrated(RawScores(IMAGES, None), np.zeros(4, int), NONE)
    assert found.image == {"few": float(np.nextafter(np.float32(1), np.float32(2)))}
    pixels = np.sort(IMAGES.few.flatten().numpy())
    assert found.pixel["few"] == pytest.approx(np.quantile(pixels, NORMAL_QUANTILE))
    assert 0.75 < found.pixel["few"] < 1


def test_without_masks_the_pixel_threshold_comes_of_normal_images():
    found = calibrated(RawScores(IMAGES, None), LABELS, None)
    normal = IMAGES.few[:2].flatten().numpy()
    assert found.pixel["few"] == pytest.approx(np.quantile(normal, NORMAL_QUANTILE))
    assert found.pixel["few"] < 0.5


def test_no_normal_image_and_no_mask_leave_nothing_above_the_thresholds():
    found = calibrated(RawScores(IMAGES, None), np.ones(4, int), None)
    assert 1 < found.image["few"] == found.pixel["few"] < 1 + 1e-6


def test_an_object_without_masks_has_a_scale_of_its_means():
    found = calibrated(RawScores(IMAGES, IMAGES), LABELS, None)
    low, high = 0.0625, 0.46875  # means of the first and of the last image
    assert found.maps.few == (0.0, 1.0) and found.means.few == (low, high)
    scaled = [(mean - low) / (high - low) for mean in (0.15625, 0.25)]  # of the second and of the third
    assert found.image["few"] == pytest.approx(sum(scaled) / 2)


def test_every_branch_is_calibrated():
    found = calibrated(RawScores(both([0.25, 0.5, 0.75], [0.5, 0.25, 1]), None), np.array([0, 0, 1]), None)
    assert found.maps.zero == pytest.approx((0.25, 0.75)) and found.maps.few == (0.25, 1)
    assert found.image["zero"] == pytest.approx(0.75)  # between 1 and 0.5
    assert found.image["few"] == pytest.approx((1 + 1 / 3) / 2)
    assert found.image["fused"] == pytest.approx((1 + 0.25) / 2)


def test_figures_by_hand():
    labels, scores = np.array([0, 1, 0, 1]), [0.25, 0.5, 0.75, 1.0]
    seen = RawScores(few(*([score, 0, 0, 0] for score in scores)), None)
    masks = NONE.copy()
    masks[[1, 3], 0, 0] = True
    calibration = Calibration(Scale(None, (0.0, 2.0)), Scale(None, (0.0, 2.0)), {"few": 0.3}, {"few": 0.3})
    found = branch_figures(seen, labels, masks, SIZE, calibration)
    assert found.keys() == {"few"}
    expected = {
        "image_auroc": 3 / 4,
        "image_ap": (1 + 2 / 3) / 2,
        "image_f1_max": 4 / 5,
        "sensitivity": 1 / 2,  # halved, the scores are 0.125, 0.25, 0.375, 0.5
        "specificity": 1 / 2,
        "balanced_accuracy_max": 3 / 4,  # at 0.25: both abnormal images, one of the normal
        "sensitivity_at_half": 1 / 2,  # scaled over themselves they are 0, 1/3, 2/3, 1
        "specificity_at_half": 1 / 2,
        "pixel_auroc": (14 + 13) / 28,  # of 14 normal pixels 12 are 0
        "pixel_ap": (1 + 2 / 3) / 2,
        "pixel_f1_max": 4 / 5,
    }
    assert found["few"] == pytest.approx(expected | {"pixel_aupro": found["few"]["pixel_aupro"]})
    # Half the overlap at once, the other half after 1 of 14 normal pixels; the limit is 0.3 of them.
    assert found["few"]["pixel_aupro"] == pytest.approx(1 - 0.5 / 14 / 0.3)


def test_the_threshold_itself_is_abnormal():
    seen = RawScores(few([0, 0, 0, 0], [0.5, 0, 0, 0], [1, 0, 0, 0]), None)
    calibration = Calibration(Scale(None, (0.0, 1.0)), Scale(None, (0.0, 1.0)), {"few": 0.5}, {})
    found = branch_figures(seen, np.array([0, 0, 1]), None, SIZE, calibration)["few"]
    assert (found["sensitivity"], found["specificity"]) == (1, 0.5)


def test_a_half_itself_is_normal():
    """As the reproduction study counts: above 0.5 of scores scaled over the test set."""
    seen = RawScores(few([0, 0, 0, 0], [0.5, 0, 0, 0], [0.5 + 2**-23, 0, 0, 0], [1, 0, 0, 0]), None)
    found = branch_figures(seen, np.array([0, 1, 1, 0]), None, SIZE, None)["few"]
    assert (found["sensitivity_at_half"], found["specificity_at_half"]) == (0.5, 0.5)


def test_the_calibrations_scale_is_for_thresholds_only():
    plain = branch_figures(RawScores(IMAGES, None), LABELS, MASKS, SIZE, None)["few"]
    odd = Calibration(Scale(None, (5.0, 9.0)), Scale(None, (5.0, 9.0)), {"few": 0.5}, {"few": 0.5})
    found = branch_figures(RawScores(IMAGES, None), LABELS, MASKS, SIZE, odd)["few"]
    assert (found.pop("sensitivity"), found.pop("specificity"), found.pop("balanced_accuracy_max")) == (0, 1, 1)
    assert found == plain


def test_the_support_judged_by_its_own_calibration_is_all_right():
    seen = RawScores(IMAGES, None)
    found = branch_figures(seen, LABELS, MASKS, SIZE, calibrated(seen, LABELS, MASKS))["few"]
    assert all(
        found[name] == 1 for name in ("image_auroc", "sensitivity", "specificity", "pixel_f1_max", "pixel_aupro")
    )


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_figures(label):
    calibration = calibrated(RawScores(IMAGES, None), LABELS, MASKS)
    found = branch_figures(RawScores(IMAGES, None), np.full(4, label), NONE, SIZE, calibration)["few"]
    defined = {name for name, value in found.items() if not isnan(value)}
    name = "sensitivity" if label else "specificity"
    assert defined == {name, f"{name}_at_half"}
    assert found.keys() >= {"image_auroc", "image_ap", "pixel_auroc", "pixel_aupro"}


def test_without_masks_there_are_no_pixel_figures():
    found = branch_figures(RawScores(IMAGES, IMAGES), LABELS, None, SIZE, None)["few"]
    halved = {"sensitivity_at_half", "specificity_at_half"}
    assert found.keys() == {"image_auroc", "image_ap", "image_f1_max", *halved}


def test_all_branches_have_figures():
    seen = RawScores(both([0.25, 0.5, 0.75, 0.625], [0.5, 0.6, 1, 0]), None)
    found = branch_figures(seen, LABELS, None, SIZE, None)
    assert {branch: figures["image_auroc"] for branch, figures in found.items()} == {
        "zero": 1,
        "few": 0.5,
        "fused": 0.75,
    }


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("place", [0, 3])
def test_a_score_that_is_not_finite_is_refused(bad, place):
    values = IMAGES.few.clone()
    values[place, 0, 1, 1] = bad
    for seen in (
        RawScores(PatchScores(None, values), None),
        RawScores(PatchScores(None, values), PatchScores(None, values)),
    ):
        for judge in (
            lambda seen: branch_figures(seen, LABELS, None, SIZE, None),
            lambda seen: selection(seen, LABELS, MASKS, SIZE),
            lambda seen: calibrated(seen, LABELS, MASKS),
        ):
            with pytest.raises(InputError, match=r"scores are not finite .* lower --learning_rate") as caught:
                judge(seen)
            assert "\n" not in str(caught.value)


def test_a_map_that_is_not_finite_is_refused_though_its_image_scores_are():
    values = IMAGES.few.clone()
    values[1] = nan
    with pytest.raises(InputError, match="scores are not finite"):
        branch_figures(RawScores(PatchScores(None, values), IMAGES), LABELS, MASKS, SIZE, None)


def test_selection_takes_the_figures_of_the_main_branch():
    assert selection(RawScores(IMAGES, None), LABELS, None, SIZE) == {"image_auroc": 1.0}
    found = selection(RawScores(IMAGES, None), LABELS, MASKS, SIZE)
    assert found == {"image_auroc": 1.0, "pixel_auroc": 1.0}
    seen = RawScores(both([0.25, 0.5, 0.75, 0.625], [0.5, 0.6, 1, 0]), None)
    assert selection(seen, LABELS, None, SIZE) == {"image_auroc": 0.75}  # the fusion's, see above


def test_main_branch():
    grid = torch.zeros(1, 1, 2, 2)
    assert main_branch(PatchScores(grid, grid)) == "fused"
    assert main_branch(PatchScores(None, grid)) == "few" and main_branch(PatchScores(grid, None)) == "zero"


@pytest.mark.parametrize(
    ("masks", "transfer", "maps", "mean"),
    [(True, False, "seg", None), (False, False, "det", "det"), (True, True, "seg", "det"), (False, True, "det", "det")],
)
def test_the_rule_needs_exactly_the_heads_that_it_uses(masks, transfer, maps, mean):
    rule = score_rule(masks, transfer)
    assert set(rule.heads) == {maps, mean} - {None} and len(rule.heads) == len(set(rule.heads))
    found = {head: few([0, 0, 0, number]) for number, head in enumerate(rule.heads)}
    seen = rule.raw_scores(found)
    assert seen.map_patches is found[maps] and seen.mean_patches is (None if mean is None else found[mean])


@pytest.mark.parametrize("means", [None, IMAGES], ids=["map's maximum", "mean"])
def test_batches_joined_are_the_whole(means):
    """And their scales are over all of them."""
    parts = [RawScores(IMAGES[rows], means and means[rows]) for rows in (slice(0, 1), slice(1, 4))]
    whole = RawScores(IMAGES, means)
    joined = RawScores.join(parts)
    assert joined.map_patches.few.equal(IMAGES.few) and (joined.mean_patches is None) == (means is None)
    assert joined.scales(SIZE) == whole.scales(SIZE) and joined.scales(SIZE)[0] == map_scale(IMAGES, SIZE)
    assert joined.scales(SIZE)[1] == (mean_scale(IMAGES, SIZE) if means else map_scale(IMAGES, SIZE))


def test_rules_give_the_maximum_or_the_mean():
    found = {"seg": few([0, 0, 0, 1], [0, 0, 0, 0]), "det": few([0, 0, 2, 2], [0, 0, 0, 4])}
    as_it_is = Calibration(Scale(None, (0.0, 1.0)), Scale(None, (0.0, 1.0)), {}, {})

    def scores(masks: bool, transfer: bool) -> list[float]:
        return score_rule(masks, transfer).raw_scores(found).image_scores(SIZE, as_it_is)["few"].tolist()

    assert scores(masks=True, transfer=False) == [1, 0]  # the seg map's maximum
    for masks, transfer in ((False, False), (False, True), (True, True)):
        assert scores(masks, transfer) == [1, 1]  # the mean of the det tokens


def test_maps_are_scaled_over_all_images():
    found = few([2, 3, 4, 5], [3, 6, 3, 3])
    maps = full_maps(found, map_scale(found, SIZE), SIZE, "few")
    assert maps.dtype == np.float32
    assert maps[0].tolist() == [[0, 0.25], [0.5, 0.75]] and maps[1].tolist() == [[0.25, 1], [0.25, 0.25]]

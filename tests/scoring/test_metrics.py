"""Metrics against values worked out by hand, scikit-learn, and a slow AUPRO."""

from math import isnan

import numpy as np
import pytest
from helpers.counting import binned_pixel_metrics
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    precision_recall_curve,
    roc_auc_score,
)

from scoring import metrics
from scoring.metrics import at_threshold, balanced_accuracy_max, image_metrics, pixel_metrics


def random_scores(seed: int, many: int = 400, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes; `levels` rounds the scores so that most are tied."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(many) < 0.3).astype(np.int64)
    scores = (rng.normal(size=many) + labels).astype(np.float32)
    return (np.round(scores * levels) / levels if levels else scores).astype(np.float32), labels


def random_maps(seed: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(6, 9, 11) maps and masks with several regions, one image normal."""
    rng = np.random.default_rng(seed)
    masks = rng.random((6, 9, 11)) < 0.15
    masks[2] = False
    maps = (rng.random(masks.shape) + 0.4 * masks).astype(np.float32)
    return (np.round(maps * levels) / levels if levels else maps).astype(np.float32), masks


def regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected regions by flood fill."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        found.append(region)
    return found


def slow_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """One point of the curve per distinct score, trapezoids between them, the last cut at the limit."""
    parts = [(index, region) for index, mask in enumerate(masks) for region in regions(mask)]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        rates.append(float((called & ~masks).sum() / (~masks).sum()))
        overlaps.append(float(np.mean([np.mean([called[i, y, x] for y, x in part]) for i, part in parts])))
    area = 0.0
    for x0, x1, y0, y1 in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if x1 > x0 and x0 < limit:
            end = min(x1, limit)
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def test_image_metrics_by_hand():
    # from the top: abnormal 0.8 (precision 1), normal 0.4, abnormal 0.35 (precision 2/3), normal 0.1
    found = image_metrics(np.float32([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    assert found["auroc"] == 3 / 4
    assert found["ap"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3, abs=1e-15)
    assert found["f1_max"] == 0.8
    assert found["threshold"] == np.float32(0.35)


def test_ties_count_half():
    found = image_metrics(np.float32([1, 1, 0, 0]), np.array([1, 0, 1, 0]))
    assert found == {"auroc": 0.5, "ap": 0.5, "f1_max": 2 / 3, "threshold": 0.0}


def test_constant_and_perfect_and_reversed_scores():
    labels = np.array([0, 0, 0, 1])
    assert image_metrics(np.zeros(4, np.float32), labels)["auroc"] == 0.5
    assert image_metrics(np.zeros(4, np.float32), labels)["ap"] == 0.25
    perfect = {"auroc": 1.0, "ap": 1.0, "f1_max": 1.0, "threshold": 3.0}
    assert image_metrics(np.float32([0, 1, 2, 3]), labels) == perfect
    assert image_metrics(np.float32([3, 2, 1, 0]), labels)["auroc"] == 0.0


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_image_metrics_equal_scikit_learn(seed, levels):
    scores, labels = random_scores(seed, levels=levels)
    found = image_metrics(scores, labels)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert found["f1_max"] == pytest.approx(f1.max(), abs=1e-12)
    assert found["threshold"] == thresholds[np.flatnonzero(f1 > f1.max() - 1e-12)[0]]


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_surpasses_the_best_balanced_accuracy(seed, levels):
    scores, labels = random_scores(seed, levels=levels)
    called = [(scores >= threshold).astype(int) for threshold in [*np.unique(scores), np.inf]]
    expected = max(balanced_accuracy_score(labels, one) for one in called)
    assert balanced_accuracy_max(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_the_best_threshold_of_reversed_scores_calls_nothing_abnormal():
    assert balanced_accuracy_max(np.float32([2, 1]), np.array([0, 1])) == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_is_nan(label):
    assert np.isnan(balanced_accuracy_max(np.float32([0.2, 0.5]), np.array([label, label])))
    found = image_metrics(np.float32([0.2, 0.5]), np.array([label, label]))
    assert found.keys() == {"auroc", "ap", "f1_max", "threshold"}
    assert all(map(isnan, found.values()))
    pixels = pixel_metrics(np.ones((2, 3, 3), np.float32), np.full((2, 3, 3), label))
    assert pixels.keys() == {"auroc", "ap", "f1_max", "threshold", "aupro"}
    assert all(map(isnan, pixels.values()))
    rates = at_threshold(np.float32([0.2, 0.5]), np.array([label, label]), 0.3)
    assert [isnan(rates["sensitivity"]), isnan(rates["specificity"])] == [label == 0, label == 1]


def test_no_images_at_all_is_nan():
    assert all(map(isnan, image_metrics(np.empty(0, np.float32), np.empty(0, int)).values()))
    assert all(map(isnan, pixel_metrics(np.empty((0, 3, 3), np.float32), np.empty((0, 3, 3), bool)).values()))


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(fault):
    scores, labels = np.float32([0.1, fault, 0.3]), np.array([0, 1, 1])
    with pytest.raises(ValueError, match="not a finite number"):
        image_metrics(scores, labels)
    with pytest.raises(ValueError, match="not a finite number"):
        at_threshold(scores, labels, 0.2)
    maps, masks = random_maps(0)
    maps[3, 4, 5] = fault
    with pytest.raises(ValueError, match="not a finite number"):
        pixel_metrics(maps, masks)


def test_shapes_that_do_not_fit_are_refused():
    maps, masks = random_maps(0)
    with pytest.raises(ValueError):
        image_metrics(np.zeros(3, np.float32), np.zeros(4, int))
    for wrong in (maps[:5], maps[:, :8], maps[0], np.concatenate([maps, maps])):
        with pytest.raises(ValueError):
            pixel_metrics(wrong, masks)


def test_at_threshold_counts_a_score_at_it_as_abnormal():
    scores, labels = np.float32([0.1, 0.5, 0.5, 0.9]), np.array([0, 0, 1, 1])
    assert at_threshold(scores, labels, 0.5) == {"sensitivity": 1.0, "specificity": 0.5}
    assert at_threshold(scores, labels, 0.6) == {"sensitivity": 0.5, "specificity": 1.0}
    assert all(map(isnan, at_threshold(scores, labels, float("nan")).values()))


def test_stored_threshold_gives_back_its_f1():
    scores, labels = random_scores(3)
    found = image_metrics(scores, labels)
    called = scores >= found["threshold"]
    f1 = 2 * np.sum(called & (labels == 1)) / (called.sum() + labels.sum())
    assert f1 == found["f1_max"]
    rates = at_threshold(scores, labels, found["threshold"])
    assert rates["sensitivity"] == np.mean(called[labels == 1])
    assert rates["specificity"] == np.mean(~called[labels == 0])


@pytest.mark.parametrize("levels", [None, 2, 8])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_metrics_equal_scikit_learn_and_slow_aupro(seed, levels):
    maps, masks = random_maps(seed, levels)
    found = pixel_metrics(maps, masks)
    assert found["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert found["ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert found["f1_max"] == image_metrics(maps.ravel(), masks.ravel())["f1_max"]
    assert found["threshold"] == image_metrics(maps.ravel(), masks.ravel())["threshold"]
    assert found["aupro"] == pytest.approx(slow_aupro(maps, masks), abs=1e-12)
    whole = pixel_metrics(maps, masks, fpr_limit=1.0)["aupro"]
    assert whole == pytest.approx(slow_aupro(maps, masks, 1.0), abs=1e-12)


def one_map(regions_and_scores: dict[int, list[float]], normal: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """One row of pixels: regions kept apart by a normal pixel, the other normal pixels behind."""
    row, mask, rest = [], [], list(normal)
    for scores in regions_and_scores.values():
        row += [*scores, rest.pop()]
        mask += [1] * len(scores) + [0]
    row, mask = row + rest, mask + [0] * len(rest)
    return np.float32(row)[None, None], np.array(mask)[None, None]


def test_aupro_weighs_regions_not_pixels():
    # 3-pixel region first; one of ten normal pixels (rate 0.1) before the 1-pixel region: 0.1 · 0.5 + 0.2 · 1
    maps, masks = one_map({0: [0.9, 0.9, 0.9], 1: [0.7]}, [0.8, 0.65, 0.65, *[0.1] * 7])
    assert pixel_metrics(maps, masks)["aupro"] == pytest.approx(0.25 / 0.3, abs=1e-12)


def test_aupro_is_interpolated_at_the_limit():
    # half the region at rate 0; the rest tied with six of ten normal pixels: 0.5 to 1 over 0..0.6
    maps, masks = one_map({0: [0.9, 0.5]}, [*[0.5] * 6, *[0.0] * 4])
    assert pixel_metrics(maps, masks)["aupro"] == pytest.approx((0.5 + 0.75) / 2, abs=1e-12)


def test_aupro_of_perfect_constant_and_worst_maps():
    masks = np.zeros((2, 5, 5), bool)
    masks[0, 1:3, 1:3] = True
    assert pixel_metrics(masks.astype(np.float32), masks)["aupro"] == pytest.approx(1, abs=1e-12)
    assert pixel_metrics(np.ones(masks.shape, np.float32), masks)["aupro"] == pytest.approx(0.15, abs=1e-12)
    assert pixel_metrics(1 - masks.astype(np.float32), masks)["aupro"] == 0


def test_pixels_that_touch_at_a_corner_are_one_region():
    masks = np.zeros((1, 5, 5), np.uint8)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 4, 4] = 255
    maps = np.zeros(masks.shape, np.float32)
    maps[0, 4, 4] = 1  # one of two regions found, the other tied with every normal pixel: 0.5 to 0.65
    assert pixel_metrics(maps, masks)["aupro"] == pytest.approx((0.5 + 0.65) / 2, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2, 8])
def test_bands_and_chunks_change_nothing(monkeypatch, levels):
    maps, masks = random_maps(7, levels)
    whole = pixel_metrics(maps, masks)
    for band, chunk, steps in [(50, 100, 3), (200, 99, 1), (7, 1000, 2), (10_000, 1, 5)]:
        monkeypatch.setattr(metrics, "BAND", band)
        monkeypatch.setattr(metrics, "CHUNK", chunk)
        monkeypatch.setattr(metrics, "STEPS", steps)
        assert pixel_metrics(maps, masks) == pytest.approx(whole, abs=1e-12)


def test_a_score_that_fills_several_bands(monkeypatch):
    maps, masks = random_maps(8)
    maps[maps < 0.8] = 0.25
    whole = pixel_metrics(maps, masks)
    monkeypatch.setattr(metrics, "BAND", 60)
    assert any(np.nextafter(low, np.float32(1)) == high for low, high in metrics._bands(maps))
    assert pixel_metrics(maps, masks) == pytest.approx(whole, abs=1e-12)
    assert whole["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_other_types_or_a_file_give_the_same(tmp_path):
    maps, masks = random_maps(4, levels=16)
    whole, before = pixel_metrics(maps, masks), maps.copy()
    assert np.array_equal(maps, before)
    assert pixel_metrics(maps.astype(np.float64), masks.astype(np.uint8) * 255) == whole
    np.save(tmp_path / "maps.npy", maps)
    assert pixel_metrics(np.load(tmp_path / "maps.npy", mmap_mode="r"), masks) == whole


def test_order_of_images_does_not_matter():
    maps, masks = random_maps(5, levels=8)
    order = np.random.default_rng(0).permutation(len(maps))
    assert pixel_metrics(maps[order], masks[order]) == pytest.approx(pixel_metrics(maps, masks), abs=1e-12)


def test_one_pass_figures_are_the_exact_ones():
    rng = np.random.default_rng(3)
    masks = np.zeros((12, 40, 40), bool)
    for row in range(0, 12, 2):
        top, left = rng.integers(0, 20, 2)
        masks[row, top : top + 9, left : left + 13] = True
    masks[0, 35:, 35:] = True
    maps = np.clip(rng.normal(0.4, 0.15, masks.shape) + 0.2 * masks, 0, 1).astype(np.float32)
    exact = pixel_metrics(maps, masks)
    pieces = [(maps[first : first + 5], masks[first : first + 5]) for first in (0, 5, 10)]
    found = binned_pixel_metrics(iter(pieces))
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        assert found[name] == pytest.approx(value, abs=1e-6 if name.startswith("au") else 1e-5), name
    coarse = binned_pixel_metrics(iter(pieces), bins=8)
    assert coarse["auroc"] != pytest.approx(exact["auroc"], abs=1e-6)
    with pytest.raises(ValueError, match="not a finite number"):
        binned_pixel_metrics(iter([(maps * np.nan, masks)]))
    assert all(map(isnan, binned_pixel_metrics(iter([(maps, masks * False)])).values()))

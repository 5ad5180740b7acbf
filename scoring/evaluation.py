"""Raw scores of a test set to figures."""

from collections.abc import Sequence

import numpy as np

from scoring import metrics
from scoring.map_pass import MapPass, map_pass
from scoring.maps import Calibration, Scale, branches_on, map_scale
from scoring.raw_scores import Masks, RawScores, full_maps, main_branch, measure

IN_MEMORY = 1 << 26  # pixels whose maps are kept for exact figures; those of more are counted in one pass
ABOVE_HALF = float(np.nextafter(np.float32(0.5), np.float32(1)))  # float32 scores from here on are above a half


def branch_figures(
    raw: RawScores, labels: np.ndarray, masks: Masks | None, size: int, calibration: Calibration | None
) -> dict[str, dict[str, float]]:
    """Figures by branch over a test set: labels (N,) in {0, 1}, masks bool (N, S, S) or None.

    Scores are min-max scaled over the test set as published, or by a `ScoreRecipe` that is `support_scaled` as the
    calibration scales and fuses them; so are those of sensitivity and specificity "at half", which count an image as
    abnormal above 0.5, as the reproduction study does. The others are at the calibration's threshold, on scores scaled
    by the calibration; beside them `balanced_accuracy_max` says what the best threshold would have given. Raises
    InputError when a score is not a number.
    """
    by_support = calibration is not None and raw.map_patches.recipe.support_scaled
    seen = MapPass()
    if masks is not None:
        own = map_scale(raw.map_patches, size)
        limits = calibration.maps.within(own) if by_support else own
        scales = {} if by_support else {None: own}
        if calibration is not None:
            scales[calibration.maps] = calibration.maps
        seen = pixel_figures(raw, limits, size, masks, branches_on(raw.map_patches), scales)
    judged = {} if calibration is None else raw.image_scores(size, calibration, seen.highest)
    figures = {}
    for branch, scores in (judged if by_support else raw.image_scores(size, known=seen.highest)).items():
        figures[branch] = _image_figures(scores.numpy(), labels)
        if branch in judged:
            threshold = calibration.image[branch]
            figures[branch] |= measure(metrics.at_threshold, judged[branch].numpy(), labels, threshold)
            best = measure(metrics.balanced_accuracy_max, judged[branch].numpy(), labels)
            figures[branch]["balanced_accuracy_max"] = best
    for branch, found in seen.pixels.items():
        figures[branch] |= {f"pixel_{name}": found[name] for name in ("auroc", "ap", "f1_max", "aupro")}
    return figures


def _image_figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    found = measure(metrics.image_metrics, scores, labels)
    halved = measure(metrics.at_threshold, scores, labels, ABOVE_HALF)
    figures = {f"image_{name}": found[name] for name in ("auroc", "ap", "f1_max")}
    return figures | {f"{name}_at_half": value for name, value in halved.items()}


def pixel_figures(
    raw: RawScores, limits: Scale, size: int, masks: Masks, branches: Sequence[str], scales: dict[Scale | None, Scale]
) -> MapPass:
    """`metrics.pixel_metrics` of branches on maps scaled by `limits`.

    Of more pixels than IN_MEMORY as exact as `PixelCounts` says, and in one pass: where image scores are of maps, it
    finds them too, by each of `scales` (`map_pass`).
    """
    patches = raw.map_patches
    if len(patches) * size**2 > IN_MEMORY:
        scales = scales if raw.mean_patches is None else {}
        return measure(map_pass, patches, limits, size, masks, branches, scales)
    found = {}
    for branch in branches:  # one at a time: a branch's maps may fill much of the memory
        found[branch] = measure(metrics.pixel_metrics, full_maps(patches, limits, size, branch), masks[:])
    return MapPass(found)


def selection(raw: RawScores, labels: np.ndarray, masks: Masks | None, size: int) -> dict[str, float]:
    """The figures whose sum the published scripts choose the best epoch by: image AUROC, with masks pixel AUROC."""
    branch, seen, value = main_branch(raw.map_patches), MapPass(), {}
    if masks is not None:
        own = map_scale(raw.map_patches, size)
        seen = pixel_figures(raw, own, size, masks, [branch], {None: own})
        value["pixel_auroc"] = seen.pixels[branch]["auroc"]
    scores = raw.image_scores(size, known=seen.highest)[branch]
    return {"image_auroc": measure(metrics.image_metrics, scores.numpy(), labels)["auroc"]} | value

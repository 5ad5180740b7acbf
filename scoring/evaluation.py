"""Raw scores of a test set to figures."""

from collections.abc import Iterator

import numpy as np

from scoring import metrics
from scoring.maps import Calibration, Scale, map_scale, scaled_maps
from scoring.patch_scores import PatchScores
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
    by the calibration. Raises InputError when a score is not a number.
    """
    figures = {}
    judged = {} if calibration is None else raw.image_scores(size, calibration)
    by_support = calibration is not None and raw.map_patches.recipe.support_scaled
    for branch, scores in (judged if by_support else raw.image_scores(size)).items():
        found = measure(metrics.image_metrics, scores.numpy(), labels)
        figures[branch] = {f"image_{name}": found[name] for name in ("auroc", "ap", "f1_max")}
        halved = measure(metrics.at_threshold, scores.numpy(), labels, ABOVE_HALF)
        figures[branch] |= {f"{name}_at_half": value for name, value in halved.items()}
        if branch in judged:
            threshold = calibration.image[branch]
            figures[branch] |= measure(metrics.at_threshold, judged[branch].numpy(), labels, threshold)
    if masks is not None:
        scale = map_scale(raw.map_patches, size)
        if by_support:
            scale = calibration.maps.within(scale)
        for branch in figures:  # one at a time: a branch's maps may fill much of the memory
            found = pixel_figures(raw.map_patches, scale, size, branch, masks)
            figures[branch] |= {f"pixel_{name}": found[name] for name in ("auroc", "ap", "f1_max", "aupro")}
    return figures


def pixel_figures(patches: PatchScores, scale: Scale, size: int, branch: str, masks: Masks) -> dict[str, float]:
    """`metrics.pixel_metrics` of a branch; of more pixels than IN_MEMORY in one pass, to about 1e-7."""
    if len(patches) * size**2 <= IN_MEMORY:
        return measure(metrics.pixel_metrics, full_maps(patches, scale, size, branch), masks[:])

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = 0
        for part in scaled_maps(patches, scale, size, branch):
            yield part.numpy(), masks[first : first + len(part)]
            first += len(part)

    return measure(metrics.binned_pixel_metrics, pieces())


def selection(raw: RawScores, labels: np.ndarray, masks: Masks | None, size: int) -> dict[str, float]:
    """The figures whose sum the published scripts choose the best epoch by: image AUROC, with masks pixel AUROC."""
    branch = main_branch(raw.map_patches)
    value = {"image_auroc": measure(metrics.image_metrics, raw.image_scores(size)[branch].numpy(), labels)["auroc"]}
    if masks is not None:
        scale = map_scale(raw.map_patches, size)
        value["pixel_auroc"] = pixel_figures(raw.map_patches, scale, size, branch, masks)["auroc"]
    return value

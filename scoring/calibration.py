"""Calibration on images of known label: the range of each branch's scores, and thresholds of images and pixels."""

from dataclasses import dataclass, replace

import numpy as np

from scoring import metrics
from scoring.cues import FLOOR, CueWeights
from scoring.maps import Calibration, highest
from scoring.patch_scores import PatchScores
from scoring.raw_scores import Masks, RawScores, full_maps, main_branch, measure
from scoring.reliability import Evidence, ThresholdRule

CALIBRATION_IMAGES = 64  # normal support images, or images of an object trained on, that are looked at; at most
DARK_QUANTILE = 0.98  # of the normal support's pixels that have no colour in pictures
NORMAL_QUANTILE = 0.995  # of the normal support's pixels below the threshold, where no mask says better
BALANCED = ThresholdRule("balanced")
NEAR_BEST = 0.05  # AUROC that a tap may lack to the best one and still count


@dataclass(frozen=True)
class Known:
    """What is known of images that scores are calibrated on.

    labels: (V,) in {0, 1}. masks: bool (V, S, S) or None. images: (V,), equal for the variants of an image, itself
    first. held_out: whether no image was known to the system that scored it.
    """

    labels: np.ndarray
    masks: Masks | None
    images: np.ndarray
    held_out: bool = True


@dataclass(frozen=True)
class CalibrationRule:
    """What the support decides: the image threshold how, and whether the branches' shares and the bank's taps too."""

    threshold: ThresholdRule = BALANCED
    fuse_by_support: bool = False
    taps_by_support: bool = False


def calibrate(
    raw: RawScores, known: Known, size: int, rule: CalibrationRule | None = None, pixels: bool = True
) -> Calibration:
    """Scales and thresholds from the support's scores and what is known of it.

    pixels: what is of pixels too, which takes most of the time; else `Calibration.pixel` and `dark` stay empty.
    """
    rule, labels = rule or CalibrationRule(), known.labels
    both = bool(labels.any() and not labels.all())
    taps = separating_taps(raw.map_patches, labels) if rule.taps_by_support and both else None
    raw = raw.of_taps(taps)
    found = Calibration(*raw.scales(size), {}, {}, taps=taps)
    if rule.fuse_by_support and both:
        share = zero_share(raw, found, labels, size)
        found = replace(found, maps=replace(found.maps, share=share), means=replace(found.means, share=share))
    judged = raw.image_scores(size, found)
    if raw.cues is not None:
        branch = main_branch(raw.map_patches)
        whole = raw.cues.beside(judged[branch])
        found = replace(found, cues=CueWeights.fit(whole, labels))
        judged[branch] = found.cues.crossed(whole, labels, known.images)
    for branch, scores in judged.items():
        values = measure(metrics.finite, scores.double().numpy())
        found.evidence[branch] = Evidence.of(values, labels, known.images, known.held_out)
        found.image[branch] = found.evidence[branch].threshold(rule.threshold)
        if pixels:
            maps = full_maps(raw.map_patches, found.maps, size, branch)
            found.pixel[branch] = pixel_threshold(maps, labels, known.masks)
            found.dark[branch] = dark_end(maps, labels, known.masks)
    return found


def zero_share(raw: RawScores, found: Calibration, labels: np.ndarray, size: int) -> float:
    """The zero branch's share of the fusion: its weight beside few's, each as a cue's by the AUROC of its image scores
    (`CueWeights.fit`). Shrunk so, it lies between 0.23 and 0.77; a half where one of the branches is off."""
    scores = raw.image_scores(size, found)
    if "fused" not in scores:
        return found.maps.share
    zero, few = (_weight(scores[branch].numpy(), labels) for branch in ("zero", "few"))
    return zero / (zero + few)


def _weight(scores: np.ndarray, labels: np.ndarray) -> float:
    return FLOOR + (1 - FLOOR) * max(0.0, 2 * float(metrics.image_metrics(scores, labels)["auroc"]) - 1)


def separating_taps(patches: PatchScores, labels: np.ndarray) -> tuple[int, ...] | None:
    """The taps, counted from 0, whose highest distance to the bank tells the labels apart nearly as well as the best
    one's does; None without a bank."""
    if patches.few is None:
        return None
    scores = [highest(patches.few[:, tap], 0.0).numpy() for tap in range(patches.few.shape[1])]
    aurocs = [metrics.image_metrics(one, labels)["auroc"] for one in scores]
    return tuple(tap for tap, auroc in enumerate(aurocs) if auroc >= max(aurocs) - NEAR_BEST)


def dark_end(maps: np.ndarray, labels: np.ndarray, masks: np.ndarray | None) -> float:
    """Where colours begin: what nearly all pixels of normal images' maps, of (V, S, S), stay below; 0 without any.

    With masks, normal is where nothing is marked: the labels may then be those of more images than the maps.
    """
    normal = maps[labels == 0 if masks is None else ~masks.any(axis=(1, 2))]
    return float(np.quantile(normal, DARK_QUANTILE)) if normal.size else 0.0


def pixel_threshold(maps: np.ndarray, labels: np.ndarray, masks: np.ndarray | None) -> float:
    """F1-max over the support's pixels, or a high quantile of its normal images' pixels where no mask is.

    Without normal images either, just above the highest value: then no pixel is known to be abnormal.
    """
    if masks is not None and masks.any():
        return float(measure(metrics.pixel_metrics, maps, masks)["threshold"])
    normal = maps[labels == 0]
    return float(np.quantile(normal, NORMAL_QUANTILE) if normal.size else np.nextafter(maps.max(), np.float32(np.inf)))

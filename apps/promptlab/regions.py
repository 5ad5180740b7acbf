"""The regions of one image's map, in the image's own pixels."""

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from dataset.images import image_size
from engine.findings import Finding, FindingTexts, find_regions
from engine.tiles import tiles


def described(
    image: Path, anomaly_map: np.ndarray, threshold: float, mean: bool, texts: FindingTexts, margins: Tensor
) -> tuple[Finding, ...]:
    """The regions of a map (S, S) as those of the image's file, with what they resemble, the highest first.

    threshold, mean: as `find_regions` takes them. margins: (F, G, G), as `FindingTexts.margins` gives them.
    """
    width, height = image_size(image)
    full = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    found, (tile,) = find_regions(full, threshold, mean), tiles((height, width), None)
    return found.compared(texts, [(tile, margins)]).sorted()

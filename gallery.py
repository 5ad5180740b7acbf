"""One picture per test image: its map on the calibrated scale, beside what is known of it."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dataset import Sample
from evaluation import Views, main_branch
from figures import ColourScale, panel_names, save_panel
from scoring import Calibration, map_scale, scaled_maps


def save_maps(folder: Path, samples: Sequence[Sample], seen: Views, calibration: Calibration | None, size: int) -> None:
    """Write input | ground truth | anomaly map | overlay | predicted mask of every sample into `folder`.

    Maps are scaled by the support, so 0 to 1 means the same in every picture and for an image alone. Without a
    calibration they are scaled over these images, and there is no threshold for a predicted mask.
    """
    branch = main_branch(seen.maps)
    scores = seen.image_scores(size, calibration)[branch]
    if calibration is None:
        limits, scale = map_scale(seen.maps, size), ColourScale(0.0, 1.0)
    else:
        limits, scale = calibration.maps, ColourScale(0.0, 1.0, calibration.pixel[branch], calibration.image[branch])
    names = panel_names([sample.image for sample in samples])
    maps = (one for part in scaled_maps(seen.maps, limits, size, branch) for one in part)
    rows = zip(samples, names, maps, scores, strict=True)
    for sample, name, anomaly_map, score in tqdm(rows, desc="pictures", total=len(samples), leave=False):
        save_panel(
            folder / name,
            sample.image,
            sample.mask,
            anomaly_map.numpy(),
            scale,
            score=float(score),
            label=sample.label,
        )
    print(f"pictures: {folder}")

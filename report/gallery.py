"""What a run shows of its test images: a picture of each one's map, and the rows of its report page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from dataset import Sample, read_rgb
from report.colours import ColourScale, overlay
from report.html_report import Row
from report.panels import panel_names, save_panel
from runtime.bars import Bar
from scoring.calibration import Calibration
from scoring.maps import Scale, map_scale, scaled_maps
from scoring.raw_scores import RawScores, main_branch
from scoring.reliability import Verdict


@dataclass(frozen=True)
class Shown:
    """Test images under the branch that stands for the run, all on one scale.

    Scores and maps are scaled by the support, so 0 to 1 means the same for every image and for one alone. Without a
    calibration they are scaled over these images, and no threshold is known.
    """

    branch: str
    scores: np.ndarray  # (N,)
    limits: Scale
    colours: ColourScale

    @staticmethod
    def of(raw: RawScores, calibration: Calibration | None, size: int) -> "Shown":
        """What is to be shown of `raw`."""
        branch = main_branch(raw.map_patches)
        scores = raw.image_scores(size, calibration)[branch].numpy()
        if calibration is None:
            return Shown(branch, scores, map_scale(raw.map_patches, size), ColourScale(0.0, 1.0))
        dark = calibration.dark.get(branch, 0.0)
        colours = ColourScale(dark, 1.0, calibration.pixel[branch], calibration.image[branch])
        return Shown(branch, scores, calibration.maps, colours)

    def map_of(self, raw: RawScores, place: int, size: int) -> np.ndarray:
        """One image's map (size, size) float32."""
        (part,) = scaled_maps(raw.map_patches[place : place + 1], self.limits, size, self.branch)
        return part[0].numpy()


def save_maps(
    folder: Path, samples: Sequence[Sample], raw: RawScores, calibration: Calibration | None, size: int
) -> None:
    """Write input | ground truth | anomaly map | overlay | predicted mask of every sample into `folder`."""
    shown = Shown.of(raw, calibration, size)
    names = panel_names([sample.image for sample in samples])
    maps = (one for part in scaled_maps(raw.map_patches, shown.limits, size, shown.branch) for one in part)
    rows = zip(samples, names, maps, shown.scores, strict=True)
    for sample, name, anomaly_map, score in Bar(rows, desc="pictures", total=len(samples), leave=False):
        save_panel(
            folder / name,
            sample.image,
            sample.mask,
            anomaly_map.numpy(),
            shown.colours,
            score=float(score),
            label=sample.label,
        )
    print(f"pictures: {folder}")


def overlays(samples: Sequence[Sample], raw: RawScores, shown: Shown, size: int, count: int) -> Iterator[np.ndarray]:
    """The `count` highest scored samples as the model sees them, beside their maps: uint8 RGB (size, 2 size, 3)."""
    for place in np.argsort(-shown.scores, kind="stable")[:count].tolist():
        picture = cv2.resize(read_rgb(samples[place].image), (size, size), interpolation=cv2.INTER_AREA)
        mixed = overlay(picture, shown.map_of(raw, place, size), None, shown.colours)
        yield np.concatenate([picture, mixed], axis=1)


def page_rows(
    samples: Sequence[Sample], raw: RawScores, shown: Shown, size: int, calibration: Calibration | None
) -> list[Row]:
    """A row of the report page for every sample; maps are made when the page asks for them."""
    evidence = None if calibration is None else calibration.evidence.get(shown.branch)
    verdicts = [Verdict.of(float(score), shown.colours.score_threshold, evidence) for score in shown.scores]
    return [
        Row(
            _name(sample.image),
            float(score),
            sample.label,
            image=sample.image,
            truth=sample.mask,
            map=partial(shown.map_of, raw, place, size),
            confidence=verdict.confidence,
            uncertain=verdict.uncertain,
        )
        for place, (sample, score, verdict) in enumerate(zip(samples, shown.scores, verdicts, strict=True))
    ]


def _name(image: Path) -> str:
    """The file's name behind the folders that tell it from others: Ungood/img/003.png."""
    return "/".join(image.parts[-3:] if image.parent.name == "img" else image.parts[-2:])

"""Every test image's scores, as a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset import Sample
from runtime.files import atomic_write, no_formula
from scoring.maps import Calibration
from scoring.raw_scores import RawScores, main_branch
from scoring.reliability import Verdict


def write_scores(
    path: Path,
    samples: Sequence[Sample],
    snapshots: Sequence[tuple[str, RawScores, Calibration | None]],
    root: Path,
    size: int,
) -> None:
    """Write a row for every snapshot (which, raw scores, calibration) and image: its file below `root`, its label.

    Scores are by branch, as the calibration scales them, else scaled over these images; `threshold` and `abnormal` are
    of the last branch, empty without a calibration.
    """
    import pandas as pd  # 30 MB that are only needed here, at the end

    tables = []
    for selected, seen, calibration in snapshots:
        branch = main_branch(seen.map_patches)
        scores = {name: values.numpy() for name, values in seen.image_scores(size, calibration).items()}
        threshold = np.nan if calibration is None else calibration.image[branch]
        columns = {
            "image": [image_name(sample.image, root) for sample in samples],
            "label": [sample.label for sample in samples],
            "selected": selected,
            **scores,
            "threshold": threshold,
            "abnormal": None if calibration is None else (scores[branch] >= threshold).astype(int),
            **_verdicts(scores[branch], threshold, calibration, branch),
        }
        tables.append(pd.DataFrame(columns))
    with atomic_write(path) as draft:
        pd.concat(tables).to_csv(draft, index=False, errors="backslashreplace")


def _verdicts(scores: np.ndarray, threshold: float, calibration: Calibration | None, branch: str) -> dict[str, list]:
    """How sure the verdicts are, by column; empty where no image that was held out says so."""
    evidence = None if calibration is None else calibration.evidence.get(branch)
    found = [Verdict.of(float(score), threshold, evidence) for score in scores]
    known = evidence is not None and evidence.held_out
    return {
        "confidence": [one.confidence for one in found],
        "p_value": [one.p_value for one in found],
        "uncertain": [int(one.uncertain) if known else None for one in found],
    }


def image_name(image: Path, root: Path) -> str:
    """What the table calls an image: its place below `root`, in letters that a spreadsheet takes for nothing else."""
    return no_formula((image.relative_to(root) if image.is_relative_to(root) else image).as_posix())

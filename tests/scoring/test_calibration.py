"""What a support decides of fusion, and that its own scores are not flattered by it."""

import numpy as np
import torch

from scoring.calibration import CalibrationRule, Known, calibrate
from scoring.cues import Cues, CueWeights
from scoring.patch_scores import PatchScores
from scoring.raw_scores import RawScores
from scoring.reliability import auroc_interval

LABELS = np.repeat([0, 1], 4)
IMAGES = np.arange(8)


def test_shares_are_by_what_each_branch_tells_apart():
    """Zero knows the labels and few knows nothing: 1 / (1 + 0.3), a plain number that a checkpoint can hold."""
    zero = torch.from_numpy(LABELS).float().view(8, 1, 1, 1).expand(8, 2, 3, 3)
    raw = RawScores(PatchScores(zero, torch.full((8, 2, 3, 3), 0.5)), None)
    found = calibrate(raw, Known(LABELS, None, IMAGES), 6, CalibrationRule(fuse_by_support=True), pixels=False)
    assert type(found.maps.share) is float and abs(found.maps.share - 1 / 1.3) < 1e-9


def test_weights_do_not_flatter_the_support_that_chose_them():
    """Of many cues that know nothing, weights of all images find a separation that is none; crossed ones do not."""
    rng, flattered, crossed = np.random.default_rng(0), [], []
    for _ in range(200):
        cues = Cues(torch.from_numpy(rng.normal(size=(8, 8))).float(), tuple(map(str, range(8))))
        weights = CueWeights.fit(cues, LABELS)
        for found, scores in (
            (flattered, weights.scores(cues)),
            (crossed, weights.crossed(cues, LABELS, IMAGES)),
        ):
            values = scores.numpy()
            found.append(auroc_interval(values[:4], values[4:]).auroc)
    assert np.mean(flattered) > 0.6
    assert abs(np.mean(crossed) - 0.5) < 0.05


def test_of_a_labels_only_image_there_are_no_others():
    cues = Cues(torch.arange(6.0).view(3, 2), ("a", "b"))
    weights = CueWeights.fit(cues, np.array([0, 0, 1]))
    found = weights.crossed(cues, np.array([0, 0, 1]), np.arange(3))
    assert found.isfinite().all() and found[2] == weights.scores(cues)[2]

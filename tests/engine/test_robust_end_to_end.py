"""The robust recipe from training to a verdict, on a support that it separates."""

import pytest
from helpers.lab import Lab
from PIL import Image

from engine import Predictor
from engine.checkpoint import read


@pytest.mark.parametrize("shot", [1, 3])
def test_what_it_trains_can_be_opened_and_predicts(lab: Lab, shot: int):
    """Where labels are told apart the branches' shares are no halves, and a file must hold them as plain numbers."""
    folder = lab.medical("Brain", valid=(4, 4), test=(2, 2))
    for file in folder.rglob("Ungood/img/*"):
        with Image.open(file) as image:
            white = Image.new("RGB", image.size, "white")
        white.save(file)
    lab.done("train_few", "--recipe", "robust", "--folds", 3, "--shot", shot, "--iterate", -1, "--eval_every", 0)
    path = lab.root / "ckpt" / f"Brain_{shot}-shot.pth"
    calibration = read(path).last.calibration
    assert all(type(one.share) is float for one in (calibration.maps, calibration.means))
    assert max(calibration.cues.weights) == 1  # something told them apart
    known = calibration.evidence["fused"]
    assert len(known.normal) == len(known.abnormal) == shot
    found = Predictor.from_checkpoint(path).predict(next(folder.rglob("test/good/img/*")))
    assert found.uncertain or shot > 1

"""The public predictor: whatever comes as a picture, batches, threads, regions of the map, clear faults."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.lab import Lab
from PIL import Image

from engine import Predictor
from engine.predictor import to_picture
from runtime.errors import InputError


@pytest.fixture(scope="module")
def predictor(trained: Lab) -> Predictor:
    """Of a small few-shot checkpoint."""
    return Predictor.from_checkpoint(trained.root / "ckpt" / "Brain_1-shot.pth", device="cpu", cache_gb=0)


@pytest.fixture
def pixels() -> np.ndarray:
    """A colour picture (30, 40, 3) of uint8."""
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def test_every_kind_of_picture_gives_the_same_bits(predictor, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    channels = torch.from_numpy(pixels).movedim(-1, 0)
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, pixels / 255]
    kinds += [channels, channels / 255, channels.double() / 255]
    found = [predictor.predict(kind) for kind in kinds]
    assert found[0].anomaly_map.shape == (30, 40) and found[0].anomaly_map.dtype == np.float32
    assert all(one.score == found[0].score for one in found)
    assert all(np.array_equal(one.anomaly_map, found[0].anomaly_map) for one in found)


def test_grey_pictures(predictor, pixels):
    grey = pixels[..., 0]
    colour = predictor.predict(np.repeat(grey[..., None], 3, axis=2)).score
    kinds = [grey, Image.fromarray(grey), torch.from_numpy(grey), torch.from_numpy(grey)[None]]
    assert [predictor.predict(kind).score for kind in kinds] == [colour] * 4
    assert predictor.predict(grey / 255).score == pytest.approx(colour, abs=1e-2)  # not rounded to 8 bits


def test_a_batch_scores_each_picture_as_alone(predictor, pixels):
    other = pixels[::-1].copy()
    alone = [predictor.predict(one).score for one in (pixels, other)]
    stacked = np.stack([pixels, other])
    for batch in ([pixels, other], (pixels, other), stacked, torch.from_numpy(stacked).movedim(-1, 1)):
        assert [one.score for one in predictor.predict(batch)] == alone
    assert predictor.predict([]) == []


def test_threads_share_a_predictor(predictor, pixels):
    pictures = [np.roll(pixels, shift, axis=0) for shift in range(8)]
    expected = [predictor.predict(one).score for one in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: predictor.predict(one).score, pictures)) == expected


def test_a_prediction_is_judged_by_its_threshold(predictor, pixels):
    found = predictor.predict(pixels)
    assert found.abnormal == (found.score >= found.threshold)
    assert found.threshold == predictor.calibration.image[predictor.branch]
    bound = predictor.calibration.pixel[predictor.branch]
    assert sum(one.area for one in found.findings) == (found.anomaly_map >= bound).sum()


BAD = {
    "five axes": np.zeros((1, 2, 3, 4, 5)),
    "two channels": np.zeros((4, 4, 2)),
    "nothing": np.zeros((0, 4)),
    "not a number": np.full((4, 4), np.nan),
    "out of range": np.full((4, 4), 2.0),
    "negative": torch.full((3, 4, 4), -1.0),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused(name):
    with pytest.raises(InputError, match="is no picture"):
        to_picture(BAD[name])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path / "a.png")):
        to_picture(tmp_path / "a.png")


def test_settings_are_checked_and_some_are_the_checkpoints(predictor, trained):
    path = trained.root / "ckpt" / "Brain_1-shot.pth"
    with pytest.raises(InputError, match="was trained with --shot 1, not 2"):
        Predictor.from_checkpoint(path, shot=2)
    with pytest.raises(InputError, match="--tile"):
        Predictor.from_checkpoint(path, tile=-1)
    given = Predictor.from_checkpoint(path, device="cpu", cache_gb=0, threshold=0.25)
    assert given.calibration.image[given.branch] == 0.25

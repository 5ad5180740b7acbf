"""Runs of a series share what they can, and nothing that changed meanwhile."""

import numpy as np
import pytest
from helpers.lab import SIZE, Lab, write_clip
from PIL import Image

from engine.few_shot import train_few_shot
from engine.series import MOST, Series
from engine.spec import FewShotSpec


@pytest.fixture
def lab(tmp_path) -> Lab:
    made = Lab(tmp_path, *write_clip(tmp_path))
    made.medical("Brain", test=(3, 3))
    return made


def spec(lab: Lab, place: str, **changes: object) -> FewShotSpec:
    known = {
        **{"model_name": str(lab.config), "clip_path": lab.weights, "img_size": SIZE, "data_path": lab.data},
        **{"prompts": str(lab.words), "device": "cpu", "iterate": -1, "epoch": 1, "batch_size": 11, "eval_every": 0},
        **{
            "shot": 1,
            "results_path": lab.root / place,
            "save_path": lab.root / "ckpt",
            "cache_path": lab.root / f"{place}_cache",
        },
    }
    return FewShotSpec(**known | changes)


def redraw(lab: Lab) -> None:
    """Give support images and test masks other content under the same names."""
    for path in lab.data.rglob("valid/*/img/*.png"):
        with Image.open(path) as image:
            noise = np.random.default_rng(7).integers(0, 255, (image.height, image.width, 3), np.uint8)
        Image.fromarray(noise).save(path)
    for path in lab.data.rglob("test/*/anomaly_mask/*.png"):
        with Image.open(path) as image:
            mask = np.zeros_like(np.array(image))
        mask[:, : mask.shape[1] // 3] = 255
        Image.fromarray(mask).save(path)


def test_files_that_change_between_runs_are_read_anew(lab):
    series = Series(keep=True)
    before = train_few_shot(spec(lab, "one"), series)
    redraw(lab)
    shared, alone = (
        train_few_shot(spec(lab, place, adapter="mvfa"), one) for place, one in (("one", series), ("two", None))
    )
    assert shared == alone != before


def test_a_series_gives_what_runs_by_themselves_give(lab):
    series = Series(keep=True)
    for adapter in ("madff", "none", "mvfa", "madff"):
        shared = train_few_shot(spec(lab, "together", adapter=adapter), series)
        assert shared == train_few_shot(spec(lab, f"alone_{adapter}", adapter=adapter))


def test_a_prompts_file_may_be_moved(lab):
    """What it says decides, not where it lies."""
    train_few_shot(spec(lab, "one"))
    moved = lab.words.rename(lab.root / "moved.json")
    train_few_shot(spec(lab, "one", prompts=str(moved)))
    keys = {path.name.rpartition("_")[2].partition("-")[0] for path in (lab.root / "one").glob("train_few/*/*_*")}
    assert len(keys) == 1


def test_only_the_last_of_a_kind_stay():
    series, made = Series(keep=True), []
    for key in (1, 2, 1, 2):
        assert series.once("tower", key, lambda key=key: made.append(key) or key) == key
    assert made == [1, 2, 1, 2] and MOST["tower"] == 1
    alone = Series()
    assert [alone.once("truth", 0, lambda: made.append(0)) for _ in range(2)] == [None, None] and made[-2:] == [0, 0]

"""Scores in the cache: taken apart and put together, found by picture and model; what a second command makes anew."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers.predicting import noise, predict
from PIL import Image

from engine.few_shot_run import FewShotRun
from engine.kept_scores import KeptScores, from_tensors, tensors_of
from engine.picture_scorer import PictureScorer
from engine.system import System
from runtime.cache import Cache
from scoring.patch_scores import PatchScores
from scoring.raw_scores import RawScores

GRID = torch.arange(8.0).reshape(1, 2, 2, 2)
BOTH, ZERO = PatchScores(GRID, GRID + 1), PatchScores(GRID, None)


@pytest.mark.parametrize("raw", [RawScores(BOTH, None), RawScores(ZERO, BOTH), RawScores(BOTH, BOTH)])
def test_what_is_taken_apart_is_put_together_again(tmp_path, raw):
    made = from_tensors(RawScores, dict(tensors_of(raw)))
    kept = KeptScores(Cache(tmp_path, 1e6), "model")
    kept.at("a", RawScores, lambda: raw)
    found = KeptScores(Cache(tmp_path, 1e6), "model").at("a", RawScores, pytest.fail)
    for other in (made, found):
        names = dict(tensors_of(raw))
        assert dict(tensors_of(other)).keys() == names.keys() and type(other.map_patches) is PatchScores
        assert all(tensor.equal(names[name]) for name, tensor in tensors_of(other))


def test_another_picture_owner_or_model_is_another_entry(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pictures = [Image.fromarray(pixels), Image.fromarray(pixels + 1), Image.fromarray(pixels.reshape(6, 4))]
    pictures += [pictures[0].convert("RGB"), pictures[0].convert("F")]
    asked = [(one, without, model) for one in pictures for without in (None, 0, 1) for model in ("a", "b")]
    made: list[int] = []

    def make() -> RawScores:
        made.append(1)
        return RawScores(ZERO, None)

    for _ in range(2):
        for one, without, model in asked:
            KeptScores(Cache(tmp_path, 1e6), model).of(one, without, RawScores, make)
    assert len(made) == len(asked)


def test_without_a_cache_nothing_is_kept(tmp_path):
    kept = KeptScores(Cache(tmp_path, 0), "model")
    assert [kept.at("a", int, lambda value=value: value) for value in (1, 2)] == [1, 2] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [[], ["--score", "mean"], ["--tile", "50", "--overlap", "10"]])
def test_a_second_command_scores_no_picture_again(folders, flags):
    """Into the same folder and into another; the numbers are the same to the bit."""
    noise(folders.root / "new" / "large.png", (90, 120), seed=7)
    known = ["--normal", folders.root / "good", "--abnormal", folders.root / "bad", *flags]
    first = predict(folders, *known, "--input", folders.root / "new", to="first")
    with (
        patch.object(PictureScorer, "_raw_scores", side_effect=AssertionError("scored again")),
        patch.object(FewShotRun, "score_support", side_effect=AssertionError("calibrated again")),
        patch.object(System, "prefix", side_effect=AssertionError("seen again")),
    ):
        same = predict(folders, *known, "--input", folders.root / "new", to="first")
        other = predict(folders, *known, "--input", folders.root / "new", to="other")
    assert first.code == same.code == other.code == 0 and first.scores == same.scores == other.scores
    assert {row["threshold"] for row in first.rows} == {row["threshold"] for row in other.rows}
    changed = predict(folders, *known, "--input", folders.root / "new", "--prompts", "base", to="changed")
    assert changed.code == 0 and changed.scores != first.scores

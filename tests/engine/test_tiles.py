"""Tiles cover an image, weights add up to one, and a blended map has no seams."""

from itertools import pairwise

import numpy as np
import pytest

from engine.tiles import Blend, Tiling, spans, tiles, weights

TILING = Tiling(side=64, overlap=16)


@pytest.mark.parametrize("length", [64, 65, 100, 112, 113, 500])
def test_spans_cover_the_axis_and_share_enough(length):
    found = spans(length, TILING)
    assert found[0].start == 0 and found[-1].stop == length
    assert all(part.stop - part.start == 64 for part in found)
    assert all(one.stop - other.start >= 16 for one, other in pairwise(found))


def test_as_few_tiles_as_do():
    assert len(spans(112, TILING)) == 2
    assert len(spans(113, TILING)) == 3


@pytest.mark.parametrize("length", [1, 63, 64])
def test_what_a_tile_holds_is_one_span(length):
    assert spans(length, TILING) == [slice(0, length)]


def test_without_tiling_the_whole_is_one_tile():
    (tile,) = tiles((30, 50), None)
    assert tile.box == (0, 0, 50, 30)


def test_boxes_are_left_top_right_bottom():
    boxes = [tile.box for tile in tiles((64, 112), TILING)]
    assert boxes == [(0, 0, 64, 64), (48, 0, 112, 64)]


@pytest.mark.parametrize("tiling", [TILING, Tiling(64, 0), Tiling(64, 60), Tiling(2, 1), Tiling(1, 0)])
def test_weights_add_up_to_one(tiling):
    total = np.zeros(200)
    for part, weight in zip(spans(200, tiling), weights(200, tiling), strict=True):
        assert (weight >= 0).all()
        total[part] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_equal_tiles_blend_to_what_they_are():
    blend = Blend((150, 90), TILING)
    for tile in tiles((150, 90), TILING):
        blend.add(tile, np.full((64, 64), 0.7, np.float32))
    np.testing.assert_allclose(blend.values, 0.7, atol=1e-6)


def test_tiles_that_disagree_go_over_smoothly():
    """Neighbours of 0 and 1: no step is steeper than a smooth ramp, and both ends are reached."""
    blend = Blend((64, 112), TILING)
    for tile in tiles((64, 112), TILING):
        blend.add(tile, np.full((64, 64), float(tile.across), np.float32))
    row = blend.values[30]
    assert (blend.values == row).all()
    assert (row[:48] == 0).all() and (row[64:] == 1).all()
    steps = np.diff(row)
    assert (steps >= 0).all() and steps.max() <= np.pi / 2 / 16
    assert steps[46:49].max() < 0.02 and steps[62:65].max() < 0.02  # where tiles begin and end


def test_no_overlap_leaves_every_pixel_to_one_tile():
    tiling, blend = Tiling(50, 0), Blend((50, 100), Tiling(50, 0))
    for tile in tiles((50, 100), tiling):
        blend.add(tile, np.full((50, 50), float(tile.across), np.float32))
    assert (blend.values[:, :50] == 0).all() and (blend.values[:, 50:] == 1).all()

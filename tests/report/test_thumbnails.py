"""Thumbnails: sizes, colours on the one scale, outlines, and the bytes they may take."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from report import thumbnails
from report.colours import ColourScale, heat
from report.thumbnails import SIZES, Pictures, outline, thumbnail, weight, within
from runtime.errors import InputError

SCALE = ColourScale(0.2, 0.8, pixel_threshold=0.5)
RNG = np.random.default_rng(0)


def opened(source: str) -> np.ndarray:
    """The picture of a data URI without its first part."""
    kind, code = source.split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(code))) as picture:
        assert picture.format.lower() == kind
        return np.asarray(picture)


def noise(height: int = 64, width: int = 64) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def test_the_map_is_coloured_on_the_given_scale_and_not_on_its_own():
    cold, hot = np.full((30, 40), 0.35, np.float32), np.full((30, 40), 0.75, np.float32)
    for values in (cold, hot):
        made = opened(thumbnail(Pictures(map=values), SCALE, 480)["map"]).astype(int)
        assert made.shape == (30, 40, 3)
        assert abs(made - heat(values, SCALE).astype(int)).max() <= 6  # WebP is not exact


def test_proportions_are_kept_and_nothing_is_enlarged():
    made = thumbnail(Pictures(image=noise(100, 400), map=np.zeros((17, 17))), SCALE, 200)
    assert (made["width"], made["height"]) == (200, 50)
    assert opened(made["image"]).shape == opened(made["map"]).shape == (50, 200, 3)
    small = thumbnail(Pictures(image=noise(10, 3)), SCALE, 200)
    assert opened(small["image"]).shape == (10, 3, 3) and "map" not in small and "truth" not in small


def test_files_arrays_and_functions_are_the_same(tmp_path):
    picture, mask = noise(), np.zeros((64, 64), bool)
    mask[:, :20] = True
    Image.fromarray(picture).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    values = RNG.random((17, 17))
    ways = [
        Pictures(image=picture, truth=mask, map=values),
        Pictures(image=lambda: picture, truth=lambda: mask, map=lambda: values),
        Pictures(image=tmp_path / "image.png", truth=str(tmp_path / "mask.png"), map=values),
    ]
    first, *others = (thumbnail(way, SCALE, 48) for way in ways)
    assert all(other == first for other in others)
    truth = opened(first["truth"])
    assert truth[:, :15].all() and not truth[:, 15:].any()


def test_grey_images_are_shown_in_grey():
    grey = noise()[..., 0]
    made = opened(thumbnail(Pictures(image=grey), SCALE, 64)["image"]).astype(int)
    assert np.ptp(made, axis=2).max() <= 3


def test_outlines_enclose_what_is_at_the_threshold():
    assert outline(np.zeros((5, 5), bool)) == ""
    mask = np.zeros((20, 20), bool)
    mask[4:9, 2:12] = True
    corners = outline(mask).strip("MZ").split()
    assert sorted(set(corners[::2])) == ["11.5", "2.5"] and sorted(set(corners[1::2])) == ["4.5", "8.5"]
    values = np.where(mask, 0.5, 0.49).astype(np.float32)
    assert thumbnail(Pictures(map=values), SCALE, 64)["outline"] == outline(mask)
    assert "outline" not in thumbnail(Pictures(map=values), ColourScale(0, 1), 64)


def test_what_has_no_picture_takes_no_place():
    assert thumbnail(Pictures(), SCALE, 64) == {}
    assert within([], SCALE, 100) == ({}, SIZES[0][0])


def test_few_images_are_large_and_many_small():
    wanted = [Pictures(image=noise(500, 500)) for _ in range(12)]
    made, edge = within(wanted, SCALE, 10_000_000)
    assert len(made) == 12 and edge == SIZES[0][0]
    budget = 300_000
    made, edge = within(wanted, SCALE, budget)
    assert len(made) == 12 and SIZES[-1][0] <= edge < SIZES[0][0]
    assert budget / 3 < sum(map(weight, made.values())) <= budget


def test_what_is_tried_is_not_kept_at_its_full_size():
    """A thumbnail of what is kept is the one of the whole."""
    values, mask = np.zeros((1920, 960), np.float32), np.zeros((1920, 960), bool)
    values[400:800, 200:600], mask[400:800, 200:600] = 0.7, True
    whole = Pictures(image=noise(1920, 960), truth=mask, map=lambda: values)
    kept = thumbnails._opened(whole)
    assert {part.shape[:2] for part in (kept.image, kept.truth, kept.map)} == {(480, 240)}
    assert thumbnail(kept, SCALE, 480) == thumbnail(whole, SCALE, 480)


def test_what_does_not_fit_is_left_out_and_the_first_stay():
    wanted = [Pictures(image=noise(200, 200)) for _ in range(40)]
    made, edge = within(wanted, SCALE, 100_000)
    assert edge == SIZES[-1][0] and 0 < len(made) < 40
    assert list(made) == list(range(len(made)))
    assert sum(map(weight, made.values())) <= 100_000


def test_later_images_that_take_more_than_those_tried_do_not_break_the_budget(monkeypatch):
    monkeypatch.setattr(thumbnails, "TRIED", 2)
    wanted = [Pictures(image=np.zeros((400, 400, 3), np.uint8)), *(Pictures(image=noise(400, 400)) for _ in range(9))]
    wanted.insert(5, wanted.pop(0))  # both that are tried are plain
    wanted[0] = Pictures(image=np.zeros((400, 400, 3), np.uint8))
    made, _ = within(wanted, SCALE, 200_000)
    assert sum(map(weight, made.values())) <= 200_000 and 0 < len(made) < 10


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png can't be read"):
        within([Pictures(image=tmp_path / "broken.png")], SCALE, 1000)

"""Panels: sizes, one colour scale, what the tiles hold, names that don't clash."""

import shutil
from math import nan
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.demo_pictures import WIDTH, contact_sheet
from report.colours import COLOURS, ColourScale, heat, overlay
from report.panels import EMPTY, OUTLINE, SMALLEST_TILE, TITLES, panel_names, save_panel
from runtime.errors import InputError

SCALE = ColourScale(low=0.2, high=0.8, pixel_threshold=0.5, score_threshold=0.6)


@pytest.fixture
def files(tmp_path):
    """A (180, 200) grey image and a mask with its left half marked."""
    Image.new("RGB", (200, 180), (100, 100, 100)).save(tmp_path / "image.png")
    mask = np.zeros((180, 200), np.uint8)
    mask[:, :100] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "image.png", tmp_path / "mask.png"


def half_hot(size: int = 60) -> np.ndarray:
    """A map that is 0.9 on its left half, 0.1 on its right."""
    return np.repeat(np.where(np.arange(size) < size // 2, 0.9, 0.1)[None], size, axis=0).astype(np.float32)


def tiles(path: Path, width: int, height: int) -> list[np.ndarray]:
    """A panel's five tiles (H, W, 3), from its size alone: text and gap follow from the tile's width."""
    panel = np.asarray(Image.open(path))
    text = max(14, width // 22)
    gap, head, tile = text // 2, 3 * text // 2, max(width, SMALLEST_TILE)
    assert panel.shape == (head + height + 7 * text // 2, len(TITLES) * (tile + gap) + gap, 3)
    starts = [gap + index * (tile + gap) + (tile - width) // 2 for index in range(len(TITLES))]
    return [panel[head : head + height, start : start + width] for start in starts]


def test_tiles_at_the_images_own_resolution(files, tmp_path):
    save_panel(tmp_path / "out" / "panel.png", *files, half_hot(), SCALE, score=0.7, label=1)
    image, truth, hot, overlay, called = tiles(tmp_path / "out" / "panel.png", 200, 180)
    assert (image == 100).all()
    assert (truth[:, :100] == 255).all() and (truth[:, 100:] == 0).all()
    assert (called == truth).all()
    assert (hot[:, :90] == COLOURS[255]).all() and (hot[:, 110:] == COLOURS[0]).all()
    assert (overlay[:, 110:] == 100).all()
    assert (overlay[5:-5, 5:90] != 100).any(axis=2).all()
    assert (overlay[90, 95:105] == OUTLINE).all(axis=1).any()
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "panel.png"]


def test_a_map_of_other_proportions_is_stretched_to_the_image(tmp_path):
    Image.new("L", (320, 64), 50).save(tmp_path / "wide.png")
    save_panel(tmp_path / "panel.png", tmp_path / "wide.png", None, half_hot(), SCALE, score=0.1)
    *_, called = tiles(tmp_path / "panel.png", 320, 64)
    assert (called[:, :155] == 255).all() and (called[:, 165:] == 0).all()


def test_small_images_keep_their_pixels_in_wider_tiles(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "small.png")
    save_panel(tmp_path / "panel.png", tmp_path / "small.png", None, half_hot(), SCALE, score=0.1)
    assert (tiles(tmp_path / "panel.png", 30, 20)[0] == picture).all()


def test_colours_mean_the_same_in_every_panel():
    """A normal image stays dark: its own maximum is not what the colours are scaled by."""
    cold, hot = np.full((2, 2), 0.25, np.float32), np.float32([[0.25, 0.8], [0.9, -3]])
    assert (heat(cold, SCALE) == heat(hot, SCALE)[0, 0]).all()
    assert (heat(hot, SCALE)[0, 1] == COLOURS[255]).all() and (heat(hot, SCALE)[1, 0] == COLOURS[255]).all()
    assert (heat(hot, SCALE)[1, 1] == COLOURS[0]).all()
    assert COLOURS[255].sum() > COLOURS[128].sum() > COLOURS[0].sum()


def test_a_scale_without_width_is_no_fault():
    assert (heat(np.float32([[0.4, 0.5, 0.6]]), ColourScale(0.5, 0.5))[0] == COLOURS[[0, 0, 255]]).all()


def test_tiles_that_have_nothing_to_show_say_so(files, tmp_path):
    scale = ColourScale(0.2, 0.8, pixel_threshold=nan)
    save_panel(tmp_path / "panel.png", files[0], None, half_hot(), scale, score=0.7, label=1)
    _, truth, _, overlay, called = tiles(tmp_path / "panel.png", 200, 180)
    for tile in (truth, called):
        assert (tile[:60] == EMPTY).all()
        assert (tile[60:120] != EMPTY).any()  # the words
    assert not (overlay == OUTLINE).all(axis=2).any()


def test_a_normal_image_needs_no_mask_file(files, tmp_path):
    save_panel(tmp_path / "panel.png", files[0], None, half_hot(), SCALE, score=0.3, label=0)
    assert (tiles(tmp_path / "panel.png", 200, 180)[1] == 0).all()


def strip(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))[-49:]


def test_the_strip_tells_score_verdict_label_and_name(files, tmp_path):
    variants = {
        "a": {"score": 0.7},
        "b": {"score": 0.7, "label": 1},
        "c": {"score": 0.7, "label": 0},
        "d": {"score": 0.6},
        "e": {"score": 0.59},
        "f": {"score": 0.7},
        "g": {"score": 0.7},
    }
    images = {"f": tmp_path / "another.png", "g": tmp_path / ("a_very_long_name_" * 14 + "image.png")}
    for image in images.values():
        shutil.copy(files[0], image)
    for name, words in variants.items():
        save_panel(tmp_path / f"{name}.png", images.get(name, files[0]), None, half_hot(), SCALE, **words)
    strips = {name: strip(tmp_path / f"{name}.png") for name in variants}
    assert len({picture.tobytes() for picture in strips.values()}) == len(variants)
    assert all((strips["a"][:, -190:] == picture[:, -190:]).all() for picture in strips.values())  # colour bar

    def is_red(picture: np.ndarray) -> bool:
        return bool((picture == (190, 30, 30)).all(axis=2).any())

    assert [is_red(strips[name]) for name in "ade"] == [
        True,
        True,
        False,
    ]  # a score at the threshold is abnormal


def test_unreadable_images_are_named_and_leave_nothing(files, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        save_panel(tmp_path / "out.png", tmp_path / "broken.png", None, half_hot(), SCALE, score=0.3)
    with pytest.raises(InputError, match=r"broken\.png"):
        save_panel(tmp_path / "out.png", files[0], tmp_path / "broken.png", half_hot(), SCALE, score=0.3)
    assert not (tmp_path / "out.png").exists()


def test_contact_sheet_puts_panels_below_each_other(files, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        save_panel(path, *files, half_hot(), SCALE, score=0.7)
    height = round(Image.open(paths[0]).height * WIDTH / Image.open(paths[0]).width)
    contact_sheet(paths, tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (WIDTH, 3 * height)


def test_names_keep_folders_and_never_clash():
    test = Path("data") / "Brain_AD" / "test"
    images = [
        test / "good" / "img" / "1.png",
        test / "Ungood" / "img" / "1.png",
        test / "Ungood" / "img" / "1.JPG",
    ]
    assert panel_names(images, Path("data") / "Brain_AD") == [
        "test_good_img_1.png",
        "test_Ungood_img_1.png",
        "test_Ungood_img_1_JPG.png",
    ]
    clash = [Path("r/a_b/1.png"), Path("r/a/b_1.png"), Path("r/A/B_1.png"), Path("r/a_b_1.png")]
    names = panel_names(clash, "r")
    assert len({name.lower() for name in names}) == 4


def test_names_outside_the_root_and_too_long_ones(tmp_path):
    assert panel_names([Path("/x/y/z/bottle/test/crack/000.png")], tmp_path) == ["bottle_test_crack_000.png"]
    assert panel_names([Path("/000.png"), Path("../a/000.png")]) == ["000.png", "a_000.png"]
    long = [f"{'é' * 100}/{kind}/{'x' * 150}/000.png" for kind in ("good", "bad")]
    names = panel_names(long)
    assert len(set(names)) == 2
    assert all(len(name.encode()) < 250 and name.endswith("_000.png") for name in names)


def test_an_overlay_is_the_same_however_it_is_cut_into_bands(monkeypatch):
    rng = np.random.default_rng(0)
    picture, full = rng.integers(0, 256, (70, 20, 3), np.uint8), rng.random((70, 20), np.float32)
    whole = overlay(picture, full, full > 0.5, SCALE)
    monkeypatch.setattr("report.colours.BAND", 7)
    np.testing.assert_array_equal(overlay(picture, full, full > 0.5, SCALE), whole)


def test_the_name_of_a_packed_volume_loses_both_suffixes():
    assert panel_names(["/a/head.nii.gz", "/a/head.NII.GZ", "/a/head.nrrd"], "/a") == [
        "head.png",
        "head_NII_GZ.png",
        "head_nrrd.png",
    ]


def test_a_name_that_is_no_utf_8_becomes_one_that_is():
    names = panel_names(["in/caf\udce9.png", "in/caf\udce8.png"], "in")
    assert len(set(names)) == 2 and all(name.encode() for name in names)

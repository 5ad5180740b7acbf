"""What predict.py writes, for images, volumes and DICOM files, whole, in regions and in tiles."""

import os
from pathlib import Path
from unittest.mock import patch

import nibabel
import nrrd
import numpy as np
import pytest
from helpers.dicom_files import dicom_file
from helpers.lab import Lab, files
from helpers.predicting import ckpt, noise, predict
from PIL import Image

from apps.predict import outputs
from apps.predict.chart import save_chart
from apps.predict.outputs import MAP_TOP, UNREADABLE, Outputs, ScoredPicture
from apps.predict.roi import RegionMasks
from engine import picture_scorer, tiled_calibration
from engine.picture_scorer import by_prompts, shrunk
from engine.predictor import Predictor
from runtime import bars
from runtime.errors import InputError
from scoring.raw_scores import MAP_MAXIMUM


def test_pictures_are_at_the_inputs_own_resolution(folders):
    noise(folders.root / "one" / "wide.png", (130, 70))
    paper = ("--recipe", "paper")  # whose scores are maxima of maps
    out = predict(folders, "--normal", folders.root / "good", "--input", folders.root / "one", *paper)
    score = float(out.rows[0]["score"])
    raw = out.picture("maps", "wide.png")
    assert raw.shape == (70, 130) and raw.dtype == np.uint16
    assert out.settings["maps"] == {"0": 0.0, "65535": MAP_TOP}
    assert out.map("wide.png").max() == pytest.approx(score, abs=0.02)  # resizing clips the top a little
    assert out.picture("overlays", "wide.png").shape == (70, 130, 3)
    mask = out.picture("masks", "wide.png")
    assert set(np.unique(mask)) <= {0, 255}
    threshold = out.settings["pixel_threshold"]
    sure = np.abs(out.map("wide.png") - threshold) > 1e-3
    np.testing.assert_array_equal(mask[sure] > 0, out.map("wide.png")[sure] >= threshold)
    with Image.open(next((out.folder / "maps").iterdir())) as picture:
        assert "0 to 4" in picture.info["Scale"]


def test_sixteen_bits_are_scored_as_eight(folders):
    for suffix, deep in ((".png", False), (".tif", True)):
        noise(folders.root / "deep" / f"same{suffix}", seed=3, deep=deep)
    out = predict(folders, "--normal", folders.root / "good", "--input", folders.root / "deep")
    one, other = map(float, out.scores.values())
    assert one == pytest.approx(other, abs=0.02)
    assert files(out.folder) >= {"images/" + path.split("/")[1] for path in files(out.folder) if "tif" in path}


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".JPEG", ".bmp", ".tif", ".TIFF"])
def test_kinds_of_images(folders, suffix):
    Image.new("RGB", (20, 16), (90, 120, 40)).save(folders.root / f"x{suffix}")
    assert predict(folders, "--input", folders.root / f"x{suffix}").code == 0


def test_a_nifti_volume(folders):
    values = np.random.default_rng(1).normal(size=(22, 18, 6)).astype(np.float32)
    affine = np.array([[0.9, 0, 0, 4], [0, 1.1, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]])
    path = folders.root / "Scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    out = predict(folders, "--normal", folders.root / "good", "--input", path, "--recipe", "paper")
    assert out.code == 0 and [row["slice"] for row in out.rows] == list("012345")
    (written,) = (out.folder / "volumes").iterdir()
    found = nibabel.load(written)
    assert written.name.endswith("Scan.nii.gz") and found.shape == values.shape
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    for number, score in enumerate(out.scores.values()):
        one, shown = found.dataobj[..., number], out.map(f"Scan_{number}.png")
        np.testing.assert_allclose(
            shown, np.clip(one[::-1, ::-1].T, 0, MAP_TOP), atol=1e-4
        )  # right on the left, front up
        assert float(score) / 2 < one.max() <= float(score) + 1e-3  # the map was larger when it was scored
    assert out.picture("charts", "Scan.png").shape == (320, 960, 3)
    along = predict(folders, "--normal", folders.root / "good", "--input", path, "--axis", 0, to="along")
    assert len(along.rows) == 22 and nibabel.load(next((along.folder / "volumes").iterdir())).shape == values.shape


def test_an_nrrd_volume(folders):
    header = {"space": "left-posterior-superior", "space directions": np.diag([1, 1, 2.5]), "space origin": [0, 1, 2]}
    nrrd.write(str(folders.root / "v.nrrd"), np.arange(480, dtype=np.int16).reshape(10, 12, 4), header)
    out = predict(folders, "--normal", folders.root / "good", "--input", folders.root / "v.nrrd")
    array, found = nrrd.read(str(next((out.folder / "volumes").iterdir())))
    assert out.code == 0 and len(out.rows) == 4 and array.shape == (10, 12, 4)
    np.testing.assert_array_equal(found["space directions"], header["space directions"])
    np.testing.assert_allclose(out.map("v_2.png"), np.clip(array[..., 2].T, 0, MAP_TOP), atol=1e-4)


def test_dicom_files(folders):
    frames = np.random.default_rng(2).integers(0, 900, (3, 16, 20), np.int16)
    (folders.root / "dicom").mkdir()
    dicom_file(folders.root / "dicom" / "one.dcm", frames[0], WindowCenter=400, WindowWidth=300)
    dicom_file(folders.root / "dicom" / "three.DCM", frames)
    flags = ["--normal", folders.root / "good", "--input", folders.root / "dicom"]
    out = predict(folders, *flags)
    assert out.code == 0 and [row["slice"] for row in out.rows] == ["", "0", "1", "2"]
    assert out.map("one.png").shape == (16, 20) and out.picture("charts", "three.png").size
    assert not (out.folder / "volumes").exists()
    windowed = predict(folders, *flags, "--window", 100, 50, to="windowed")
    assert windowed.scores["one.dcm"] != out.scores["one.dcm"]
    shown = windowed.picture("images", "one.png")[..., 0]
    np.testing.assert_array_equal(shown, np.round(np.clip((frames[0] - 75) / 50, 0, 1).astype(np.float32) * 255))


def test_names_that_are_no_utf8(tmp_path):
    """As file systems may hold them, of Latin-1 for one."""
    name = os.fsdecode(b"caf\xe9.png")
    outputs = Outputs(tmp_path, Predictor(None, None, {}, MAP_MAXIMUM, by_prompts(4), False))
    bad = ScoredPicture(name, None, None, None, UNREADABLE, None, f"{name} can't be read")
    assert "caf\\udce9.png" in outputs.table([bad]).read_text(encoding="utf-8")
    assert "caf" in outputs.write_page([bad], {"script": "predict.py"}, name).read_text(encoding="utf-8")
    save_chart(tmp_path / "chart.png", [0.1, 0.2], 0.5, name)


def roi(lab: Lab, name: str, mask: np.ndarray) -> Path:
    folder = lab.root / "roi"
    folder.mkdir(exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
    return folder


@pytest.mark.parametrize("score", ["max", "mean"])
def test_what_is_outside_a_region_is_ignored(folders, score):
    noise(folders.root / "one" / "a.png", (48, 32))
    half = np.zeros((32, 48), bool)
    half[:, :24] = True
    flags = ["--normal", folders.root / "good", "--input", folders.root / "one", "--score", score]
    flags += ["--pixel_threshold", 0.01]
    whole = predict(folders, *flags, to="whole")
    parts = []
    for part in (half, ~half):
        out = predict(folders, *flags, "--roi", roi(folders, "a.png", part), to="part")
        assert out.code == 0
        assert (out.picture("maps", "a.png")[~part] == 0).all() and (out.picture("masks", "a.png")[~part] == 0).all()
        np.testing.assert_array_equal(out.picture("maps", "a.png")[part], whole.picture("maps", "a.png")[part])
        parts.append(float(out.rows[0]["score"]))
        if score == "max":
            assert parts[-1] == pytest.approx(out.map("a.png").max(), abs=0.05)  # resizing clips the top a little
    (full,) = map(float, whole.scores.values())
    assert max(parts) == full if score == "max" else sum(parts) / 2 == pytest.approx(full, abs=0.05)
    everything = predict(folders, *flags, "--roi", roi(folders, "a.png", half | True), to="everything")
    assert everything.scores == whole.scores


def test_a_region_counts_in_every_cell_that_it_touches():
    region = np.zeros((90, 40), bool)
    region[89, 0] = region[44, 39] = True
    found = shrunk(region, 30)  # cells of 3 pixels by 1 1/3
    assert sorted(zip(*found.nonzero(), strict=True)) == [(14, 29), (29, 0)]
    assert shrunk(np.ones((7, 50), bool), 30).all()


@pytest.mark.parametrize("score", ["max", "mean"])
def test_a_region_of_a_volume(folders, score):
    values = np.random.default_rng(1).integers(0, 99, (12, 10, 3), np.int16)
    marked = np.zeros(values.shape, np.uint8)
    marked[:6, :, :2] = 1
    (folders.root / "roi").mkdir()
    for folder, array in ((folders.root, values), (folders.root / "roi", marked)):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1])), folder / "v.nii")
    out = predict(
        folders,
        *("--normal", folders.root / "good", "--input", folders.root / "v.nii", "--roi", folders.root / "roi"),
        *("--score", score),
    )
    assert out.code == 0
    found = nibabel.load(next((out.folder / "volumes").iterdir())).get_fdata()
    assert (found[marked == 0] == 0).all() and (found[marked == 1] != 0).any()
    assert out.rows[2]["score"] == "0.0"  # nothing of it is looked at


def test_masks_that_do_not_fit_are_named(folders):
    for name in ("none", "small", "empty", "fits"):
        noise(folders.root / "in" / f"{name}.png", (20, 16))
    masks = {"small": np.ones((8, 8)), "empty": np.zeros((16, 20)), "fits_mask": np.ones((16, 20))}
    for name, mask in masks.items():
        roi(folders, f"{name}.png", mask)
    out = predict(folders, "--input", folders.root / "in", "--roi", folders.root / "roi")
    notes = {Path(row["file"]).stem: row["note"] for row in out.rows}
    assert out.code == 1 and notes["fits"] == "uncalibrated"
    assert "no mask" in notes["none"] and "8x8" in notes["small"] and "marks nothing" in notes["empty"]


def test_a_mask_is_found_where_its_image_lies(tmp_path):
    """Of several that fit, the one that has more of the image's path."""
    for name in ("s.png", "a/s.png", "b/s_mask.png", "1.2.840.1.png", "1.2.840.2.png", "r.tif", "r_mask.png"):
        noise(tmp_path / "roi" / name)
    inputs = [tmp_path / "in" / name for name in ("s.png", "a/s.png", "b/s.png", "r.tif", "1.2.840.1", "none.png")]
    for file in inputs:
        noise(file.with_name("x.png")).rename(file)
    masks = RegionMasks(tmp_path / "roi", inputs)
    found = [masks.of(file).relative_to(tmp_path / "roi").as_posix() for file in inputs[:-1]]
    assert found == ["s.png", "a/s.png", "b/s_mask.png", "r.tif", "1.2.840.1.png"]
    with pytest.raises(InputError, match="no mask"):
        masks.of(inputs[-1])


def test_a_mask_that_two_inputs_would_take_is_neithers(folders):
    for name in ("in/a/s.png", "in/b/s.png", "roi/s.png"):
        noise(folders.root / name)
    out = predict(folders, "--input", folders.root / "in", "--roi", folders.root / "roi")
    assert out.code == 1 and [row["verdict"] for row in out.rows] == ["unreadable"] * 2
    assert "another input" in out.rows[0]["note"] and str(Path("a", "s.png")) in out.rows[0]["note"]


def test_no_image_is_its_own_mask(folders):
    out = predict(folders, "--input", folders.root / "new", "--roi", folders.root / "new")
    assert out.code == 1 and all("no mask" in row["note"] for row in out.rows)
    noise(folders.root / "new" / "new0_mask.png")
    files = [folders.root / "new" / "new0.png"]
    assert RegionMasks(folders.root / "new", files).of(files[0]).name == "new0_mask.png"


def large(path: Path, seed: int = 0, size: tuple[int, int] = (150, 110)) -> Path:
    return noise(path, size, seed)


def test_large_images_in_tiles(folders):
    """The support is cut as well; a map is of the input's size and has no steps where tiles meet."""
    for number in range(3):
        large(folders.root / "large" / f"{number}.png", number)
    large(folders.root / "in" / "x.png", 7)
    flags = ["--normal", folders.root / "large", "--input", folders.root / "in", "--tile", 50, "--overlap", 20]
    out = predict(folders, *flags)
    assert out.code == 0 and "cut into tiles" in out.out
    found = out.map("x.png")
    assert found.shape == (110, 150)
    assert float(out.rows[0]["score"]) == pytest.approx(found.max(), abs=1e-4)
    steps = np.abs(np.diff(found, axis=1)).max(axis=0)  # by column
    edges = [part for start in (33, 67, 100) for part in (start - 1, start + 49)]
    assert steps[[edge for edge in edges if edge < 149]].max() <= np.quantile(steps, 0.99)
    assert predict(folders, *flags, to="again").scores == out.scores


def test_tiles_have_a_bar_and_many_are_announced(folders, monkeypatch):
    monkeypatch.setattr(picture_scorer, "BAR_AFTER", 0)
    monkeypatch.setattr(bars, "EVERY", 0)  # a log with every step of every bar
    monkeypatch.setattr(bars, "QUICK", 0)
    monkeypatch.setattr(tiled_calibration, "MANY", 29)
    for number in range(2):
        large(folders.root / "large" / f"{number}.png", number)
    flags = ["--normal", folders.root / "large", "--input", folders.root / "large", "--tile", 50, "--overlap", 20]
    out = predict(folders, *flags)
    assert "calibrating on 30 tiles of 2 pictures" in out.out and "tiles: " in out.err and "/15 [" in out.err


def test_a_normal_image_in_tiles_is_left_out_of_its_bank(folders):
    """The threshold is above all normal images' scores against the others, so they are normal against all."""
    for number in range(3):
        large(folders.root / "large" / f"{number}.png", number)
    flags = ["--normal", folders.root / "large", "--tile", 50, "--branches", "few"]
    out = predict(folders, *flags, "--input", folders.root / "large")
    assert {row["verdict"] for row in out.rows} == {"normal"}
    assert 0 < out.settings["threshold"] <= 1.001
    alone = predict(folders, *flags, "--shot", 1, "--input", folders.root / "large", to="alone")
    assert alone.code == 0 and 0 < alone.settings["threshold"] <= 1.001


def test_a_support_that_fits_a_tile_is_left_as_it_is(trained):
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    out = predict(trained, *ckpt(trained), "--input", image, "--tile", 50, to="tiled")
    whole = predict(trained, *ckpt(trained), "--input", image, to="untiled")
    assert "cut into tiles" not in out.out and out.scores == whole.scores
    wide = large(trained.root / "wide.png")
    assert predict(trained, *ckpt(trained), "--input", wide, "--tile", 50, to="wide").code == 0


def test_a_checkpoints_support_in_tiles(trained):
    """Masks of the support are cut along: the thresholds are taken from tiles."""
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"  # 12 x 10 pixels
    out = predict(trained, *ckpt(trained), "--input", image, "--tile", 8, "--overlap", 2, to="cut")
    assert out.code == 0 and "cut into tiles" in out.out
    assert out.settings["threshold"] != trained.checkpoint().last.calibration.image["fused"]


@pytest.mark.parametrize("score", ["max", "mean"])
def test_memory_is_bounded_by_the_tile(folders, score):
    """Beside its own map and that of its regions, four times the pixels take hardly more."""
    import tracemalloc

    peaks, assess = [], Predictor.assess

    def watched(*args: object) -> tuple[np.ndarray, float, tuple]:
        tracemalloc.start()
        full, value, found = assess(*args)
        peaks.append(tracemalloc.get_traced_memory()[1] - full.nbytes)
        tracemalloc.stop()
        return full, value, found

    for number, side in enumerate((400, 800)):
        Image.new("L", (side, side), 90).save(folders.root / f"{number}.png")
    without = patch.object(Predictor, "_findings", lambda *args: ())
    with patch.object(Predictor, "assess", watched), without:
        inputs = [folders.root / "0.png", folders.root / "1.png"]
        assert predict(folders, "--input", *inputs, "--tile", 200, "--score", score).code == 0
    assert peaks[1] < peaks[0] + 200_000  # the map grew by 1.9 million bytes


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[Errno 5] '/home/anna/scans/a.bin'", "[Errno 5] 'a.bin'"),
        (r"bad C:\Users\anna\a.bin: 3", "bad a.bin: 3"),
        ("sub/a.png is 3/4 and/or 2x2 / 3", "sub/a.png is 3/4 and/or 2x2 / 3"),
    ],
)
def test_words_of_a_fault_tell_no_folders(said, shown):
    assert outputs.FOLDERS.sub("", said) == shown

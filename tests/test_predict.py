"""predict.py from end to end, on the tiny model: scores, thresholds, files, failures."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import nibabel
import nrrd
import numpy as np
import pytest
import torch
import trees
from lab import SIZE, Lab, files, run
from PIL import Image
from safetensors.torch import save_file
from test_dicom import write as dicom_file

import checkpoint
import dataset
from judge import Judge
from outputs import MAP_TOP

KINDS = ("maps", "overlays", "masks")


@dataclass(frozen=True)
class Out:
    """What predict.py left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "scores.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def scores(self) -> dict[str, str]:
        """By file name (and slice)."""
        return {Path(row["file"]).name + row["slice"]: row["score"] for row in self.rows}

    @property
    def settings(self) -> dict:
        return json.loads((self.folder / "settings.json").read_text())

    def picture(self, kind: str, name: str) -> np.ndarray:
        """The one picture of a kind whose name ends like this."""
        (path,) = (path for path in (self.folder / kind).iterdir() if path.name.endswith(name))
        return np.asarray(Image.open(path))

    def map(self, name: str) -> np.ndarray:
        return self.picture("maps", name) / 65535 * self.settings["maps"]["65535"]


def predict(lab: Lab, *flags: object, to: str = "out") -> Out:
    """Run predict.py without training, unless flags name a checkpoint."""
    usual = ["--device", "cpu", "--cache_path", lab.root / "cache", "--output", lab.root / to]
    if "--ckpt" not in flags:
        usual += ["--model_name", lab.config, "--clip_path", lab.weights, "--img_size", SIZE, "--prompts", lab.words]
        usual += ["--classname", "thing"]
    done = run("predict", *usual, *flags)
    return Out(done.code, done.out, done.err, lab.root / to)


def noise(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0, deep: bool = False) -> Path:
    """A grey image file of noise, 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, size[::-1], np.uint8)
    Image.fromarray(values.astype(np.uint16) * 257 if deep else values).save(path)
    return path


@pytest.fixture
def folders(lab: Lab) -> Lab:
    """Normal, abnormal and other images to score."""
    for label, count in (("good", 4), ("bad", 3), ("new", 5)):
        for number in range(count):
            noise(lab.root / label / f"{label}{number}.png", seed=hash_of(label, number))
    return lab


def hash_of(label: str, number: int) -> int:
    return ["good", "bad", "new"].index(label) * 100 + number


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Lab:
    """Brain trained on one normal and one abnormal image, with masks; and for transfer."""
    lab = Lab(tmp_path_factory.mktemp("trained"), *tiny)
    lab.medical("Brain")
    lab.medical("Chest", masks=None)
    lab.others()
    for obj in ("Brain", "Chest"):
        lab.done("train_few", "--obj", obj)
    lab.done("train_zero", "--obj", "Brain", "--save_path", lab.root / "zero")
    return lab


def ckpt(lab: Lab, obj: str = "Brain") -> tuple[str, Path]:
    return "--ckpt", lab.root / "ckpt" / f"{obj}_1-shot.pth"


# --- a checkpoint


@pytest.mark.parametrize("obj", ["Brain", "Chest"])
def test_scores_are_those_that_test_few_judges_by(trained, obj):
    tested = trained.done("test_few", "--obj", obj).seen[0]
    calibration = trained.checkpoint(f"{obj}_1-shot").last.calibration
    out = predict(trained, *ckpt(trained, obj), "--input", trained.data / f"{obj}_AD" / "test", to=f"few {obj}")
    assert out.code == 0
    _, samples = dataset.open_test(obj, trained.data)
    expected = tested.image_scores(SIZE, calibration)["fused"]
    found = out.scores
    assert len(found) == len(samples)
    assert {sample.image.name: float(found[sample.image.name]) for sample in samples} == {
        sample.image.name: float(score) for sample, score in zip(samples, expected, strict=True)
    }
    assert {float(row["threshold"]) for row in out.rows} == {calibration.image["fused"]}
    assert all((row["verdict"] == "abnormal") == (float(row["score"]) >= float(row["threshold"])) for row in out.rows)
    assert all(float(row["seconds"]) >= 0 and row["note"] == "" and row["slice"] == "" for row in out.rows)
    assert out.settings["calibrated"] and out.settings["pixel_threshold"] == calibration.pixel["fused"]


def test_a_transferred_checkpoint_scores_by_its_prompts_alone(trained):
    tested = trained.done("test_zero", "--save_path", trained.root / "zero").seen[0]
    path = trained.root / "zero" / "Brain.pth"
    calibration = checkpoint.read(path).last.calibration
    out = predict(trained, "--ckpt", path, "--input", trained.data / "Brain_AD" / "test", to="zero out")
    assert out.code == 0 and out.settings["branch"] == "zero" and out.settings["calibrated"]
    expected = [float(score) for score in tested.image_scores(SIZE, calibration)["zero"]]
    assert sorted(map(float, out.scores.values())) == sorted(expected)
    assert out.settings["threshold"] == calibration.image["zero"]
    other = predict(
        trained, "--ckpt", path, "--obj", "Retina_RESC", "--prompts", "base", "--input", trained.data, to="z"
    )
    assert other.code == 0 and not other.settings["calibrated"] and "uncalibrated" in other.out
    seen = predict(trained, "--ckpt", path, "--obj", "Liver", "--input", trained.data, to="liver")
    assert seen.code == 2 and "trained on Liver" in seen.err


def test_adapters_that_others_published_need_to_be_told_their_object(trained):
    adapters = trained.checkpoint().last.adapters
    path = trained.root / "published.safetensors"
    save_file({f"{head}.{name}": weight for head, part in adapters.items() for name, weight in part.items()}, path)
    model = ["--model_name", trained.config, "--clip_path", trained.weights, "--img_size", SIZE, "--shot", 1]
    model += [
        "--iterate",
        -1,
        "--prompts",
        trained.words,
        "--ckpt",
        path,
        "--input",
        trained.data / "Brain_AD" / "test",
    ]
    untold = predict(trained, *model, to="untold")
    assert untold.code == 2 and "--obj" in untold.err
    told = predict(trained, *model, "--obj", "Brain", "--data_path", trained.data, to="told")
    own = predict(trained, *ckpt(trained), "--input", trained.data / "Brain_AD" / "test", to="own")
    assert told.code == 0 and told.scores == own.scores


def test_the_support_may_have_moved(trained, tmp_path):
    (tmp_path / "Brain_AD").symlink_to(trained.data / "Brain_AD")
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    one = predict(trained, *ckpt(trained), "--input", image, to="one")
    other = predict(trained, *ckpt(trained), "--data_path", tmp_path, "--input", image, to="other")
    assert one.code == other.code == 0 and one.scores == other.scores
    gone = predict(trained, *ckpt(trained), "--data_path", tmp_path / "none", "--input", image, to="gone")
    assert gone.code == 2 and "--data_path" in gone.err


# --- alone and in a crowd


@pytest.mark.parametrize("mode", ["checkpoint", "folders", "prompts"])
def test_an_image_alone_is_judged_as_in_a_crowd(trained, mode):
    test = trained.data / "Brain_AD" / "test"
    valid = trained.data / "Brain_AD" / "valid"
    flags = {"checkpoint": ckpt(trained), "folders": ["--normal", valid / "good"], "prompts": []}[mode]
    crowd = predict(trained, *flags, "--input", test, to=f"{mode} crowd")
    for row in crowd.rows[:3]:
        alone = predict(trained, *flags, "--input", row["file"], to=f"{mode} alone")
        (own,) = alone.rows
        assert {key: own[key] for key in own if key != "seconds"} == {key: row[key] for key in row if key != "seconds"}
        name = Path(row["file"]).name
        for kind in KINDS:
            np.testing.assert_array_equal(alone.picture(kind, name), crowd.picture(kind, name))
        for path in files(alone.folder):
            (alone.folder / path).unlink()


# --- without training


def test_thresholds_come_from_the_folders_and_not_from_what_is_scored(folders):
    root = folders.root
    few = predict(folders, "--normal", root / "good", "--input", root / "new" / "new0.png", to="a")
    all_ = predict(folders, "--normal", root / "good", "--input", root / "new", root / "bad", to="b")
    judged = ("threshold", "pixel_threshold", "colours", "maps", "calibrated")
    assert {name: few.settings[name] for name in judged} == {name: all_.settings[name] for name in judged}
    assert few.settings["branch"] == "fused" and few.settings["colours"]["to"] == 2


def test_without_abnormal_images_the_threshold_is_just_above_the_normal_ones(folders):
    """With one normal image left out in turn, its score is the highest that counts as normal."""
    root, none = folders.root, ["--cache_gb", 0]
    out = predict(folders, "--normal", root / "good", "--branches", "few", "--input", root / "new", *none)
    assert out.settings["threshold"] == np.nextafter(np.float32(1), np.float32(2))  # on its own scale the highest is 1
    again = predict(folders, "--normal", root / "good", "--branches", "few", "--input", root / "good", *none, to="own")
    assert all(row["verdict"] == "normal" for row in again.rows)  # they are in the bank


def test_a_bank_in_the_cache_leaves_out_the_right_images(folders):
    """With and without abnormal images the same bank numbers its images otherwise."""
    root = folders.root
    flags = ["--normal", root / "good", "--input", root / "new"]
    fresh = predict(folders, *flags, "--cache_gb", 0, to="fresh")
    predict(folders, *flags, "--abnormal", root / "bad", to="first")
    assert predict(folders, *flags, to="second").settings["threshold"] == fresh.settings["threshold"]


def test_abnormal_images_set_the_threshold_with_the_largest_f1(folders):
    """Abnormal images that are plainly brighter than normal ones: the threshold parts them."""
    root = folders.root
    for number in range(3):
        Image.new("L", (40, 30), 255).save(root / "bad" / f"bad{number}.png")
    out = predict(
        folders,
        *("--normal", root / "good", "--abnormal", root / "bad", "--branches", "few"),
        *("--input", root / "good", root / "bad"),
    )
    verdicts = {Path(row["file"]).parent.name: set() for row in out.rows}
    for row in out.rows:
        verdicts[Path(row["file"]).parent.name].add(row["verdict"])
    assert verdicts == {"good": {"normal"}, "bad": {"abnormal"}}
    assert 0 < out.settings["threshold"] < 1 and out.settings["colours"]["to"] == 1


@pytest.mark.parametrize("score", ["max", "mean"])
def test_prompts_alone_are_probabilities_and_say_that_nothing_is_calibrated(folders, score):
    out = predict(folders, "--input", folders.root / "new", "--score", score)
    assert out.code == 0 and "uncalibrated" in out.out
    assert all(row["note"] == "uncalibrated" and row["threshold"] == "0.5" for row in out.rows)
    assert not out.settings["calibrated"] and out.settings["maps"]["65535"] == 1
    for name, value in out.scores.items():
        assert 0 <= float(value) <= 1
        if score == "max":
            assert out.map(name).max() <= float(value) + 1e-4


def test_prompts_alone_project_the_trunks_tokens_as_clip_does(folders, tiny):
    """By hand: probabilities of ln_post and proj of every tap's patches, averaged over taps and patches."""
    import CLIP
    import prompt
    from dataset import load_image
    from text import text_features

    out = predict(folders, "--input", folders.root / "new" / "new0.png", "--score", "mean")
    clip = CLIP.load_clip(*tiny, SIZE)
    text = text_features(clip, *prompt.sentences("thing", folders.words, "thing"))
    visual, probabilities = clip.visual, []
    with torch.no_grad():
        x = visual.embed(load_image(folders.root / "new" / "new0.png", SIZE)[None])
        for block in visual.transformer.resblocks:
            x = block(x)
            joint = visual.ln_post(x[0, 1:]) @ visual.proj
            cosines = joint / joint.norm(dim=1, keepdim=True) @ text
            probabilities.append((100 * cosines).softmax(dim=1)[:, 1])
    assert float(out.rows[0]["score"]) == pytest.approx(float(torch.stack(probabilities).mean()), abs=1e-5)


def test_shot_takes_some_of_the_normal_images(folders):
    out = predict(folders, "--normal", folders.root / "good", "--shot", 2, "--input", folders.root / "new")
    assert len(out.settings["support"]["normal"]) == 2 and "2 normal files" in out.out


def test_many_normal_images_speak_for_themselves(folders):
    for number in range(17):
        noise(folders.root / "many" / f"{number}.png", seed=number)
    out = predict(folders, "--normal", folders.root / "many", "--input", folders.root / "new")
    assert "17 normal files\n" in out.out and out.code == 0
    capped = predict(
        folders, "--normal", folders.root / "many", "--bank_cap", 20, "--input", folders.root / "new", to="c"
    )
    assert capped.scores != out.scores


def test_volumes_and_dicom_files_may_be_normal_too(folders):
    good = folders.root / "stacks"
    good.mkdir()
    values = np.random.default_rng(5).integers(0, 200, (20, 24, 5), np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), good / "a.nii.gz")
    dicom_file(good / "b.dcm", values[..., 0])
    out = predict(folders, "--normal", good, "--input", good)
    assert out.code == 0 and "2 normal files with 6 slices" in out.out
    bad = predict(folders, "--normal", good, "--abnormal", good, "--input", good, to="bad out")
    assert bad.code == 2 and "which of its 5 slices" in bad.err


# --- thresholds of one's own


def test_given_thresholds_override(trained):
    image = trained.data / "Brain_AD" / "test" / "good" / "img" / "test_n0.png"
    low = predict(trained, *ckpt(trained), "--input", image, "--threshold", -9, "--pixel_threshold", -9, to="low")
    high = predict(trained, *ckpt(trained), "--input", image, "--threshold", 9, "--pixel_threshold", 9, to="high")
    assert [out.rows[0]["verdict"] for out in (low, high)] == ["abnormal", "normal"]
    assert [set(np.unique(out.picture("masks", "test_n0.png"))) for out in (low, high)] == [{255}, {0}]
    assert low.scores == high.scores and high.settings["threshold"] == 9


# --- files that are written


def test_pictures_are_at_the_inputs_own_resolution(folders):
    noise(folders.root / "one" / "wide.png", (130, 70))
    out = predict(folders, "--normal", folders.root / "good", "--input", folders.root / "one")
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
    out = predict(folders, "--normal", folders.root / "good", "--input", path)
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
        assert one.max() == pytest.approx(float(score), abs=0.05)
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


# --- regions of interest


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
            assert parts[-1] == pytest.approx(out.map("a.png").max(), abs=1e-4)
    (full,) = map(float, whole.scores.values())
    assert (max(parts) if score == "max" else sum(parts) / 2) == pytest.approx(full, abs=0.05)
    everything = predict(folders, *flags, "--roi", roi(folders, "a.png", half | True), to="everything")
    assert float(everything.rows[0]["score"]) == pytest.approx(full, abs=0.02 if score == "max" else 1e-5)


def test_a_region_of_a_volume(folders):
    values = np.random.default_rng(1).integers(0, 99, (12, 10, 3), np.int16)
    marked = np.zeros(values.shape, np.uint8)
    marked[:6, :, :2] = 1
    (folders.root / "roi").mkdir()
    for folder, array in ((folders.root, values), (folders.root / "roi", marked)):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1])), folder / "v.nii")
    out = predict(
        folders,
        *("--normal", folders.root / "good", "--input", folders.root / "v.nii", "--roi", folders.root / "roi"),
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


# --- tiles


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
    """Beside its own map, an image of four times the pixels takes hardly more."""
    import tracemalloc

    peaks, look = [], Judge.look

    def watched(*args: object) -> tuple[np.ndarray, float]:
        tracemalloc.start()
        full, value = look(*args)
        peaks.append(tracemalloc.get_traced_memory()[1] - full.nbytes)
        tracemalloc.stop()
        return full, value

    for number, side in enumerate((600, 1200)):
        Image.new("L", (side, side), 90).save(folders.root / f"{number}.png")
    with patch.object(Judge, "look", watched):
        inputs = [folders.root / "0.png", folders.root / "1.png"]
        assert predict(folders, "--input", *inputs, "--tile", 200, "--score", score).code == 0
    assert peaks[1] < peaks[0] + 400_000  # the map grew by 4 million bytes


# --- what goes wrong


def test_unreadable_files_are_named_and_the_others_scored(folders):
    many = folders.root / "many"
    for number in range(30):
        noise(many / f"{number:02d}.png", seed=number)
    (many / "07.png").write_text("no image")
    (many / "11.png").write_bytes((many / "12.png").read_bytes()[:200])
    (many / "x.dcm").write_text("no image either")
    out = predict(folders, "--normal", folders.root / "good", "--input", many)
    bad = {Path(row["file"]).name: row for row in out.rows if row["verdict"] == "unreadable"}
    assert out.code == 1 and len(out.rows) == 31 and set(bad) == {"07.png", "11.png", "x.dcm"}
    assert all(row["score"] == row["threshold"] == row["seconds"] == "" and row["note"] for row in bad.values())
    assert "scored 28" in out.out and all(name in out.err for name in bad)
    assert len(files(out.folder / "maps")) == 28 and out.settings["counts"]["unreadable"] == 3


BAD = {
    "--input nowhere.png": "not there",
    "--input {root}/words.json": "no kind",
    "--input {root}/empty": "no images",
    "--input {good} --ckpt {root}/none.pth": "no checkpoint",
    "--input {good} --ckpt {root}/none.pth --normal {good}": "without --ckpt",
    "--input {good} --abnormal {good}": "--normal",
    "--input {good} --normal {root}/nowhere": "not there",
    "--input {good} --branches few": "--normal",
    "--input {good} --tile 20 --overlap 20": "less than",
    "--input {good} --overlap 5": "--tile",
    "--input {good} --window 5 0": "width",
    "--input {good} --threshold nan": "not a number",
    "--input {good} --roi {root}/nowhere": "no folder",
    "--input {good} --axis 3": "invalid choice",
    "--input {good} --adapter mvfa": "needs --ckpt",
    "--input {good} --output {root}/words.json": "where a folder is wanted",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_options_end_with_one_line(folders, flags):
    (folders.root / "empty").mkdir()
    out = predict(folders, *flags.format(root=folders.root, good=folders.root / "good").split())
    lines = [line for line in out.err.splitlines() if line.strip()]
    assert out.code == 2 and len(lines) == 1 and BAD[flags] in lines[0]
    assert not (out.folder / "scores.csv").exists()


def test_without_words_there_is_a_hint(folders):
    usual = ["--output", folders.root / "out", "--model_name", folders.config, "--clip_path", folders.weights]
    done = run("predict", *usual, "--input", folders.root / "new")
    assert done.code == 2 and "--classname" in done.err
    bank = run(
        "predict",
        *(*usual, "--input", folders.root / "new", "--normal", folders.root / "good", "--branches", "few"),
        *("--img_size", SIZE, "--cache_path", folders.root / "cache", "--device", "cpu"),
    )
    assert bank.code == 0  # a memory bank alone needs none


def test_stopping_leaves_whole_files_and_the_scores_so_far(folders):
    look, calls = Judge.look, []

    def stopped(*args: object) -> tuple[np.ndarray, float]:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return look(*args)

    with patch.object(Judge, "look", stopped):
        out = predict(folders, "--input", folders.root / "new")
    assert out.code == 2 and "stopped" in out.err and len(out.rows) == 2 and out.settings["stopped"]
    assert not [path for path in files(out.folder) if Path(path).name.startswith(".")]
    assert all(len(files(out.folder / kind)) == 2 for kind in KINDS)


def test_folders_are_read_whole_but_for_masks_and_results(lab):
    lab.medical("Brain", test=(2, 2))
    test = lab.data / "Brain_AD" / "test"
    names = {f"test_{kind}{number}.png" for kind in "na" for number in range(2)}
    for _ in range(2):  # the second time, what the first wrote is there
        out = predict(lab, "--input", test, "--output", test / "results")
        with (test / "results" / "scores.csv").open() as file:
            assert out.code == 0 and {Path(row["file"]).name for row in csv.DictReader(file)} == names
    pattern = predict(lab, "--input", test / "*" / "img" / "*0.png", test / "good" / "img" / "test_n0.png", to="p")
    assert set(pattern.scores) == {"test_n0.png", "test_a0.png"} and len(pattern.rows) == 2


def test_same_names_do_not_overwrite_each_other(lab):
    for folder in ("a", "b"):
        trees.picture(lab.root / "in" / folder / "same.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2), np.int16), np.eye(4)), lab.root / "in" / "a" / "same.nii.gz")
    out = predict(lab, "--input", lab.root / "in")
    assert out.code == 0 and len(out.rows) == 4 and len(files(out.folder / "maps")) == 4

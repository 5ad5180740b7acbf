"""The look over a data set: every layout, every kind of finding, and the exit code."""

import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import trees
from helpers.lab import ROOT, paint
from PIL import Image

from dataset import demo, registry
from dataset.check import __main__ as check
from dataset.check import findings, listing, near_duplicates
from runtime.errors import InputError, exit_code


def said(capsys: pytest.CaptureFixture, *flags: object) -> tuple[int, str, str]:
    """Exit code, what was printed, and the error line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dataset.check", *map(str, flags)])
        code = exit_code(check.main)
    printed = capsys.readouterr()
    return code, printed.out, printed.err.strip()


def brain(root: Path, **options: object) -> Path:
    """data/Brain_AD, every image different; the published selections do not fit it, so runs draw."""
    return paint(trees.medical(root / "data/Brain_AD", **options))


def looked(data: Path, capsys: pytest.CaptureFixture, *flags: object, obj: str = "Brain") -> tuple[int, str, str]:
    return said(capsys, data, "--obj", obj, "--iterate", -1, *flags)


LAYOUTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    # object: (what makes it under data/, (split, normal, abnormal, published, masks) as printed)
    "Brain": (lambda data: trees.medical(data / "Brain_AD"), ("valid 5 5 10 83 5", "test 4 3 7 3715 3")),
    "Chest": (
        lambda data: trees.medical(data / "Chest_AD", masks="label"),  # which are not looked at
        ("valid 5 5 10 1490 0", "test 4 3 7 17194 0"),
    ),
    "mvtec/bottle": (lambda data: trees.mvtec(data / "mvtec/bottle"), ("train 5 0 5 209 0", "test 3 6 9 83 6")),
    "mpdd/tubes": (lambda data: trees.mvtec(data / "mpdd/tubes"), ("train 5 0 5 122 0", "test 3 6 9 101 6")),
    "btad/01": (
        lambda data: trees.mvtec(data / "btad/01", "ok", ("ko",), ".bmp"),
        ("train 5 0 5 400 0", "test 3 3 6 70 3"),
    ),
    "visa/candle": (lambda data: trees.visa(data / "visa"), ("train 4 0 4 900 0", "test 2 3 5 200 3")),
    "bolts": (lambda data: trees.mvtec(data / "bolts"), ("train 5 0 5 - 0", "test 3 6 9 - 6")),
    "nuts": (lambda data: trees.medical(data, masks=None), ("valid 5 5 10 - 0", "test 4 3 7 - 0")),
}


@pytest.mark.parametrize("obj", LAYOUTS)
def test_layouts(tmp_path, capsys, obj):
    make, rows = LAYOUTS[obj]
    make(tmp_path / "data")
    paint(tmp_path / "data")
    code, out, err = looked(tmp_path / "data", capsys, "--shot", 2, obj=obj)
    assert code == 0 and not err, out + err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for row in rows:
        assert f"{row} 12x10; RGB" in lines
    assert "train_few.py --shot 2: can start" in lines and "test_zero.py: can start" in lines
    assert {line for line in lines if line.startswith(("FAULT", "LEAK", "leak"))} == set()
    if obj in registry.MEDICAL:
        assert lines[0] == f"{obj}: {registry.MEDICAL[obj].modality}"


def test_nothing_to_find_is_said(tmp_path, capsys):
    brain(tmp_path)
    assert "nothing found" in looked(tmp_path / "data", capsys)[1]


def test_the_demo_is_known_for_what_it_is(tmp_path, capsys):
    demo.ensure(tmp_path, names=["Brain"])
    code, out, _ = said(capsys, tmp_path, "--obj", "Brain")
    assert code == 0 and "drawn by dataset.demo" in out and "3715" not in out and "nothing found" in out


TEST, VALID = "test/Ungood", "valid/Ungood"
GREY = np.tile(np.arange(12, dtype=np.uint8) * 20, (10, 1))
COLOURS = np.zeros((10, 12, 3), np.uint8) + GREY[..., None] * np.array([1, 0, 0], np.uint8)


def save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


FINDINGS: dict[str, tuple[Callable[[Path], object], int, str, str]] = {
    # case: (what is done to Brain_AD, exit code, the finding's line, the file's line)
    "leak": (
        lambda root: shutil.copy(root / "valid/good/img/valid_n2.png", root / "test/good/img/zz.png"),
        0,
        "LEAK 1 x image that is in valid and in test",
        "test/good/img/zz.png = valid/good/img/valid_n2.png",
    ),
    "both labels": (
        lambda root: shutil.copy(root / f"{TEST}/img/test_a0.png", root / "test/good/img/zz.png"),
        0,
        "LEAK 1 x image that is there as normal and as abnormal",
        f"{TEST}/img/test_a0.png = test/good/img/zz.png",
    ),
    "twice": (
        lambda root: shutil.copy(root / "test/good/img/test_n0.png", root / "test/good/img/zz.png"),
        0,
        "look 1 x image that is in test twice",
        "test/good/img/zz.png = test/good/img/test_n0.png",
    ),
    "empty mask": (
        lambda root: trees.mask(root / f"{TEST}/anomaly_mask/test_a0.png", level=0),
        0,
        "look 1 x mask that marks nothing",
        f"{TEST}/anomaly_mask/test_a0.png = {TEST}/img/test_a0.png",
    ),
    "full mask": (
        lambda root: save(np.full((10, 12), 255, np.uint8), root / f"{TEST}/anomaly_mask/test_a0.png"),
        0,
        "look 1 x mask that marks the whole image",
        f"{TEST}/anomaly_mask/test_a0.png",
    ),
    "grey mask": (
        lambda root: save(GREY, root / f"{TEST}/anomaly_mask/test_a0.png"),
        0,
        "look 1 x mask that is not black and one value",
        f"{TEST}/anomaly_mask/test_a0.png: 12 values, 0 to 220; 41.7% counts as abnormal",
    ),
    "coloured mask": (
        lambda root: save(COLOURS, root / f"{VALID}/anomaly_mask/valid_a0.png"),
        0,
        "look 1 x mask that is not black and one value",
        f"{VALID}/anomaly_mask/valid_a0.png: 12 values",
    ),
    "mask of another size": (
        lambda root: trees.mask(root / f"{TEST}/anomaly_mask/test_a0.png", (9, 9)),
        2,
        "FAULT 1 x mask of another size than its image",
        f"{TEST}/anomaly_mask/test_a0.png = {TEST}/img/test_a0.png: 9x9 and 12x10",
    ),
    "images without masks": (
        lambda root: [(root / f"{TEST}/anomaly_mask/test_a{i}.png").unlink() for i in range(2)],
        2,
        "FAULT 2 x abnormal image without a mask",
        f"{TEST}/img/test_a1.png",
    ),
    "mask without image": (
        lambda root: trees.mask(root / f"{VALID}/anomaly_mask/zz.png"),
        2,
        "FAULT 1 x mask without an image",
        f"{VALID}/anomaly_mask/zz.png",
    ),
    "two masks": (
        lambda root: [
            (root / f"{TEST}/anomaly_mask/test_a0.png").unlink(),
            trees.mask(root / f"{TEST}/anomaly_mask/test_a0.bmp"),
            trees.mask(root / f"{TEST}/anomaly_mask/test_a0.tif"),
        ],
        2,
        "FAULT 1 x image with several masks",
        f"{TEST}/img/test_a0.png",
    ),
    "image cut short": (
        lambda root: cut(root / "test/good/img/test_n0.png"),
        2,
        "FAULT 1 x image that can't be read",
        "test/good/img/test_n0.png: ",
    ),
    "no image": (
        lambda root: (root / "test/good/img/test_n0.png").write_text("text"),
        2,
        "FAULT 1 x image that can't be read",
        "test/good/img/test_n0.png: ",
    ),
    "unreadable mask": (
        lambda root: (root / f"{TEST}/anomaly_mask/test_a0.png").write_text("text"),
        2,
        "FAULT 1 x mask that can't be read",
        f"{TEST}/anomaly_mask/test_a0.png: ",
    ),
    "no support": (lambda root: shutil.rmtree(root / "valid"), 2, "train_few.py --shot 4: ", "test_zero.py: can start"),
    "no normal test images": (
        lambda root: shutil.rmtree(root / "test/good"),
        2,
        "train_few.py --shot 4: ",
        "test_zero.py: ",
    ),
}


@pytest.mark.parametrize("case", FINDINGS)
def test_findings(tmp_path, capsys, case):
    harm, expected, what, where = FINDINGS[case]
    root = brain(tmp_path)
    harm(root)
    code, out, err = looked(tmp_path / "data", capsys)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == expected, out + err
    assert "nothing found" not in out
    assert any(line.startswith(what) for line in lines) and any(line.startswith(where) for line in lines), out
    assert sum(line.startswith(("FAULT", "LEAK", "leak?", "look")) for line in lines) == (" x " in what)
    assert bool(err) == (code == 2) and err.count("error: ") == (code == 2)


def test_all_faults_are_listed_though_a_run_stops_at_the_first(tmp_path, capsys):
    root = brain(tmp_path)
    (root / f"{TEST}/anomaly_mask/test_a0.png").unlink()
    trees.mask(root / f"{TEST}/anomaly_mask/zz.png")
    cut(root / "test/good/img/test_n0.png")
    target = tmp_path / "found.csv"
    code, _, err = looked(tmp_path / "data", capsys, "--csv", target)
    assert code == 2 and "test_a0.png has no mask" in err
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["kind"], Path(row["file"]).name) for row in rows} == {
        ("FAULT", "test_a0.png"),
        ("FAULT", "zz.png"),
        ("FAULT", "test_n0.png"),
    }
    assert {row["object"] for row in rows} == {"Brain"}


def test_many_files_are_counted_and_some_named(tmp_path, capsys):
    root = brain(tmp_path, test=(9, 3))
    for number in range(6):
        shutil.copy(root / f"test/good/img/test_n{number}.png", root / f"test/good/img/zz{number}.png")
    out = looked(tmp_path / "data", capsys)[1]
    assert "6 x image that is in test twice" in out and out.count("zz") == 3 and "and 3 more" in out
    assert looked(tmp_path / "data", capsys, "--show", 6)[1].count("zz") == 6


def test_mixed_sizes_and_modes(tmp_path, capsys):
    root = brain(tmp_path, test=(4, 3))
    rng = np.random.default_rng(0)
    save(rng.integers(0, 255, (20, 30), np.uint8), root / "test/good/img/test_n0.png")
    out = looked(tmp_path / "data", capsys)[1]
    assert "12x10 (6), 30x20 (1); RGB (6), L (1)" in out


def test_the_run_that_is_asked_for(tmp_path, capsys):
    brain(tmp_path, valid=(5, 0))
    code, _, err = looked(tmp_path / "data", capsys)
    assert code == 2 and "use --abnormal_shot 0" in err
    assert looked(tmp_path / "data", capsys, "--abnormal_shot", 0)[0] == 0
    code, _, err = looked(tmp_path / "data", capsys, "--abnormal_shot", 0, "--shot", 6)
    assert code == 2 and "use --shot 5 or less" in err
    brain(tmp_path)
    code, _, err = said(capsys, tmp_path / "data", "--obj", "Brain")  # the published selection
    assert code == 2 and "4-shot.txt" in err


def test_visa_tables(tmp_path, capsys):
    root = trees.visa(tmp_path / "visa")
    paint(tmp_path / "visa")
    (root / "Data/Images/Normal/0005.JPG").unlink()
    trees.picture(root / "Data/Images/Normal/9999.JPG")
    trees.mask(root / "Data/Masks/Anomaly/999.png")
    code, out, _ = looked(tmp_path, capsys, "--shot", 2, obj="visa/candle")
    assert code == 2
    assert "1 x file that 1cls.csv names and that is not there" in out and "Data/Images/Normal/0005.JPG" in out
    assert "1 x image that 1cls.csv does not name" in out and "1 x mask without an image" in out


def test_masks_of_no_kind_of_defect(tmp_path, capsys):
    root = paint(trees.mvtec(tmp_path / "mvtec/bottle"))
    trees.mask(root / "ground_truth/scratch/000_mask.png")
    code, out, err = looked(tmp_path, capsys, obj="mvtec/bottle")
    assert code == 2 and "1 x mask without an image" in out and "scratch holds masks" in err


def test_all_classes_of_a_set(tmp_path, capsys):
    for name in ("bracket_black", "tubes"):
        paint(trees.mvtec(tmp_path / "mpdd" / name))
    code, out, err = looked(tmp_path, capsys, obj="mpdd")
    assert code == 2 and "mpdd/bracket_black:" in out and "mpdd/tubes:" in out and "and 3 more objects" in err


@pytest.mark.parametrize("flags", ["nowhere --obj Brain", ". --obj Brian", ". --obj Brain"])
def test_no_data(tmp_path, capsys, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, *flags.split())
    assert code == 2 and not out and err.startswith("error: ") and "\n" not in err


def test_as_a_module(tmp_path):
    brain(tmp_path)
    command = [sys.executable, "-m", "dataset.check", tmp_path / "data", "--obj", "Brain", "--iterate", "-1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Brain: ") and not done.stderr
    assert "1 is not used" in " ".join(check.options().format_help().split())


# Twins


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[np.ndarray]:
    """40 demo brains, which look alike."""
    rngs = (np.random.default_rng(seed) for seed in range(40))
    return [Image.fromarray(demo.draw_object("Brain", rng, False).image).convert("RGB") for rng in rngs]


def again(picture: Image.Image, how: str) -> Image.Image:
    """The same picture in another file."""
    if how.startswith("jpeg"):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(how[4:]))
        return Image.open(buffer)
    if how == "half":
        return picture.resize((picture.width // 2, picture.height // 2))
    return Image.fromarray((np.asarray(picture) * 0.9 + 5).astype(np.uint8))


@pytest.mark.parametrize("how", ["jpeg50", "jpeg90", "half", "darker"])
def test_near_duplicates_are_found_among_pictures_that_look_alike(pictures, how):
    def thumbnails(images: list[Image.Image]) -> np.ndarray:
        return np.stack([near_duplicates.thumbnail(np.asarray(image.convert("RGB"))) for image in images])

    ones = thumbnails([*pictures[:10], again(pictures[30], how), again(pictures[31], how)])
    others = thumbnails(pictures[20:])
    found = near_duplicates.near_duplicates(ones, others)
    assert {row: place for row, (place, _) in found.items()} == {10: 10, 11: 11}
    assert near_duplicates.near_duplicates(ones[:10], others) == {}


def test_near_duplicates_in_pieces(pictures, monkeypatch):
    rng = np.random.default_rng(0)
    ones = rng.integers(0, 255, (50, *near_duplicates.SHAPE), np.uint8)
    others = rng.permutation(np.concatenate([ones[::5], rng.integers(0, 255, (30, *near_duplicates.SHAPE), np.uint8)]))
    whole = near_duplicates.near_duplicates(ones, others)
    assert sorted(whole) == list(range(0, 50, 5))
    assert all((ones[row] == others[place]).all() for row, (place, _) in whole.items())
    monkeypatch.setattr(near_duplicates, "CELLS", 64)
    monkeypatch.setattr(near_duplicates, "PAIRS", 3)
    assert near_duplicates.near_duplicates(ones, others) == whole


def test_near_duplicates_are_reported(tmp_path, capsys, pictures):
    root = trees.medical(tmp_path / "data/scans", masks=None, valid=(4, 4), test=(20, 4))
    files = sorted(path for path in root.rglob("*.png"))
    for path, picture in zip(files, pictures, strict=False):
        picture.save(path)
    again(Image.open(root / "test/good/img/test_n3.png"), "jpeg90").save(root / "valid/good/img/valid_n1.png")
    args = ("--shot", 2, "--alike")
    code, out, _ = looked(tmp_path / "data", capsys, *args, 0.95, obj="scans")
    assert code == 0 and "leak? 1 x image of valid that looks like one of test" in out
    assert "valid/good/img/valid_n1.png = test/good/img/test_n3.png: correlation " in out
    assert "leak?" not in looked(tmp_path / "data", capsys, *args, 1, obj="scans")[1]


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    """What is kept of an image is a digest and a thumbnail, whatever its size."""
    root = brain(tmp_path)
    info = registry.MEDICAL["Brain"]
    review = findings.Review(info, root, listing.list_tree(info, root), False)
    alive: list[int] = []
    monkeypatch.setattr(findings, "WINDOW", 4)
    monkeypatch.setattr(findings, "read_rgb", lambda path: alive.append(1) or np.zeros((2000, 2000, 3), np.uint8))
    looks = findings.look_at_all(review, 2)
    assert len(alive) == len(looks.digests) == 17
    assert looks.thumbnails.nbytes == 17 * near_duplicates.SIDE * (near_duplicates.SIDE + 1)


def test_a_listing_survives_what_readers_refuse(tmp_path):
    with pytest.raises(InputError):
        registry.locate(registry.MEDICAL["Brain"], tmp_path)
    empty = tmp_path / "Brain_AD"
    empty.mkdir()
    assert list(listing.list_tree(registry.MEDICAL["Brain"], empty).samples()) == []
    assert list(listing.list_tree(registry.INDUSTRIAL["mvtec/bottle"], empty).samples()) == []
    assert list(listing.list_tree(registry.INDUSTRIAL["visa/candle"], empty).samples()) == []


@pytest.mark.parametrize("module", ["dataset.check", "dataset.download", "dataset.demo", "dataset.solar"])
def test_a_wrong_option_is_one_line(module):
    done = subprocess.run([sys.executable, "-m", module, "--nonsense"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1

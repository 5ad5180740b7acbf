"""The skin sets from small fakes of the raw downloads: labels, split, masks, names, and what is refused."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import trees
from PIL import Image
from sklearn.model_selection import train_test_split

import dataset
from dataset import support
from dataset.convert import skin, writer
from runtime.errors import InputError

KINDS = ["mel", "nv", "nv", "bkl", "nv"]  # of the fake's images, over and over
COUNT = 60


def write_table(path: Path, rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def ham(root: Path) -> Path:
    """HAM10000 as its archives unpack, images in two parts."""
    rows = []
    for i in range(COUNT):
        name, kind = f"ISIC_{24306 + i:07d}", KINDS[i % len(KINDS)]
        trees.picture(root / f"HAM10000_images_part_{1 + i % 2}" / f"{name}.jpg", level=60 + i)
        if kind in ("mel", "nv"):
            trees.mask(root / "HAM10000_segmentations_masks" / f"{name}_segmentation.png")
        rows.append((f"HAM_{i:07d}", name, kind, "histo"))
    write_table(root / "HAM10000_metadata.csv", [("lesion_id", "image_id", "dx", "dx_type"), *reversed(rows)])
    return root


def isic(root: Path) -> Path:
    """ISIC 2019, its folder of images in a folder of the same name, as some archives have it."""
    rows = []
    for i in range(COUNT):
        name, kind = f"ISIC_{i:07d}" + "_downsampled" * (i % 7 == 0), KINDS[i % len(KINDS)]
        trees.picture(root / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input" / f"{name}.jpg", level=60 + i)
        rows.append((name, float(kind == "mel"), float(kind == "nv"), float(kind == "bkl")))
    write_table(root / "ISIC_2019_Training_GroundTruth.csv", [("image", "MEL", "NV", "BKL"), *rows])
    return root


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def study(kinds: list[str]) -> dict[str, list[int]]:
    """The study's split of rows of kinds "mel" and "nv", as its scripts draw it."""
    train, rest = train_test_split(np.arange(len(kinds)), test_size=0.2, stratify=kinds, random_state=42)
    valid, test = train_test_split(rest, test_size=0.5, stratify=np.array(kinds)[rest], random_state=42)
    return {"train": train.tolist(), "valid": valid.tolist(), "test": test.tolist()}


def test_ham10000(tmp_path, capsys):
    source = ham(tmp_path / "raw")
    folder = skin.convert("ham10000", source, tmp_path / "data")
    kept = [i for i in reversed(range(COUNT)) if KINDS[i % len(KINDS)] != "bkl"]
    kinds = [KINDS[i % len(KINDS)] for i in kept]
    for split, rows in study(kinds).items():
        for label, kind in (("Ungood", "mel"), ("good", "nv")):
            wanted = sorted(f"ISIC_{24306 + kept[row]:07d}.png" for row in rows if kinds[row] == kind)
            assert names(folder / split / label / "img") == wanted
            masks = folder / split / label / "anomaly_mask"
            assert names(masks) == wanted if kind == "mel" else not masks.exists()
    few = dataset.open_few("Skin_HAM10000", tmp_path / "data", 1, iterate=-1)
    assert few.info.masks and few.info.classname == "skin lesion"
    image = few.test[0].image
    raw = next(source.rglob(f"{image.stem}.jpg"))
    assert Image.open(image).format == "PNG"
    assert (np.asarray(Image.open(image)) == np.asarray(Image.open(raw))).all()
    out = capsys.readouterr().out
    assert "  valid: 4 normal + 1 abnormal" in out
    assert "melanomas in valid: 1 (the study: 112)" in out and "--iterate -1" in out


def test_isic2019(tmp_path, capsys):
    source = isic(tmp_path / "raw")
    folder = skin.convert("isic2019", source, tmp_path / "data")
    melanomas = [i for i in range(COUNT) if KINDS[i % len(KINDS)] == "mel"]
    naevi = [i for i in range(COUNT) if KINDS[i % len(KINDS)] == "nv"]
    kept = melanomas + naevi
    kinds = ["mel"] * len(melanomas) + ["nv"] * len(naevi)
    found = 0
    for split, rows in study(kinds).items():
        for label, kind in (("Ungood", "mel"), ("good", "nv")):
            wanted = {kept[row] for row in rows if kinds[row] == kind}
            assert {int(name[5:12]) for name in names(folder / split / label / "img")} == wanted
            assert names(folder / split / label) == ["img"]
            found += len(wanted)
    assert found == len(kept)
    for image in folder.rglob("*.jpg"):
        assert image.read_bytes() == next(source.rglob(image.name)).read_bytes()
    assert any("_downsampled" in image.name for image in folder.rglob("*.jpg"))
    few = dataset.open_few("Skin_ISIC2019", tmp_path / "data", 1, iterate=-1)
    assert few.info.masks is False and {sample.label for sample in few.test} == {0, 1}
    assert "(the study: 452)" in capsys.readouterr().out


def test_the_split_is_the_study_s(tmp_path):
    """The study's largest selection names all melanomas of its `valid`, and the table's names ascend. So of two such
    melanomas, the farther apart our draw puts them in the table, the farther apart their numbers must be. Under any
    other draw (labels the other way round, the halves exchanged) the correlation is below 0.2."""
    melanomas, naevi = 4522, 12875  # in ISIC_2019_Training_GroundTruth.csv
    rows = [
        skin.Diagnosis(i, str(i), skin.MELANOMA if i < melanomas else skin.NAEVUS) for i in range(melanomas + naevi)
    ]
    splits = skin.split_rows(rows, tmp_path)
    places = np.array([i for i in range(melanomas) if splits[i] == "valid"])
    named = support.read_selection(support.SEED_FILES / "Skin_ISIC2019" / "452-shot.txt")[1]
    numbers = np.array([int(re.match(r"ISIC_(\d+)", name)[1]) for name in sorted(named)])
    assert len(places) == len(numbers)
    gaps = np.diff(places), np.diff(numbers)
    for first, last in ((24306, 34320), (53454, 73254)):  # where numbers follow one another closely
        close = (numbers[:-1] >= first) & (numbers[1:] <= last)
        assert np.corrcoef(gaps[0][close], gaps[1][close])[0, 1] > 0.8
    rows = [skin.Diagnosis(i, str(i), skin.MELANOMA if i < 1113 else skin.NAEVUS) for i in range(7818)]  # HAM10000
    assert skin.split_rows(rows, tmp_path)[:1113].count("valid") == 112


def test_the_published_selection_fits(tmp_path, monkeypatch, capsys):
    """`--iterate 0` takes the selection by the names that the converter gave, if the table is the study's."""
    source = ham(tmp_path / "raw")
    chosen = [file.name for file in skin.plan("ham10000", source) if file.name.startswith("valid/")]
    normal = next(name for name in chosen if "good/img" in name)
    abnormal = next(name for name in chosen if "Ungood/img" in name)
    seeds = tmp_path / "fewshot_seed"
    (seeds / "Skin_HAM10000").mkdir(parents=True)
    lines = f"a-0: {Path(abnormal).name}\nn-0: {Path(normal).name}\n"
    (seeds / "Skin_HAM10000" / "1-shot.txt").write_text(lines)
    for module in (skin, support):
        monkeypatch.setattr(module, "SEED_FILES", seeds)
    skin.convert("ham10000", source, tmp_path / "data")
    out = capsys.readouterr().out
    assert "melanomas in valid: 1 (the study: 1)" in out
    assert "images in the published selections: 2, found in valid under their label: 2" in out
    assert "--iterate -1" not in out
    few = dataset.open_few("Skin_HAM10000", tmp_path / "data", 1)
    assert few.support_normal[0].image.name == Path(normal).name
    assert few.counts["support"]["source"] == "fewshot_seed/Skin_HAM10000/1-shot.txt, iterate 0"


def test_a_damaged_image_stops_and_is_gone_on_from(tmp_path, capsys):
    source = ham(tmp_path / "raw")
    files = skin.plan("ham10000", source)
    image = next(source / file.origin for file in files[10:] if file.origin.endswith(".jpg"))
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    with pytest.raises(InputError, match=re.escape(f"{image} can't be read as an image")):
        skin.convert("ham10000", source, tmp_path / "data")
    assert names(tmp_path / "data") == [".Skin_HAM10000_AD.part"]
    with pytest.raises(InputError, match="no folder"):
        dataset.open_few("Skin_HAM10000", tmp_path / "data", 1)
    image.write_bytes(whole)
    folder = skin.convert("ham10000", source, tmp_path / "data")
    assert names(tmp_path / "data") == [folder.name] and "going on:" in capsys.readouterr().out
    assert writer.is_there(folder, files)


def fault(name: str, source: Path, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        skin.convert(name, source, out)
    assert "\n" not in str(caught.value) and not out.exists()
    return str(caught.value)


def test_faults_of_the_downloads(tmp_path):
    source, out = tmp_path / "raw", tmp_path / "data"
    assert "no folder" in fault("ham10000", source, out) and "--source" in fault("ham10000", source, out)
    source.mkdir()
    assert f"no file {source / 'HAM10000_metadata.csv'}" in fault("ham10000", source, out)
    table = ham(source) / "HAM10000_metadata.csv"
    (source / "HAM10000_images_part_2").rename(tmp_path / "away")
    assert re.search(rf"{table}, line \d+: ISIC_\d+.jpg is not among the 30 files", fault("ham10000", source, out))
    (tmp_path / "away").rename(source / "HAM10000_images_part_2")
    (source / "HAM10000_segmentations_masks").rename(tmp_path / "away")
    assert "has no folder HAM10000_segmentations_masks" in fault("ham10000", source, out)
    write_table(table, [("image_id", "dx"), ("../x", "mel")])
    assert "line 2: '../x' is no name of an image" in fault("ham10000", source, out)
    write_table(table, [("image_id", "dx"), ("a", "mel"), ("a", "nv")])
    assert "names a on lines 2 and 3" in fault("ham10000", source, out)
    write_table(table, [("image_id", "kind"), ("a", "mel")])
    assert "has no column dx" in fault("ham10000", source, out)
    (tmp_path / "away").rename(source / "HAM10000_segmentations_masks")
    write_table(table, [("image_id", "dx"), ("a", "mel"), ("b", "nv")])
    assert "1 melanomas and 1 naevi, too few" in fault("ham10000", source, out)
    write_table(table, [("image_id", "dx"), *((f"a{i}", "nv") for i in range(40))])
    assert "0 melanomas and 40 naevi, too few" in fault("ham10000", source, out) and not out.exists()
    ham(source)
    double = source / "HAM10000_images_part_1" / "again" / "ISIC_0024306.jpg"
    trees.picture(double)
    assert f"and {double} bear one name" in fault("ham10000", source, out)


def test_kinds_and_endings_in_any_case_and_no_leftovers_of_archivers(tmp_path):
    source = ham(tmp_path / "raw")
    table = source / "HAM10000_metadata.csv"
    table.write_text(table.read_text().replace(",mel,", ",MEL,"))
    image = next((source / "HAM10000_images_part_1").iterdir())
    image.rename(image.with_suffix(".JPG"))
    trees.picture(source / "HAM10000_images_part_1" / "__MACOSX" / image.name)
    assert skin.plan("ham10000", source) and sum(
        file.name.count("Ungood/img") for file in skin.plan("ham10000", source)
    )


def test_faults_of_the_truth_of_isic2019(tmp_path):
    source = isic(tmp_path / "raw")
    table = source / "ISIC_2019_Training_GroundTruth.csv"
    for values in (("1", "1"), ("x", "0"), ("nan", "1.0")):
        write_table(table, [("image", "MEL", "NV"), ("a", *values)])
        assert f"{table}, line 2: want 0 or 1 under MEL and NV" in fault("isic2019", source, tmp_path / "data")


def test_a_mask_of_another_size(tmp_path):
    source = ham(tmp_path / "raw")
    for path in source.rglob("*_segmentation.png"):
        trees.mask(path, size=(5, 5))
    with pytest.raises(InputError, match="is 5x5 but its image"):
        skin.convert("ham10000", source, tmp_path / "data")


def test_the_command(tmp_path):
    source = isic(tmp_path / "raw")
    command = [sys.executable, "-m", "dataset.convert", "isic2019", "--source", source, "--out", tmp_path / "data"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "  test: " in run.stdout
    command[5] = tmp_path / "none"
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and run.stderr.startswith("error: no folder ") and run.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "made"), [("ham10000", ham), ("isic2019", isic)])
def test_from_the_raw_download_to_figures(lab, name, made):
    """Converted, trained on and tested by the scripts, nothing renamed between."""
    folder = skin.convert(name, made(lab.root / "raw"), lab.data)
    obj = folder.name.removesuffix("_AD")
    trained = lab.done("train_few", "--obj", obj)
    tested = lab.done("test_few", "--obj", obj)
    pixels = obj == "Skin_HAM10000"  # ISIC 2019 has no masks
    assert (f"{obj} AUC : " in trained.out) and (f"{obj} pAUC : " in trained.out) == pixels
    assert lab.results(f"train_few/{obj}_1-shot")["results"] == lab.results(f"test_few/{obj}_1-shot")["results"]
    assert tested.out.count(f"{obj} AUC : ") == trained.out.count(f"{obj} AUC : ")

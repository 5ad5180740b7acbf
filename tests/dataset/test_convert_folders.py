"""Any folder of images with a csv of labels: the tree that comes of it, and every fault on one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import trees
from helpers.flat_names import path_of

import dataset
from dataset.convert import folders_csv
from dataset.convert.folders_csv import Draw, convert
from runtime.errors import InputError

MASK = "masks/{}.png"


def source(root: Path, count: int = 20) -> Path:
    """Two folders of images of the same names, every third abnormal, and their masks."""
    for folder in ("line_1", "line_2"):
        for i in range(count):
            trees.picture(root / folder / f"{i:03d}.png", level=60 + i)
            if i % 3 == 0:
                trees.mask(root / MASK.format(f"{folder}_{i:03d}"))
    return root


def lines(count: int = 20, masks: bool = True) -> list[str]:
    found = []
    for folder in ("line_1", "line_2"):
        for i in range(count):
            mask = MASK.format(f"{folder}_{i:03d}") if masks and i % 3 == 0 else ""
            found.append(f"{folder}/{i:03d}.png,{'NG' if i % 3 == 0 else 'ok'},{mask}")
    return found


def table(path: Path, rows: list[str], header: str = "path,label,mask") -> Path:
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def images(folder: Path) -> dict[str, set[str]]:
    """Paths in the source by "split/label"."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("img/*"):
        place = "/".join(path.relative_to(folder).parts[:2])
        found.setdefault(place, set()).add(path_of(path.name))
    return found


def test_a_drawn_split(tmp_path, capsys):
    raw = source(tmp_path / "raw")
    rows = lines()
    folder = convert(raw, table(tmp_path / "t.csv", rows), "screws", tmp_path / "data", Draw(0.25, 7))
    assert folder == tmp_path / "data" / "screws_AD"
    found = images(folder)
    assert {place: len(names) for place, names in found.items()} == {
        **{"valid/good": 7, "valid/Ungood": 3},
        **{"test/good": 19, "test/Ungood": 11},
    }
    for row in rows:
        path, label, _ = row.split(",")
        place = "Ungood" if label == "NG" else "good"
        assert sum(path in found[f"{split}/{place}"] for split in ("valid", "test")) == 1
    for image in folder.rglob("img/*"):
        assert image.read_bytes() == (raw / path_of(image.name)).read_bytes()
    few = dataset.open_few("screws", tmp_path / "data", 4, abnormal_shot=3)
    assert few.info.masks and (len(few.support_normal), len(few.support_abnormal), len(few.test)) == (4, 3, 30)
    for sample in (*few.support_abnormal, *few.test):
        if sample.label:
            wanted = raw / MASK.format(path_of(sample.image.name).replace("/", "_")[:-4])
            assert sample.mask.read_bytes() == wanted.read_bytes()
    out = capsys.readouterr().out
    assert "valid: 7 normal + 3 abnormal" in out and "seed 7, a share of 0.25" in out
    assert f"python train_few.py --obj screws --data_path {tmp_path / 'data'} --shot 3\n" in out
    # The draw depends on the seed, and on nothing but the paths: not on the order of the rows.
    again = convert(raw, table(tmp_path / "t.csv", rows[::-1]), "again", tmp_path / "data", Draw(0.25, 7))
    assert images(again) == found
    other = convert(raw, table(tmp_path / "t.csv", rows), "other", tmp_path / "data", Draw(0.25, 8))
    assert images(other) != found


def test_a_split_of_the_csv_s_own(tmp_path, capsys):
    raw = source(tmp_path / "raw", 6)
    splits = ["train", "Val", "VALID", "test", "Test", "val"] * 2
    rows = [f"{row.rsplit(',', 1)[0]},{split}" for row, split in zip(lines(6), splits, strict=True)]
    folder = convert(raw, table(tmp_path / "t.csv", rows, "path,label,split"), "screws", tmp_path / "data")
    assert images(folder) == {
        "valid/good": {f"line_{k}/{i:03d}.png" for k in (1, 2) for i in (1, 2, 5)},
        "valid/Ungood": {"line_1/000.png", "line_2/000.png"},
        "test/good": {"line_1/004.png", "line_2/004.png"},
        "test/Ungood": {"line_1/003.png", "line_2/003.png"},
    }
    assert dataset.open_few("screws", tmp_path / "data", 2).info.masks is False
    assert "train counts as valid" in capsys.readouterr().out


def test_only_normal_images_for_support(tmp_path, capsys):
    raw = source(tmp_path / "raw", 6)
    rows = ["line_1/001.png,good,train", "line_1/002.png,GOOD,train", "line_1/003.png,bad,test"]
    convert(raw, table(tmp_path / "t.csv", rows, "path,label,split"), "screws", tmp_path / "data")
    assert " --shot 2 --abnormal_shot 0" in capsys.readouterr().out
    few = dataset.open_few("screws", tmp_path / "data", 2, abnormal_shot=0)
    assert len(few.support_normal) == 2 and [sample.label for sample in few.test] == [1]


def test_masks_of_other_kinds_and_names_of_other_kinds(tmp_path):
    """Masks pair up whatever the kinds of files, also where one image's name is another one's mask's."""
    raw = tmp_path / "raw"
    rows = []
    for i, name in enumerate(("a.jpg", "a_mask.jpg", "b/a.bmp", "_x.PNG", ".y.png", "z%.tif")):
        trees.picture(raw / name)
        trees.mask(raw / "m" / f"{i}.bmp", level=100 + i)
        rows.append(f"{name},1,m/{i}.bmp,{'test' if i % 2 else 'valid'}")
    trees.picture(raw / "n.webp")
    trees.mask(raw / "m" / "none.png", level=0)
    rows.append("n.webp,0,m/none.png,valid")
    convert(raw, table(tmp_path / "t.csv", rows, "path,label,mask,split"), "screws", tmp_path / "data")
    few = dataset.open_few("screws", tmp_path / "data", 1, abnormal_shot=3)
    pairs = {path_of(sample.image.name): sample.mask for sample in (*few.support_abnormal, *few.test)}
    for i, row in enumerate(rows[:-1]):
        assert pairs[row.split(",")[0]].read_bytes() == (raw / "m" / f"{i}.bmp").read_bytes()


@pytest.mark.parametrize("word", [*folders_csv.NORMAL, *folders_csv.ABNORMAL])
def test_words_for_labels(tmp_path, word):
    trees.picture(tmp_path / "a.png")
    for text in (word, word.upper(), word.title()):
        row = folders_csv.read_rows(table(tmp_path / "t.csv", [f"a.png,{text}"], "path,label"), tmp_path)[0]
        assert row.label == (word in folders_csv.ABNORMAL)


def test_again_and_again(tmp_path, capsys):
    raw, file = source(tmp_path / "raw"), table(tmp_path / "t.csv", lines())
    folder = convert(raw, file, "screws", tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    convert(raw, file, "screws", tmp_path / "data")
    assert "is there already" in capsys.readouterr().out
    with pytest.raises(InputError, match="was made of other files or options"):
        convert(raw, file, "screws", tmp_path / "data", Draw(seed=1))
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("line", "row", "message"),
    [
        (2, "line_1/000.png,maybe,", "label is 'maybe': want one of 0, 0.0, good"),
        (2, "line_1/000.png,,", "label is ''"),
        (4, "line_1/777.png,0,", "no file"),
        (4, "masks,0,", "no file"),
        (4, "/etc/passwd,0,", "absolute path"),
        (4, "../raw/line_1/002.png,0,", "leads out of"),
        (4, "line_1/001.png,0,", "named on line 3 already"),
        (4, "./line_1//001.png,0,", "named on line 3 already"),
        (4, "line_1/readme.txt,0,", "no kind of image"),
        (5, "line_1/003.png,1,", "is abnormal but has no mask, as line 2 has"),
        (5, "line_1/003.png,1,masks/none.png", "no file"),
        (5, "line_1/003.png,1,masks/small.png", "is 5x5 but its image"),
        (5, "line_1/003.png,1,masks/broken.png", "broken.png can't be read as an image"),
        (4, "line_1/broken.png,0,", "broken.png can't be read as an image"),
        (4, "line_1/002.png,0,masks/line_1_000.png", "is labelled normal but its mask"),
        (5, "line_1/000.bmp,1,masks/line_1_003.png", "differ only in their ending"),
        (4, "line_1/001.PNG,0,", "differ only in case"),
    ],
)
def test_faults_of_a_row(tmp_path, line, row, message):
    raw = source(tmp_path / "raw", 6)
    trees.mask(raw / "masks" / "small.png", size=(5, 5))
    damage(trees.mask(raw / "masks" / "broken.png"))
    damage(trees.picture(raw / "line_1" / "broken.png"))
    trees.picture(raw / "line_1" / "000.bmp")
    trees.picture(raw / "line_1" / "001.PNG")
    (raw / "line_1" / "readme.txt").touch()
    rows = [f"{one},valid" for one in lines(6)[:-1]] + [f"{lines(6)[-1]},test"]
    rows[line - 2] = f"{row},valid"
    file = table(tmp_path / "t.csv", rows, "path,label,mask,split")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        convert(raw, file, "screws", tmp_path / "data")
    assert str(caught.value).startswith(f"{file}, line {line}") and "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def fault(
    tmp_path: Path, rows: list[str], header: str, obj: str = "screws", draw: Draw = folders_csv.AS_IT_COMES
) -> str:
    with pytest.raises(InputError) as caught:
        convert(tmp_path / "raw", table(tmp_path / "t.csv", rows, header), obj, tmp_path / "data", draw)
    assert "\n" not in str(caught.value) and not (tmp_path / "data").exists()
    return str(caught.value)


def test_other_faults(tmp_path):
    assert "no folder" in fault(tmp_path, [], "path,label")
    source(tmp_path / "raw", 6)
    three = ["line_1/001.png,0,{}", "line_1/002.png,0,{}", "line_1/003.png,1,{}"]
    assert "names no images" in fault(tmp_path, [], "path,label")
    rows = [row.format(split) for row, split in zip(three, ("valid", "valid", "valid"), strict=True)]
    assert "no row of the split test" in fault(tmp_path, rows, "path,label,split")
    rows = [row.format(split) for row, split in zip(three, ("test", "test", "train"), strict=True)]
    assert "no normal image of the split valid" in fault(tmp_path, rows, "path,label,split")
    rows = [row.format("valid") for row in three]
    assert "leave --valid_share and --seed out" in fault(tmp_path, rows, "path,label,split", draw=Draw(seed=1))
    rows = [row.format("") for row in three]
    message = fault(tmp_path, rows, "path,label,split")
    assert "line 2: split is '': want one of train, valid, val, test" in message
    rows = [row.removesuffix(",{}") for row in three]
    assert "2 normal and 1 abnormal images, too few" in fault(tmp_path, rows, "path,label")
    for share in (0, 1, float("nan"), -1):
        assert "--valid_share" in fault(tmp_path, rows, "path,label", draw=Draw(share))
    assert "--seed -1" in fault(tmp_path, rows, "path,label", draw=Draw(seed=-1))
    for obj in ("", "..", ".x", "a/b", "x ", "x."):
        assert "is not a name for a folder" in fault(tmp_path, rows, "path,label", obj)
    for obj in ("Brain", "brain", "MVTec"):
        assert "is a benchmark's" in fault(tmp_path, rows, "path,label", obj)


def test_the_command(tmp_path):
    raw, file = source(tmp_path / "raw"), table(tmp_path / "t.csv", lines())
    command = [sys.executable, "-m", "dataset.convert", "folders", "--source", raw, "--csv", file, "--obj", "screws"]
    command += ["--out", tmp_path / "data"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "split drawn by label with seed 111, a share of 0.2 for valid" in run.stdout
    assert len(dataset.open_few("screws", tmp_path / "data", 2).test) == 32
    file.write_text("path,label\nline_1/000.png,2\n")
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and run.stderr.startswith(f"error: {file}, line 2: label is '2'")
    assert run.stderr.count("\n") == 1

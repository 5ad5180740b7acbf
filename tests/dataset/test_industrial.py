"""MVTec AD, MPDD, BTAD and VisA: layouts, abnormal support out of the test split, and faults."""

import shutil
from pathlib import Path

import pytest
from helpers import trees

import dataset
from dataset import industrial
from dataset.folders import stop
from runtime.errors import InputError


def fault(obj: str, data_path: Path, shot: int = 2, **options) -> str:
    """The one line a few-shot run would end with."""
    with pytest.raises(InputError) as caught:
        dataset.open_few(obj, data_path, shot, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def short(samples) -> list[str]:
    """DEFECT/NAME of every sample."""
    return [f"{sample.image.parent.name}/{sample.image.name}" for sample in samples]


@pytest.mark.parametrize("place", ["mvtec/bottle", "MVTec/bottle", "mvtec_anomaly_detection/bottle", "bottle"])
def test_mvtec_tree(tmp_path, place):
    root = trees.mvtec(tmp_path / place)
    for path in (tmp_path, root):
        few = dataset.open_few("mvtec/bottle", path, 2)
        assert few.info.masks is True
        assert {sample.image.parent.parent.name for sample in few.support_normal} == {"train"}
        assert {sample.image.parent.parent.name for sample in few.support_abnormal} == {"test"}
        assert all(sample.mask.name == f"{sample.image.stem}_mask.png" for sample in few.support_abnormal)
        assert len(few.test) == 7 and few.counts["scored"] == {"normal": 3, "abnormal": 4, "published": None}
        assert few.counts["train"]["published"] == 209 and few.counts["test"]["published"] == 83


def test_abnormal_support_is_never_scored(tmp_path):
    trees.mvtec(tmp_path / "mvtec" / "bottle")
    every = set(short(dataset.open_test("mvtec/bottle", tmp_path)[1]))
    assert len(every) == 9
    draws = set()
    for seed in range(20):
        few = dataset.open_few("mvtec/bottle", tmp_path, 1, abnormal_shot=3, seed=seed)
        support, scored = set(short(few.support_abnormal)), set(short(few.test))
        assert len(support) == 3 and not support & scored and support | scored == every
        draws.add(tuple(short(few.support_abnormal)))
    assert len(draws) > 10
    assert any({name.split("/")[0] for name in draw} == {"crack", "hole"} for draw in draws)


def test_draws_repeat_and_differ_by_seed(tmp_path):
    trees.mvtec(tmp_path / "mvtec" / "bottle")

    def draw(seed):
        few = dataset.open_few("mvtec/bottle", tmp_path, 2, seed=seed)
        return short(few.support_normal), short(few.support_abnormal)

    assert draw(111) == draw(111) != draw(112)
    assert draw(111) == (["good/001.png", "good/000.png"], ["crack/001.png", "crack/002.png"])


def test_normal_images_alone(tmp_path):
    trees.mvtec(tmp_path / "mpdd" / "tubes")
    few = dataset.open_few("mpdd/tubes", tmp_path, 4, abnormal_shot=0)
    assert few.support_abnormal == () and len(few.test) == 9


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_btad_says_ok_and_ko(tmp_path, suffix):
    root = trees.mvtec(tmp_path / "BTech_Dataset_transformed" / "03", "ok", ("ko",), suffix)
    trees.mask(root / "ground_truth" / "ok" / "000.png", level=0)
    for image in root.glob("t*/*/*.png"):
        trees.picture(image.with_suffix(".bmp"))
        image.unlink()
    few = dataset.open_few("btad/03", tmp_path, 1)
    assert len(few.test) == 5 and all(sample.mask.suffix == suffix for sample in few.test if sample.label)


@pytest.mark.parametrize("place", ["visa", "VisA_20220922", "."])
def test_visa_table(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    root = trees.visa(tmp_path / place)
    for path in (tmp_path, root):
        few = dataset.open_few("visa/candle", path, 2)
        assert [sample.image.parent.name for sample in few.support_normal] == ["Normal"] * 2
        assert len(few.support_abnormal) == 2 and len(few.test) == 3
        assert all(dataset.load_mask(sample.mask, 12).mean() == 0.25 for sample in few.support_abnormal)
        assert not set(few.support_abnormal) & set(few.test)
    assert len(dataset.open_test("visa/candle", tmp_path)[1]) == 5


def test_visa_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(trees.visa(tmp_path))
    assert len(dataset.open_test("visa/candle", ".")[1]) == 5


def test_visa_converted_to_the_mvtec_layout(tmp_path):
    trees.mvtec(tmp_path / "visa" / "candle", defects=("bad",), suffix=".png")
    assert len(dataset.open_few("visa/candle", tmp_path, 1).test) == 5


def test_own_folder(tmp_path):
    root = trees.mvtec(tmp_path / "my_part")
    for path in (tmp_path, root):
        few = dataset.open_few("my_part", path, 2)
        assert few.info.masks is True and few.info.classname == "my part" and len(few.test) == 7
    shutil.rmtree(root / "ground_truth")
    few = dataset.open_few("my_part", tmp_path, 2)
    assert few.info.masks is False and all(sample.mask is None for sample in few.test)
    for defect in ("crack", "hole"):
        shutil.rmtree(root / "test" / defect)
    assert "--abnormal_shot 0" in fault("my_part", tmp_path)
    few = dataset.open_few("my_part", tmp_path, 2, abnormal_shot=0)
    assert len(few.test) == 3 and {sample.label for sample in few.test} == {0}


def test_own_visa_folder_without_masks(tmp_path):
    root = trees.visa(tmp_path, "mine")
    shutil.rmtree(root / "Data" / "Masks")
    table = tmp_path / "split_csv" / "1cls.csv"
    table.write_text(
        "\n".join(line.split(".JPG")[0] + ".JPG," if "JPG" in line else line for line in table.read_text().splitlines())
    )
    info, samples = dataset.open_test("mine", tmp_path)
    assert info.masks is False and len(samples) == 5


# Faults, each naming its file


def break_missing_train(root):
    shutil.rmtree(root / "train")
    return "bottle has no folder train/good"


def break_missing_test(root):
    shutil.rmtree(root / "test")
    return "bottle has no folder test"


def break_missing_truth(root):
    shutil.rmtree(root / "ground_truth")
    return "bottle has no folder ground_truth"


def break_missing_truth_of_a_defect(root):
    shutil.rmtree(root / "ground_truth" / "hole")
    return "ground_truth has no folder hole"


def break_truth_without_images(root):
    shutil.rmtree(root / "test" / "hole")
    return "ground_truth/hole holds masks but there is no"


def break_no_good_test(root):
    shutil.rmtree(root / "test" / "good")
    return "lacks normal images"


def break_no_defects(root):
    for folder in ("test", "ground_truth"):
        for defect in ("crack", "hole"):
            shutil.rmtree(root / folder / defect)
    return "lacks abnormal images"


def break_image_without_mask(root):
    (root / "ground_truth" / "hole" / "001_mask.png").unlink()
    return "test/hole/001.png has no mask in"


def break_mask_without_image(root):
    (root / "test" / "hole" / "001.png").unlink()
    return "ground_truth/hole/001_mask.png is a mask without an image"


def break_size(root):
    trees.mask(root / "ground_truth" / "hole" / "001_mask.png", size=(5, 5))
    return "ground_truth/hole/001_mask.png is 5x5 but its image"


def break_image(root):
    (root / "train" / "good" / "003.png").write_bytes(b"x")
    return "train/good/003.png can't be read as an image"


FAULTS = [value for name, value in sorted(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("break_tree", FAULTS, ids=lambda value: value.__name__)
def test_every_fault_names_its_file(tmp_path, break_tree):
    expected = break_tree(trees.mvtec(tmp_path / "mvtec" / "bottle"))
    assert expected in fault("mvtec/bottle", tmp_path)


def test_more_support_than_there_is(tmp_path):
    trees.mvtec(tmp_path / "mvtec" / "bottle")
    message = fault("mvtec/bottle", tmp_path, shot=6)
    assert "6 normal" in message and "5 in" in message and "train/good" in message
    message = fault("mvtec/bottle", tmp_path, abnormal_shot=7)
    assert "7 abnormal" in message and "6 in" in message
    message = fault("mvtec/bottle", tmp_path, abnormal_shot=6)
    assert "none would be left to score" in message and "--abnormal_shot 5" in message


def edit_no_table(root, table):
    table.unlink()
    return f"{table} is missing"


def edit_columns(root, table):
    table.write_text(table.read_text().replace("object,split", "class,split"))
    return "lacks columns"


def edit_no_rows(root, table):
    table.write_text(table.read_text().splitlines()[0] + "\n")
    return "no row whose object is candle"


def edit_no_training(root, table):
    table.write_text(table.read_text().replace(",train,", ",test,"))
    return "names no normal training image"


def edit_split(root, table):
    table.write_text(table.read_text().replace(",train,", ",learn,", 1))
    return f"{table}, line 2"


def edit_missing_image(root, table):
    (root / "Data" / "Images" / "Normal" / "0003.JPG").unlink()
    return "Images/Normal/0003.JPG is not there"


def edit_missing_mask_file(root, table):
    (root / "Data" / "Masks" / "Anomaly" / "001.png").unlink()
    return "Masks/Anomaly/001.png is not there"


def edit_missing_mask_entry(root, table):
    table.write_text(table.read_text().replace("candle/Data/Masks/Anomaly/001.png", ""))
    return "names no mask for"


def edit_stray_mask(root, table):
    trees.mask(root / "Data" / "Masks" / "Anomaly" / "009.png")
    return "Masks/Anomaly/009.png is a mask that"


EDITS = [value for name, value in sorted(globals().items()) if name.startswith("edit_")]


@pytest.mark.parametrize("edit", EDITS, ids=lambda value: value.__name__)
def test_every_fault_of_visa_names_its_file(tmp_path, edit):
    root = trees.visa(tmp_path)
    expected = edit(root, tmp_path / "split_csv" / "1cls.csv")
    assert expected in fault("visa/candle", tmp_path, shot=1)


@pytest.mark.parametrize(
    "content", [b"object,split,label,image,mask\n\xff", b"object,split,label,image,mask\n" + b"x" * 200_000]
)
def test_a_table_that_is_no_csv_is_named(tmp_path, content):
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_bytes(content)
    (tmp_path / "pcb").mkdir()
    with pytest.raises(InputError, match=r"1cls\.csv is no csv file in UTF-8"):
        industrial.visa_rows(tmp_path / "pcb")


def test_a_row_that_ends_early_is_named(tmp_path):
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text("object,split,label,image,mask\npcb,train\n")
    _, rows = industrial.visa_rows(tmp_path / "pcb")
    with pytest.raises(InputError, match=r"1cls\.csv, line 2: want split train or test"):
        industrial._visa_row(tmp_path / "1cls.csv", *rows[0], stop)

"""BMAD as its authors publish it, and as its mirror's archive holds it: read, checked and trained on as it is."""

import shutil
import sys
from pathlib import Path

import pytest
from helpers import trees
from helpers.lab import paint

import dataset
from dataset import layouts, registry
from dataset.check import __main__ as check
from dataset.check import listing
from runtime.errors import InputError, exit_code

MASKED = ("Brain", "Liver", "Retina_RESC")


def names(samples: tuple[dataset.Sample, ...]) -> list[str]:
    return [sample.image.name for sample in samples]


def looked(capsys: pytest.CaptureFixture, data: Path, obj: str, *flags: object) -> tuple[int, str, str]:
    """Exit code, output and error line of dataset.check."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dataset.check", str(data), "--obj", obj, "--iterate", "-1", *map(str, flags)])
        code = exit_code(check.main)
    printed = capsys.readouterr()
    return code, printed.out, printed.err.strip()


# The six trees


@pytest.mark.parametrize("inside", ["", "bmad", "BMAD"])
@pytest.mark.parametrize("obj", trees.BMAD)
def test_the_authors_trees(tmp_path, obj, inside):
    root = trees.bmad(tmp_path / inside, obj)
    for path in {tmp_path, tmp_path / inside, root}:
        few = dataset.open_few(obj, path, 2, iterate=-1)
        assert names(few.test) == [f"test_n{i}.png" for i in range(4)] + [f"test_a{i}.png" for i in range(3)]
        assert [sample.label for sample in few.test] == [0] * 4 + [1] * 3
        abnormal = few.test[4:] + few.support_abnormal
        assert all(bool(sample.mask) == (obj in MASKED) for sample in abnormal)
        assert not any(sample.mask for sample in few.test[:4] + few.support_normal)
        assert all(sample.mask.name == sample.image.name for sample in abnormal if sample.mask)
        support = few.support_normal + few.support_abnormal
        assert len(support) == 4 and all(name.startswith("valid_") for name in names(support))
        assert few.counts["valid"] == {"normal": 5, "abnormal": 5, "published": registry.MEDICAL[obj].valid}
    info, test = dataset.open_test(obj, tmp_path)
    assert len(test) == 7 and info.masks == (obj in MASKED)


@pytest.mark.parametrize("obj", trees.BMAD)
def test_the_archives_trees(tmp_path, obj):
    trees.mirror(tmp_path / "bmad")
    for path in (tmp_path, tmp_path / "bmad", tmp_path / "bmad" / obj):
        assert len(dataset.open_few(obj, path, 2, iterate=-1).test) == 7
    masks = [bool(sample.mask) for sample in dataset.open_test(obj, tmp_path)[1]]
    assert masks == [False] * 4 + [obj in MASKED] * 3


@pytest.mark.parametrize(
    ("obj", "top"),
    [
        ("Brain", "Brain_AD/BraTS2021_slice"),
        ("Liver", "hist_DIY"),
        ("Liver", "bmad/Liver_AD/hist_DIY"),
        ("Chest", "Chest-RSNA"),
        ("Retina_OCT2017", "oct2017"),
        ("Retina_RESC", "Retina_RESC"),
    ],
)
def test_other_places(tmp_path, obj, top):
    trees.bmad(tmp_path, obj, top)
    assert dataset.open_few(obj, tmp_path, 2, iterate=-1).test[0].image.is_relative_to(tmp_path / top)


@pytest.mark.parametrize("obj", ["Liver", "Retina_RESC", "Retina_OCT2017"])
def test_own_data_in_such_a_tree(tmp_path, obj):
    root = trees.bmad(tmp_path, obj, "mine")
    assert layouts.layout_of(root) == "medical"
    few = dataset.open_few("mine", tmp_path, 2)
    assert len(few.test) == 7 and few.info.masks == (obj in MASKED)


def test_published_selections_name_files_of_valid(tmp_path):
    root = trees.bmad(tmp_path, "Liver")
    names = {key: row.split() for key, _, row in (line.partition(":") for line in selection("Liver"))}
    for key, label in (("n-0", "good"), ("a-0", "Ungood")):
        for name in names[key]:
            trees.picture(root / "valid/img" / label / name)
            trees.mask(root / "valid/label" / label / name)
    few = dataset.open_few("Liver", tmp_path, 4)
    assert [sample.image.name for sample in few.support_normal] == names["n-0"]
    assert [sample.image.name for sample in few.support_abnormal] == names["a-0"]


def selection(obj: str) -> list[str]:
    file = Path(dataset.__file__).parent / "fewshot_seed" / obj / "4-shot.txt"
    return file.read_text(encoding="utf-8").splitlines()


def test_transfer_sources(tmp_path):
    for obj in ("Liver", "Retina_RESC", "Chest"):
        trees.bmad(tmp_path, obj)
    trees.mirror(tmp_path / "all")
    (tmp_path / "bmad").mkdir()
    (tmp_path / "all/Histopathology").rename(tmp_path / "bmad/Histopathology")
    found = dataset.open_transfer("Brain", tmp_path)
    assert [info.name for info, _ in found] == ["Liver", "Retina_RESC", "Chest", "Histopathology"]
    assert all(len(samples) == 7 for _, samples in found)


# Which folder is read


def test_precedence(tmp_path):
    places = [
        trees.medical(tmp_path / "Brain_AD"),
        trees.medical(tmp_path / "Brain", masks="label"),
        trees.bmad(tmp_path, "Brain"),
        trees.medical(tmp_path / "bmad/Brain_AD"),
        trees.medical(tmp_path / "bmad/Brain"),
        trees.bmad(tmp_path / "bmad", "Brain"),
    ]
    info = registry.MEDICAL["Brain"]
    while places:
        assert registry.locate(info, tmp_path) == places[0]
        lines = dataset.passed_over(info, tmp_path)
        assert len(lines) == (len(places) > 1)
        assert all(str(place) in lines[0] for place in places if lines)
        shutil.rmtree(places.pop(0))
    with pytest.raises(InputError):
        registry.locate(info, tmp_path)


def test_a_folder_of_that_name_without_a_tree_is_no_obstacle(tmp_path):
    (tmp_path / "Brain_AD").mkdir()
    root = trees.bmad(tmp_path, "Brain")
    assert registry.locate(registry.MEDICAL["Brain"], tmp_path) == root


# Faults


def harm_no_mask(root: Path) -> str:
    (root / "valid/label/Ungood/valid_a1.png").unlink()
    return "valid/img/Ungood/valid_a1.png has no mask in"


def harm_stray(root: Path) -> str:
    trees.mask(root / "test/label/Ungood/zz.png")
    return "test/label/Ungood/zz.png is a mask without an image"


def harm_no_masks(root: Path) -> str:
    shutil.rmtree(root / "test/label")
    return "test/label has no folder Ungood: put there a mask"


def harm_no_split(root: Path) -> str:
    shutil.rmtree(root / "valid")
    return "hist_DIY has no folder valid or val"


def harm_no_good(root: Path) -> str:
    shutil.rmtree(root / "test/img/good")
    return "test has no folder img/good"


def harm_other_name(root: Path) -> str:
    (root / "test/img/Ungood").rename(root / "test/img/sick")
    return "test/img/sick is neither good nor Ungood"


HARMS = [value for name, value in sorted(globals().items()) if name.startswith("harm_")]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_faults_name_their_file(tmp_path, harm):
    expected = harm(trees.bmad(tmp_path, "Liver"))
    with pytest.raises(InputError) as stopped:
        dataset.open_few("Liver", tmp_path, 2, iterate=-1)
    assert expected in str(stopped.value) and "\n" not in str(stopped.value) and "rename" not in str(stopped.value)


def test_a_listing_and_a_run_agree(tmp_path):
    """Whatever a run stops at is among what the listing found, for it is the same reader."""
    root = trees.bmad(tmp_path, "Liver")
    for harm in (harm_stray, harm_no_mask):
        harm(root)
    found = listing.list_tree(registry.MEDICAL["Liver"], root)
    with pytest.raises(InputError) as stopped:
        dataset.open_few("Liver", tmp_path, 2, iterate=-1)
    assert str(stopped.value) in [fault.line for fault in found.faults] and len(found.faults) == 2


# dataset.check


@pytest.mark.parametrize("obj", trees.BMAD)
def test_the_check_names_the_layout(tmp_path, capsys, obj):
    paint(trees.bmad(tmp_path, obj))
    code, out, err = looked(capsys, tmp_path, obj)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    masks = [5, 3] if obj in MASKED else [0, 0]
    info = registry.MEDICAL[obj]
    assert code == 0 and not err and "layout: BMAD as its authors publish it" in out and "nothing found" in lines
    assert f"valid 5 5 10 {info.valid} {masks[0]} 12x10; RGB" in lines
    assert f"test 4 3 7 {info.test} {masks[1]} 12x10; RGB" in lines


def test_the_check_names_other_layouts(tmp_path, capsys):
    paint(trees.medical(tmp_path / "Brain_AD"))
    paint(trees.mvtec(tmp_path / "mvtec/bottle"))
    trees.visa(tmp_path / "visa")
    for obj, name in (("Brain", "medical (OBJ_AD)"), ("mvtec/bottle", "MVTec AD"), ("visa/candle", "VisA")):
        code, out, _ = looked(capsys, tmp_path, obj, "--shot", 2)
        assert code == 0 and f"layout: {name}" in out


def test_the_check_says_which_of_two_is_read(tmp_path, capsys):
    paint(trees.medical(tmp_path / "Brain_AD"))
    paint(trees.bmad(tmp_path, "Brain"))
    line = f"Brain: {tmp_path / 'Brain_AD'} is read; there too, and not read: {tmp_path / 'BraTS2021_slice'}"
    assert line in looked(capsys, tmp_path, "Brain")[1]


@pytest.mark.parametrize("place", ["", "Brain_AD", "Liver", "bmad"])
def test_no_layout_lists_what_was_looked_for(tmp_path, capsys, place):
    """An empty folder, and one with other things."""
    (tmp_path / place / "pictures").mkdir(parents=True)
    obj = place if place == "Liver" else "Brain"
    code, out, err = looked(capsys, tmp_path, obj)
    assert code == 2 and not out and err.startswith("error: ") and "\n" not in err and "rename" not in err
    looked_for = ["valid/good", "BMAD as its authors publish it"]
    looked_for += ["found pictures"] if place in ("Brain_AD", "Liver") else ["Brain_AD, Brain, BraTS2021_slice"]
    assert all(words in err for words in looked_for)


def test_no_layout_of_industrial_data(tmp_path, capsys):
    (tmp_path / "mvtec/bottle").mkdir(parents=True)
    code, out, err = looked(capsys, tmp_path, "mvtec/bottle")
    assert code == 2 and not out and "train/good and test/DEFECT (MVTec AD)" in err and "found nothing" in err


def test_folders_without_images_are_no_clean_bill(tmp_path, capsys):
    for folder in ("valid/good", "test/good", "test/Ungood"):
        (tmp_path / "Brain_AD" / folder).mkdir(parents=True)
    code, out, err = looked(capsys, tmp_path, "Brain")
    assert code == 2 and "nothing found" not in out and "has no images" in err


# Runs


@pytest.mark.parametrize("obj", ["Brain", "Retina_RESC"])
def test_a_run_on_the_authors_tree(lab, obj):
    paint(trees.bmad(lab.data, obj))
    trained = lab.done("train_few", "--obj", obj)
    assert f"(10 of the benchmark's {registry.MEDICAL[obj].valid})" in trained.out
    lab.done("test_few", "--obj", obj)
    one, other = (lab.results(f"{way}_few/{obj}_1-shot")["results"] for way in ("train", "test"))
    assert one == other


def test_transfer_on_the_authors_trees(lab):
    for obj in ("Brain", "Liver", "Histopathology"):
        paint(trees.bmad(lab.data, obj))
    paint(trees.medical(lab.data / "Brain_AD"))
    said = lab.done("train_zero", "--obj", "Brain").out
    assert "Brain_AD is read; there too, and not read: " in said and "Liver: trained on, 4 normal + 3 abnormal" in said

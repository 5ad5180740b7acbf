"""The choice of the support: draws, stored selections, and more than there is."""

import hashlib
import shutil
from pathlib import Path

import pytest
from helpers import trees

import dataset
from dataset import registry, support
from runtime.errors import InputError


def names(samples) -> list[str]:
    return [sample.image.name for sample in samples]


def fault(obj: str, data_path: Path, shot: int = 2, **options) -> str:
    """The one line a few-shot run would end with."""
    with pytest.raises(InputError) as caught:
        dataset.open_few(obj, data_path, shot, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_draws_repeat_and_differ_by_seed(tmp_path):
    trees.medical(tmp_path / "Chest_AD", valid=(30, 30), masks=None)

    def draw(shot=4, seed=111, **options):
        few = dataset.open_few("Chest", tmp_path, shot, iterate=-1, seed=seed, **options)
        return names(few.support_normal), names(few.support_abnormal)

    assert draw() == draw()
    assert draw()[0] != draw(seed=112)[0] and draw()[1] != draw(seed=112)[1]
    assert [len(set(part)) for part in draw()] == [4, 4]
    # A larger k keeps what a smaller one had, and the abnormal draw does not depend on the normal one.
    assert draw(shot=8)[0][:4] == draw()[0]
    assert draw(shot=2, abnormal_shot=4)[1] == draw()[1]
    assert draw(abnormal_shot=0)[1] == []
    # Pinned, so that stored results stay what they are.
    assert draw() == (
        ["valid_n27.png", "valid_n6.png", "valid_n18.png", "valid_n23.png"],
        ["valid_a19.png", "valid_a1.png", "valid_a15.png", "valid_a2.png"],
    )


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A Brain tree, and the file of its stored 2-shot selections."""
    trees.medical(tmp_path / "Brain_AD")
    monkeypatch.setattr(support, "SEED_FILES", tmp_path / "fewshot_seed")
    file = tmp_path / "fewshot_seed" / "Brain" / "2-shot.txt"
    file.parent.mkdir(parents=True)
    file.write_text(
        "a-0: valid_a3.png valid_a1.png\nn-0: valid_n4.png valid_n0.png\n"
        "a-1: valid_a0.png valid_a2.png\nn-1: valid_n1.png valid_n2.png\n"
    )
    return file


def test_a_stored_selection_is_taken_in_its_order(tmp_path, stored):
    few = dataset.open_few("Brain", tmp_path, 2)
    assert names(few.support_normal) == ["valid_n4.png", "valid_n0.png"]
    assert names(few.support_abnormal) == ["valid_a3.png", "valid_a1.png"]
    assert few.counts["support"]["source"] == "fewshot_seed/Brain/2-shot.txt, iterate 0"
    few = dataset.open_few("Brain", tmp_path, 2, iterate=1, abnormal_shot=1)
    assert names(few.support_normal) == ["valid_n1.png", "valid_n2.png"]
    assert names(few.support_abnormal) == ["valid_a0.png"]


def test_a_stored_name_finds_a_copy_with_another_ending(tmp_path, stored):
    """Mirrors keep some sets in other formats than those of the published names."""
    good = tmp_path / "Brain_AD" / "valid" / "good" / "img"
    (good / "valid_n4.png").rename(good / "valid_n4.bmp")
    assert names(dataset.open_few("Brain", tmp_path, 2).support_normal) == ["valid_n4.bmp", "valid_n0.png"]
    shutil.copy(good / "valid_n4.bmp", good / "valid_n4.tif")
    assert "valid_n4.png is named in" in fault("Brain", tmp_path)


def test_more_abnormal_than_stored_are_drawn(tmp_path, stored):
    few = dataset.open_few("Brain", tmp_path, 2, abnormal_shot=3)
    assert names(few.support_normal) == ["valid_n4.png", "valid_n0.png"]
    assert len(few.support_abnormal) == 3
    assert few.counts["support"]["source"].endswith("which names 2 abnormal; abnormal drawn with seed 111")


@pytest.mark.parametrize("options", [{"iterate": -1}, {"use_seed_files": False}])
def test_a_stored_selection_can_be_left_aside(tmp_path, stored, options):
    stored.write_text("nonsense")
    few = dataset.open_few("Brain", tmp_path, 2, **options)
    assert few.counts["support"]["source"] == "drawn with seed 111"


def test_no_stored_file_means_a_draw(tmp_path, stored):
    counts = dataset.open_few("Brain", tmp_path, 3).counts
    assert counts["support"]["source"] == "drawn with seed 111: no published selection for 3-shot of Brain"
    assert "no published selection for 3-shot of Brain" in dataset.describe(counts)


def test_stored_selection_faults(tmp_path, stored):
    message = fault("Brain", tmp_path, iterate=2)
    assert str(stored) in message and "no selection 2" in message and "--iterate -1" in message
    (tmp_path / "Brain_AD" / "valid" / "good" / "img" / "valid_n0.png").unlink()
    message = fault("Brain", tmp_path)
    assert "valid_n0.png is named in" in message and str(stored) in message and "--iterate -1" in message
    stored.write_text("a-0 valid_a1.png")
    assert f"{stored}, line 1" in fault("Brain", tmp_path)
    stored.write_text("a-0: valid_a1.png valid_a2.png\nn-0: valid_n1.png\n")
    message = fault("Brain", tmp_path)
    assert f"{stored} names 1 normal images in n-0, not 2" in message and "--iterate -1" in message
    stored.write_text("a-0: valid_a1.png valid_a1.png\nn-0: valid_n1.png valid_n2.png\n")
    assert f"{stored}, line 1 names valid_a1.png twice" in fault("Brain", tmp_path)


# Of every object: the shots that selections are published for, and the beginning of a SHA-256 over their text, made
# of the published files as they are, with the letters that the study gave its skin images.
PUBLISHED = {
    "Brain": ("1 2 4 8 16", "f0c6b0ff5fca3f72"),
    "Chest": ("1 2 4 8 16 70", "3d0128c549832401"),
    "Histopathology": ("1 2 4 8 16 117", "9d07673bfb2e613e"),
    "Liver": ("1 2 4 8 16 73", "5ea710074b491d0a"),
    "Retina_OCT2017": ("1 2 4 8 16", "7e279432613ad46f"),
    "Retina_RESC": ("1 2 4 8 16 45", "263d7c0ac63bd6ca"),
    "Skin_HAM10000": ("2 4 8 16 32 64 96 112", "b515e370d1a32bcf"),
    "Skin_ISIC2019": ("2 4 8 16 32 64 96 112 128 256 452", "b8fe75df7f867e31"),
}


def selections(obj: str) -> dict[int, tuple[list[str], list[str]]]:
    """The stored normal and abnormal names of an object by shot."""
    files = (support.SEED_FILES / obj).iterdir()
    found = {int(file.name.removesuffix("-shot.txt")): support.read_selection(file) for file in files}
    return dict(sorted(found.items()))


@pytest.mark.parametrize("obj", PUBLISHED)
def test_the_selections_are_those_published(obj):
    shots, digest = PUBLISHED[obj]
    found = selections(obj)
    assert " ".join(map(str, found)) == shots
    text = ""
    for shot, (normal, abnormal) in found.items():
        assert len(set(normal)) == len(normal) == len(set(abnormal)) == len(abnormal) == shot
        a, n = (normal, abnormal) if obj.startswith("Skin_") else (abnormal, normal)
        text += f"{shot} a {' '.join(a)}\n{shot} n {' '.join(n)}\n"
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_every_object_of_the_protocol_has_selections():
    stored = {folder.name for folder in support.SEED_FILES.iterdir()}
    assert stored == set(PUBLISHED) == set(registry.MEDICAL) - {"Solar"}
    normal, _ = selections("Brain")[4]
    assert normal == ["01325_99.png", "00250_60.png", "01555_60.png", "01181_99.png"]


@pytest.mark.parametrize(
    ("obj", "smaller", "names"),
    [
        ("Chest", "normal", 70),
        ("Liver", "abnormal", 73),
        ("Retina_RESC", "normal", 45),
        ("Skin_HAM10000", "abnormal", 112),
        ("Skin_ISIC2019", "abnormal", 452),
    ],
)
def test_the_largest_selection_names_all_images_of_the_smaller_class(obj, smaller, names):
    """Melanomas are fewer than naevi by far, so this shows which letter they had: no other list adds one to them."""
    found = selections(obj)
    normal, abnormal = ({name for lists in found.values() for name in lists[i]} for i in (0, 1))
    all_shot = found[max(found)][smaller == "abnormal"]
    few, many = (normal, abnormal) if smaller == "normal" else (abnormal, normal)
    assert set(all_shot) == few and len(few) == names == max(found)
    assert len(many) > len(few) and not normal & abnormal


def test_more_support_than_there_is(tmp_path):
    root = trees.medical(tmp_path / "Brain_AD", valid=(5, 2))
    message = fault("Brain", tmp_path, shot=6)
    assert "6 normal" in message and "5 in" in message and "valid/good" in message
    message = fault("Brain", tmp_path, shot=4)
    assert "4 abnormal" in message and "2 in" in message and "--abnormal_shot 2" in message
    shutil.rmtree(root / "valid" / "Ungood")
    message = fault("Brain", tmp_path)
    assert "2 abnormal" in message and "0 in" in message and "--abnormal_shot 0" in message
    few = dataset.open_few("Brain", tmp_path, 5, abnormal_shot=0, use_seed_files=False)
    assert len(few.support_normal) == 5 and few.support_abnormal == ()


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"shot": 0}, "--shot"), ({"abnormal_shot": -1}, "--abnormal_shot"), ({"iterate": -2}, "--iterate")],
)
def test_impossible_requests(tmp_path, options, flag):
    trees.medical(tmp_path / "Brain_AD")
    assert flag in fault("Brain", tmp_path, **options)

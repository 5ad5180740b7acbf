"""The choice of the support: draws, stored selections, and more than there is."""

import shutil
from pathlib import Path

import pytest
import trees

import dataset
from dataset import registry, support
from errors import InputError


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


def test_more_abnormal_than_stored_are_drawn(tmp_path, stored):
    few = dataset.open_few("Brain", tmp_path, 2, abnormal_shot=3)
    assert names(few.support_normal) == ["valid_n4.png", "valid_n0.png"]
    assert len(few.support_abnormal) == 3
    assert few.counts["support"]["source"].endswith("abnormal drawn with seed 111")


@pytest.mark.parametrize("options", [{"iterate": -1}, {"use_seed_files": False}])
def test_a_stored_selection_can_be_left_aside(tmp_path, stored, options):
    stored.write_text("nonsense")
    few = dataset.open_few("Brain", tmp_path, 2, **options)
    assert few.counts["support"]["source"] == "drawn with seed 111"


def test_no_stored_file_means_a_draw(tmp_path, stored):
    assert dataset.open_few("Brain", tmp_path, 3).counts["support"]["source"] == "drawn with seed 111"


def test_stored_selection_faults(tmp_path, stored):
    message = fault("Brain", tmp_path, iterate=2)
    assert str(stored) in message and "no selection 2" in message and "--iterate -1" in message
    (tmp_path / "Brain_AD" / "valid" / "good" / "img" / "valid_n0.png").unlink()
    message = fault("Brain", tmp_path)
    assert "valid_n0.png is named in" in message and str(stored) in message and "--iterate -1" in message
    stored.write_text("a-0 valid_a1.png")
    assert f"{stored}, line 1" in fault("Brain", tmp_path)


def test_the_published_selections_are_whole():
    files = sorted(support.SEED_FILES.glob("*/*-shot.txt"))
    assert {file.parent.name for file in files} == set(registry.MEDICAL) - {"Solar"}
    assert len(files) == 38
    for file in files:
        shot = int(file.name.split("-")[0])
        normal, abnormal = support._stored(file, 0)
        assert len(set(normal)) == len(normal) == len(set(abnormal)) == len(abnormal) == shot
    normal, _ = support._stored(support.SEED_FILES / "Brain" / "4-shot.txt", 0)
    assert normal == ["01325_99.png", "00250_60.png", "01555_60.png", "01181_99.png"]


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

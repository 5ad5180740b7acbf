"""The doors, the registry, the medical layout, own folders, and the sources of zero-shot transfer."""

import shutil
from pathlib import Path

import pytest
from helpers import trees

import dataset
from dataset import registry
from dataset.folders import subfolder
from dataset.layouts import layout_of
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


# The registry


def test_every_object_has_words_and_a_layout():
    assert list(registry.MEDICAL) == [
        "Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology",
        "Skin_HAM10000", "Skin_ISIC2019", "Solar",
    ]  # fmt: skip
    assert {family: len(classes) for family, classes in registry.FAMILIES.items()} == {
        "mvtec": 15, "mpdd": 6, "btad": 3, "visa": 12,
    }  # fmt: skip
    for info in (*registry.MEDICAL.values(), *registry.INDUSTRIAL.values()):
        assert info.classname and "_" not in info.classname and info.masks is not None
    with_masks = [name for name, info in registry.MEDICAL.items() if info.masks]
    assert with_masks == ["Brain", "Liver", "Retina_RESC", "Skin_HAM10000"]
    assert registry.MEDICAL["Brain"].test == 3715
    assert registry.INDUSTRIAL["mvtec/metal_nut"].classname == "metal nut"
    published = {
        family: [registry.INDUSTRIAL[name] for name in registry.FAMILIES[family]] for family in registry.FAMILIES
    }
    assert {family: sum(info.test for info in infos) for family, infos in published.items()} == {
        "mvtec": 1725, "mpdd": 458, "btad": 741, "visa": 2162,
    }  # fmt: skip


def test_expand():
    assert dataset.expand("btad") == ["btad/01", "btad/02", "btad/03"]
    assert dataset.expand("Brain") == ["Brain"]
    assert dataset.expand("mine") == ["mine"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("brian", "Brain"),
        ("Retina-RESC", "Retina_RESC"),
        ("bottle", "mvtec/bottle"),
        ("mvtec/bottel", "mvtec/bottle"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(tmp_path, typed, meant):
    message = fault(typed, tmp_path)
    assert f"unknown object {typed}" in message and f"Did you mean {meant}?" in message and "Chest" in message


def test_a_family_is_not_an_object(tmp_path):
    assert "mvtec/bottle" in fault("mvtec", tmp_path)


def test_a_misspelt_class_does_not_become_the_data_folder_itself(tmp_path):
    trees.mvtec(tmp_path)
    assert "Did you mean mvtec/screw?" in fault("mvtec/scerw", tmp_path)


@pytest.mark.parametrize("name", ["", "/etc", "../x"])
def test_a_path_is_not_a_name(tmp_path, name):
    assert "--data_path" in fault(name, tmp_path)


def test_missing_folders_say_where_and_what(tmp_path):
    assert str(tmp_path / "Brain_AD") in fault("Brain", tmp_path)
    assert f"python -m dataset.convert elpv --out {tmp_path}" in fault("Solar", tmp_path)
    assert f"python -m dataset.convert ham10000 --source DIR --out {tmp_path}" in fault("Skin_HAM10000", tmp_path)
    assert str(tmp_path / "none") in fault("mine", tmp_path / "none")
    assert str(tmp_path / "mvtec/bottle") in fault("mvtec/bottle", tmp_path)


# The medical layout


@pytest.mark.parametrize("folder", ["Brain_AD", "Brain", "brain_ad"])
@pytest.mark.parametrize("masks", ["anomaly_mask", "label", "Label"])
def test_medical_tree(tmp_path, folder, masks):
    root = trees.medical(tmp_path / folder, masks=masks)
    for path in (tmp_path, root):
        few = dataset.open_few("Brain", path, 2, use_seed_files=False)
        assert names(few.test) == [f"test_n{i}.png" for i in range(4)] + [f"test_a{i}.png" for i in range(3)]
        assert [sample.label for sample in few.test] == [0] * 4 + [1] * 3
        assert all(sample.mask.name == sample.image.name and sample.mask.is_file() for sample in few.test[4:])
        assert all(sample.mask is None for sample in few.test[:4])
        assert {sample.label for sample in few.support_normal} == {0}
        assert {sample.label for sample in few.support_abnormal} == {1}
        assert {sample.image.parts[-4] for sample in few.support_normal + few.support_abnormal} == {"valid"}


def test_names_in_any_case_and_other_files(tmp_path):
    root = trees.medical(tmp_path / "Liver_AD")
    for split in ("valid", "test"):
        (root / split / "good").rename(root / split / "Good")
        (root / split / "Ungood").rename(root / split / "ungood")
        shutil.move(root / split / "ungood" / "anomaly_mask", root / split / "ungood" / "Anomaly_Mask")
    folder = root / "test" / "Good" / "img"
    for extra in ("Thumbs.db", ".hidden.png", "._test_n0.png", "notes.txt"):
        (folder / extra).write_text("x")
    for suffix in ("JPG", "jpeg", "Bmp", "tif", "TIFF", "webp"):
        trees.picture(folder / f"extra.{suffix}")
    _, samples = dataset.open_test("Liver", tmp_path)
    assert dataset.count(samples) == {"normal": 10, "abnormal": 3, "published": None}


def test_images_directly_in_good_and_ungood(tmp_path):
    root = trees.medical(tmp_path / "Chest_AD", masks=None)
    for split in ("valid", "test"):
        for label in ("good", "Ungood"):
            for file in (root / split / label / "img").iterdir():
                file.rename(root / split / label / file.name)
            (root / split / label / "img").rmdir()
    assert len(dataset.open_few("Chest", tmp_path, 2, use_seed_files=False).test) == 7


def test_masks_pair_by_stem_where_suffixes_differ(tmp_path):
    root = trees.medical(tmp_path / "Brain_AD")
    masks = root / "test" / "Ungood" / "anomaly_mask"
    (masks / "test_a0.png").unlink()
    trees.mask(masks / "test_a0.bmp")
    (masks / "test_a1.png").rename(masks / "test_a1_mask.png")
    _, samples = dataset.open_test("Brain", tmp_path)
    assert [s.mask.name for s in samples if s.label] == ["test_a0.bmp", "test_a1_mask.png", "test_a2.png"]


def test_same_stem_twice_pairs_by_full_name_first(tmp_path):
    root = trees.medical(tmp_path / "Brain_AD") / "test" / "Ungood"
    trees.picture(root / "img" / "test_a0.bmp")
    trees.mask(root / "anomaly_mask" / "test_a0.bmp")
    _, samples = dataset.open_test("Brain", tmp_path)
    assert all(sample.mask.name == sample.image.name for sample in samples if sample.label)


def test_objects_without_masks_do_not_look_at_them(tmp_path):
    root = trees.medical(tmp_path / "Chest_AD")
    (root / "test" / "Ungood" / "anomaly_mask" / "test_a0.png").write_bytes(b"broken")
    info, samples = dataset.open_test("Chest", tmp_path)
    assert info.masks is False and all(sample.mask is None for sample in samples)


def test_counts_stand_beside_the_published_ones(tmp_path):
    trees.medical(tmp_path / "Brain_AD")
    counts = dataset.open_few("Brain", tmp_path, 2, abnormal_shot=1, iterate=-1).counts
    assert counts == {
        "object": "Brain",
        "valid": {"normal": 5, "abnormal": 5, "published": 83},
        "test": {"normal": 4, "abnormal": 3, "published": 3715},
        "support": {"normal": 2, "abnormal": 1, "source": "drawn with seed 111"},
        "scored": {"normal": 4, "abnormal": 3, "published": None},
    }
    text = dataset.describe(counts)
    assert "4 normal + 3 abnormal (7 of the benchmark's 3715)" in text
    assert "support 2 normal + 1 abnormal (drawn with seed 111)" in text


def test_stand_in_images_have_no_published_counts(tmp_path):
    trees.medical(tmp_path / "Brain_AD")
    few = dataset.open_few("Brain", tmp_path, 2, use_seed_files=False)
    assert "benchmark" not in dataset.describe(few.counts) and few.counts["test"]["published"] is None


# Faults of the tree, each naming its file


def break_missing_split(root):
    shutil.rmtree(root / "test")
    return "Brain_AD has no folder test"


def break_missing_ungood(root):
    shutil.rmtree(root / "test" / "Ungood")
    return "test has no folder Ungood"


def break_missing_good(root):
    shutil.rmtree(root / "test" / "good")
    return "test has no folder good"


def break_other_folder(root):
    (root / "test" / "Ungood").rename(root / "test" / "sick")
    return "test/sick is neither good nor Ungood"


def break_empty_folder(root):
    shutil.rmtree(root / "valid" / "good" / "img")
    (root / "valid" / "good" / "img").mkdir()
    return "valid/good/img has no images"


def break_other_kind_of_file(root):
    shutil.rmtree(root / "valid" / "good" / "img")
    (root / "valid" / "good" / "img").mkdir()
    (root / "valid" / "good" / "img" / "a.dcm").write_bytes(b"x")
    return "valid/good/img has no images (only other files, such as a.dcm)"


def break_two_spellings(root):
    trees.picture(root / "test" / "Good" / "img" / "x.png")
    return "test holds both Good and good"


def break_missing_masks(root):
    shutil.rmtree(root / "test" / "Ungood" / "anomaly_mask")
    return "test/Ungood has no folder anomaly_mask"


def break_image_without_mask(root):
    trees.picture(root / "test" / "Ungood" / "img" / "new.png")
    return "test/Ungood/img/new.png has no mask in"


def break_mask_without_image(root):
    trees.mask(root / "valid" / "Ungood" / "anomaly_mask" / "old.png")
    return "valid/Ungood/anomaly_mask/old.png is a mask without an image"


def break_two_masks(root):
    folder = root / "test" / "Ungood" / "anomaly_mask"
    (folder / "test_a0.png").unlink()
    trees.mask(folder / "test_a0.bmp")
    trees.mask(folder / "test_a0.tif")
    return "test/Ungood/img/test_a0.png has two masks, test_a0.bmp and test_a0.tif"


def break_mask_of_other_size(root):
    trees.mask(root / "test" / "Ungood" / "anomaly_mask" / "test_a2.png", size=(10, 12))
    return "test/Ungood/anomaly_mask/test_a2.png is 10x12 but its image"


def break_corrupt_image(root):
    (root / "test" / "good" / "img" / "test_n1.png").write_bytes(b"not an image")
    return "test/good/img/test_n1.png can't be read as an image"


def break_empty_file(root):
    (root / "test" / "good" / "img" / "test_n1.png").write_bytes(b"")
    return "test/good/img/test_n1.png can't be read as an image"


def break_corrupt_mask(root):
    (root / "valid" / "Ungood" / "anomaly_mask" / "valid_a1.png").write_bytes(b"not an image")
    return "valid/Ungood/anomaly_mask/valid_a1.png can't be read as an image"


def break_link(root):
    (root / "test" / "good" / "img" / "link.png").symlink_to(root / "nowhere.png")
    return "test/good/img/link.png is not there"


FAULTS = [value for name, value in sorted(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("break_tree", FAULTS, ids=lambda value: value.__name__)
def test_every_fault_names_its_file(tmp_path, break_tree):
    expected = break_tree(trees.medical(tmp_path / "Brain_AD"))
    assert expected in fault("Brain", tmp_path, use_seed_files=False)


# Own folders


@pytest.mark.parametrize("place", ["", "mine", "mine_AD"])
def test_own_medical_folder(tmp_path, place):
    trees.medical(tmp_path / place)
    few = dataset.open_few("mine", tmp_path, 2)
    assert few.info.masks is True and few.info.layout == "own" and few.info.test is None
    assert len(few.test) == 7 and all(sample.mask for sample in few.test if sample.label)
    assert "7)" in dataset.describe(few.counts)


def test_own_folder_without_masks_or_abnormal_images(tmp_path):
    root = trees.medical(tmp_path / "solar_roof", masks=None)
    few = dataset.open_few("solar_roof", tmp_path, 2)
    assert few.info.masks is False and few.info.classname == "solar roof"
    shutil.rmtree(root / "valid" / "Ungood")
    assert "--abnormal_shot 0" in fault("solar_roof", tmp_path)
    assert dataset.open_few("solar_roof", tmp_path, 2, abnormal_shot=0).support_abnormal == ()
    shutil.rmtree(root / "test" / "Ungood")
    few = dataset.open_few("solar_roof", tmp_path, 2, abnormal_shot=0, classname="roof panel")
    assert few.info.classname == "roof panel" and {sample.label for sample in few.test} == {0}


def test_own_masks_in_one_split_only(tmp_path):
    root = trees.medical(tmp_path / "mine")
    shutil.rmtree(root / "valid" / "Ungood" / "anomaly_mask")
    assert "mine/valid/Ungood has no folder anomaly_mask" in fault("mine", tmp_path)
    assert dataset.open_test("mine", tmp_path)[0].masks is True


def test_own_folder_without_a_layout(tmp_path):
    trees.picture(tmp_path / "mine" / "a.png")
    message = fault("mine", tmp_path)
    assert str(tmp_path / "mine") in message and "train/good" in message and "valid/good" in message


def test_own_medical_folder_without_valid(tmp_path):
    root = trees.medical(tmp_path / "mine")
    shutil.rmtree(root / "valid")
    trees.picture(root / "train" / "good" / "a.png")
    assert "mine has no folder valid" in fault("mine", tmp_path)
    assert len(dataset.open_test("mine", tmp_path)[1]) == 7


def test_layouts_are_told_apart(tmp_path):
    assert layout_of(trees.medical(tmp_path / "a")) == "medical"
    assert layout_of(trees.mvtec(tmp_path / "b")) == "mvtec"
    assert layout_of(trees.visa(tmp_path / "c")) == "visa"
    trees.picture(tmp_path / "b" / "valid" / "good" / "x.png")
    assert layout_of(tmp_path / "b") == "mvtec"
    assert layout_of(tmp_path) is None
    assert subfolder(tmp_path / "a" / "test", "x", "UNGOOD") == tmp_path / "a" / "test" / "Ungood"


# Zero-shot transfer


def test_transfer_leaves_out_the_target(tmp_path):
    for name in ("Brain", "Liver", "Chest"):
        trees.medical(tmp_path / f"{name}_AD")
    trees.medical(tmp_path / "Solar_AD", masks=None)
    found = dataset.open_transfer("Liver", tmp_path)
    assert [info.name for info, _ in found] == ["Brain", "Chest"]
    assert all({sample.image.parts[-4] for sample in samples} == {"test"} for _, samples in found)
    assert [any(sample.mask for sample in samples) for _, samples in found] == [True, False]
    assert [info.name for info, _ in dataset.open_transfer("mvtec/bottle", tmp_path)] == [
        "Brain",
        "Liver",
        "Chest",
    ]


def test_transfer_without_sources(tmp_path):
    trees.medical(tmp_path / "Brain_AD")
    with pytest.raises(InputError, match=r"no medical object other than Brain.*Liver_AD"):
        dataset.open_transfer("Brain", tmp_path)


def test_skin_sets_do_not_train_for_each_other(tmp_path):
    for name in ("Skin_HAM10000", "Skin_ISIC2019", "Brain"):
        trees.medical(tmp_path / f"{name}_AD")
    assert [info.name for info, _ in dataset.open_transfer("Skin_HAM10000", tmp_path)] == ["Brain"]

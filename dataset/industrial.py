"""Industrial layouts: CLASS/{train/good,test/DEFECT,ground_truth/DEFECT} (MVTec AD, MPDD; BTAD says ok and
ko), and VisA's CLASS/Data/{Images,Masks}/{Normal,Anomaly} with split_csv/1cls.csv beside the classes.

Normal support comes from the training images. There are no abnormal ones among them, so abnormal support is
drawn from the test split over all kinds of defect and taken out of the images that are scored.
"""

import csv
from dataclasses import replace
from pathlib import Path

from dataset.folders import GOOD, images_in, layout_of, pair_masks, subfolder, subfolders
from dataset.images import Sample, check
from dataset.registry import ObjectInfo
from dataset.support import FewShotSet, Pool, Request, choose, tally
from errors import InputError

VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def open_few(info: ObjectInfo, root: Path, request: Request) -> FewShotSet:
    """Support and the test images that are not support; raises InputError for any fault of the tree."""
    train = _train(info, root)
    info, test = _test(info, root)
    test_place = subfolder(root, "test") or root
    pool = Pool(
        normal={sample.image.name: sample for sample in train},
        abnormal={_defect_name(sample): sample for sample in test if sample.label},
        normal_place=train[0].image.parent,
        abnormal_place=test_place,
    )
    support = choose(info, pool, request)
    taken = set(support[1])
    scored = tuple(sample for sample in test if sample not in taken)
    if info.layout != "own" and taken and not any(sample.label for sample in scored):
        raise InputError(
            f"{info.name}: {len(taken)} abnormal support images asked for, {len(taken)} in {test_place}: "
            f"none would be left to score, use --abnormal_shot {len(taken) - 1} or less"
        )
    check((*train, *test), info.name)
    return FewShotSet(info, support[0], support[1], scored, tally(info, "train", train, test, support))


def open_test(info: ObjectInfo, root: Path) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """The test split of one class, masks resolved; raises InputError for any fault of the tree."""
    info, samples = _test(info, root)
    check(samples, info.name)
    return info, samples


def _train(info: ObjectInfo, root: Path) -> tuple[Sample, ...]:
    if layout_of(root) == "visa":
        normal = tuple(sample for split, sample in _visa(info, root) if split == "train" and not sample.label)
        if not normal:
            raise InputError(f"1cls.csv names no normal training image of {root}: give some rows the split train")
        return normal
    train = subfolder(root, "train")
    good = train and subfolder(train, *GOOD)
    if not good:
        raise InputError(f"{root} has no folder train/good: put the normal images for support there")
    return tuple(Sample(image, 0) for image in images_in(good))


def _test(info: ObjectInfo, root: Path) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """`info` with `masks` decided, and the test images: normal first, then by defect, each sorted by name."""
    if layout_of(root) == "visa":
        samples = tuple(sample for split, sample in _visa(info, root) if split == "test")
        masks = any(sample.mask for sample in samples)
    else:
        masks = info.masks if info.masks is not None else subfolder(root, "ground_truth") is not None
        samples = _mvtec_test(root, masks)
    labels = {sample.label for sample in samples}
    if not labels or (info.layout != "own" and labels != {0, 1}):
        raise InputError(f"the test split of {root} lacks {'abnormal' if 0 in labels else 'normal'} images: add them")
    return replace(info, masks=masks), samples


def _mvtec_test(root: Path, masks: bool) -> tuple[Sample, ...]:
    test = subfolder(root, "test")
    if test is None:
        raise InputError(f"{root} has no folder test: put test/good and test/DEFECT there (tree: data/readme.md)")
    truth = subfolder(root, "ground_truth")
    if masks and truth is None:
        raise InputError(f"{root} has no folder ground_truth: put the masks in ground_truth/DEFECT")
    kinds = subfolders(test)
    normal = [kind for kind in kinds if kind.name.lower() in GOOD]
    defects = [kind for kind in kinds if kind.name.lower() not in GOOD]
    samples = [Sample(image, 0) for kind in normal for image in images_in(kind)]
    for kind in defects:
        samples += _defects(kind, truth) if masks else [Sample(image, 1) for image in images_in(kind)]
    if masks:
        known = {kind.name.lower() for kind in defects}.union(GOOD)
        strays = [folder for folder in subfolders(truth) if folder.name.lower() not in known]
        if strays:
            raise InputError(
                f"{strays[0]} holds masks but there is no {test / strays[0].name}: add it or remove the masks"
            )
    return tuple(samples)


def _defects(kind: Path, truth: Path) -> list[Sample]:
    images = images_in(kind)
    folder = subfolder(truth, kind.name)
    if folder is None:
        raise InputError(f"{truth} has no folder {kind.name}: put there a mask for every image of {kind}")
    return [Sample(image, 1, mask) for image, mask in zip(images, pair_masks(images, folder), strict=True)]


def _visa(info: ObjectInfo, root: Path) -> list[tuple[str, Sample]]:
    """(split, sample) for every row of 1cls.csv about the class `root`, normal first, sorted by name."""
    if root.name in ("", ".."):
        root = root.resolve()  # the class is the folder's name, and its table lies beside it
    table = root.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise InputError(f"{table} is missing: it says which images of {root} are for training and which for testing")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not set(VISA_COLUMNS) <= set(reader.fieldnames or ()):
            raise InputError(f"{table} lacks columns: its first line must be {','.join(VISA_COLUMNS)}")
        rows = [(reader.line_num, row) for row in reader if row["object"] == root.name]
    if not rows:
        raise InputError(f"{table} has no row whose object is {root.name}: add its images")
    found = [_visa_row(table, number, row) for number, row in rows]
    if info.masks is None and not any(sample.mask for _, sample in found):
        return _ordered(found)
    bare = [sample.image for _, sample in found if sample.label and sample.mask is None]
    if bare:
        raise InputError(f"{table} names no mask for {bare[0]}: fill its last column")
    named = {sample.mask.name for _, sample in found if sample.mask}
    folder = subfolder(root / "Data" / "Masks", "Anomaly")
    strays = [mask for mask in images_in(folder) if mask.name not in named] if folder else []
    if strays:
        raise InputError(f"{strays[0]} is a mask that {table} gives to no image: add its row or remove the mask")
    return _ordered(found)


def _ordered(found: list[tuple[str, Sample]]) -> list[tuple[str, Sample]]:
    return sorted(found, key=lambda item: (item[1].label, str(item[1].image)))


def _visa_row(table: Path, number: int, row: dict[str, str]) -> tuple[str, Sample]:
    where = f"{table}, line {number}"
    if row["split"] not in ("train", "test") or row["label"] not in ("normal", "anomaly"):
        raise InputError(
            f"{where}: want split train or test and label normal or anomaly, found {row['split']} and {row['label']}"
        )
    image = table.parent.parent / row["image"]
    mask = table.parent.parent / row["mask"] if row["mask"] else None
    for file in (image, mask):
        if file and not file.is_file():
            raise InputError(f"{file} is not there, though {where} names it: restore the file or remove the row")
    abnormal = row["label"] == "anomaly"
    return row["split"], Sample(image, int(abnormal), mask if abnormal else None)


def _defect_name(sample: Sample) -> str:
    """DEFECT/name: MVTec numbers the images of every kind of defect from 000."""
    folder = sample.image.parent
    return f"{folder.parent.name if folder.name.lower() == 'img' else folder.name}/{sample.image.name}"

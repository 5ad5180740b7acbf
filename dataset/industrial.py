"""Industrial layouts: CLASS/{train/good,test/DEFECT,ground_truth/DEFECT} (MVTec AD, MPDD; BTAD says ok and
ko), and VisA's CLASS/Data/{Images,Masks}/{Normal,Anomaly} with split_csv/1cls.csv beside the classes.

Normal support comes from the training images. There are no abnormal ones among them, so abnormal support is
drawn from the test split over all kinds of defect and taken out of the images that are scored.
"""

import csv
from dataclasses import replace
from pathlib import Path

from dataset.folders import (
    BARE,
    GOOD,
    STRAY,
    Fault,
    FaultHandler,
    descend,
    images_in,
    pair_masks,
    stop,
    subfolder,
    subfolders,
)
from dataset.images import Sample, check_headers
from dataset.layouts import layout_of
from dataset.registry import ObjectInfo
from dataset.support import Candidates, FewShotSet, Request, few_shot_set
from runtime.errors import InputError

VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def open_few(info: ObjectInfo, root: Path, request: Request) -> FewShotSet:
    """Support and the test images that are not support; raises InputError for any fault of the tree."""
    train = read_train(info, root)
    info, test = read_test(info, root)
    candidates = Candidates(
        normal={sample.image.name: sample for sample in train},
        abnormal={_defect_name(sample): sample for sample in test if sample.label},
        normal_place=train[0].image.parent,
        abnormal_place=subfolder(root, "test") or root,
    )
    return few_shot_set(info, "train", train, test, candidates, request)


def open_test(info: ObjectInfo, root: Path) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """The test split of one class, masks resolved; raises InputError for any fault of the tree."""
    info, samples = read_test(info, root)
    check_headers(samples, info.name)
    return info, samples


def read_train(info: ObjectInfo, root: Path, report: FaultHandler = stop) -> tuple[Sample, ...]:
    """The normal training images, sorted by name; faults go to `report`, which by default raises InputError."""
    if layout_of(root) == "visa":
        rows = _visa(info, root, report)
        normal = tuple(sample for split, sample in rows if split == "train" and not sample.label)
        if not normal:
            line = f"1cls.csv names no normal training image of {root}: give some rows the split train"
            report(Fault(root, line))
        return normal
    train = subfolder(root, "train")
    good = train and subfolder(train, *GOOD)
    if not good:
        report(Fault(root, f"{root} has no folder train/good: put the normal images for support there"))
        return ()
    return tuple(Sample(image, 0) for image in images_in(good, report))


def read_test(info: ObjectInfo, root: Path, report: FaultHandler = stop) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """`info` with `masks` decided, and the test images: normal first, then by defect, each sorted by name.

    Faults go to `report`, which by default raises InputError.
    """
    if layout_of(root) == "visa":
        samples = tuple(sample for split, sample in _visa(info, root, report) if split == "test")
        masks = any(sample.mask for sample in samples)
    else:
        masks = info.masks if info.masks is not None else subfolder(root, "ground_truth") is not None
        samples = _mvtec_test(root, masks, report)
    labels = {sample.label for sample in samples}
    if not labels or (info.layout != "own" and labels != {0, 1}):
        lacking = "abnormal" if 0 in labels else "normal"
        report(Fault(root, f"the test split of {root} lacks {lacking} images: add them"))
    return replace(info, masks=masks), samples


def _mvtec_test(root: Path, masks: bool, report: FaultHandler) -> tuple[Sample, ...]:
    test = subfolder(root, "test")
    if test is None:
        line = f"{root} has no folder test: put test/good and test/DEFECT there (tree: data/readme.md)"
        report(Fault(root, line))
        return ()
    truth = subfolder(root, "ground_truth")
    if masks and truth is None:
        report(Fault(root, f"{root} has no folder ground_truth: put the masks in ground_truth/DEFECT"))
    kinds = subfolders(test)
    normal = [kind for kind in kinds if kind.name.lower() in GOOD]
    defects = [kind for kind in kinds if kind.name.lower() not in GOOD]
    samples = [Sample(image, 0) for kind in normal for image in images_in(kind, report)]
    for kind in defects:
        images = images_in(kind, report)
        drawn = _masks(images, kind, truth, report) if masks else [None] * len(images)
        samples += [Sample(image, 1, mask) for image, mask in zip(images, drawn, strict=True)]
    known = {kind.name.lower() for kind in defects}.union(GOOD)
    for folder in subfolders(truth) if masks and truth else []:
        if folder.name.lower() not in known:
            line = f"{folder} holds masks but there is no {test / folder.name}: add it or remove the masks"
            for mask in images_in(folder, report):
                report(Fault(mask, line, STRAY))
    return tuple(samples)


def _masks(images: list[Path], kind: Path, truth: Path | None, report: FaultHandler) -> list[Path | None]:
    """The masks of one kind of defect, in the images' order."""
    folder = truth and subfolder(truth, kind.name)
    if folder:
        return pair_masks(images, folder, report)
    for image in images:
        line = f"{truth} has no folder {kind.name}: put there a mask for every image of {kind}"
        report(Fault(image, line, BARE))
    return [None] * len(images)


def _visa(info: ObjectInfo, root: Path, report: FaultHandler) -> list[tuple[str, Sample]]:
    """(split, sample) for every row of 1cls.csv about the class `root`, normal first, sorted by name."""
    table, rows = visa_rows(root, report)
    masked = info.masks is not None or any(row["mask"] for _, row in rows if row["label"] == "anomaly")
    found = []
    for number, row in rows:
        sample = _visa_row(table, number, row, report)
        if sample is None:
            continue
        found.append((row["split"], sample))
        if masked and sample.label and not row["mask"]:
            report(Fault(sample.image, f"{table} names no mask for {sample.image}: fill its last column", BARE))
    named = {Path(row["mask"]).name for _, row in rows if row["mask"]}
    folder = descend(root, "Data/Masks/Anomaly") if masked else None
    for mask in images_in(folder, report) if folder else []:
        if mask.name not in named:
            line = f"{mask} is a mask that {table} gives to no image: add its row or remove the mask"
            report(Fault(mask, line, STRAY))
    return sorted(found, key=lambda item: (item[1].label, str(item[1].image)))


def visa_rows(root: Path, report: FaultHandler = stop) -> tuple[Path, list[tuple[int, dict[str, str]]]]:
    """The table 1cls.csv, and its rows about the class `root` with their line numbers."""
    if root.name in ("", ".."):
        root = root.resolve()  # the class is the folder's name, and its table lies beside it
    table = root.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        line = f"{table} is missing: it says which images of {root} are for training and which for testing"
        report(Fault(table, line))
        return table, []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            if not set(VISA_COLUMNS) <= set(reader.fieldnames or ()):
                report(Fault(table, f"{table} lacks columns: its first line must be {','.join(VISA_COLUMNS)}"))
                return table, []
            rows = [(reader.line_num, row) for row in reader if row["object"] == root.name]
    except (UnicodeDecodeError, csv.Error) as fault:
        raise InputError(f"{table} is no csv file in UTF-8 ({fault}): save it as one") from fault
    if not rows:
        report(Fault(table, f"{table} has no row whose object is {root.name}: add its images"))
    return table, rows


def _visa_row(table: Path, number: int, row: dict[str, str], report: FaultHandler) -> Sample | None:
    """The sample of one row, without a mask that is not there; None where the row or its image is at fault."""
    where = f"{table}, line {number}"
    if row["split"] not in ("train", "test") or row["label"] not in ("normal", "anomaly"):
        found = f"{row['split']} and {row['label']}"
        line = f"{where}: want split train or test and label normal or anomaly, found {found}"
        report(Fault(table, line, "row of 1cls.csv that is not understood"))
        return None
    image = table.parent.parent / row["image"]
    mask = table.parent.parent / row["mask"] if row["mask"] else None
    missing = [file for file in (image, mask) if file and not file.is_file()]
    for file in missing:
        line = f"{file} is not there, though {where} names it: restore the file or remove the row"
        report(Fault(file, line, "file that 1cls.csv names and that is not there"))
    if image in missing:
        return None
    abnormal = row["label"] == "anomaly"
    return Sample(image, int(abnormal), mask if abnormal and mask not in missing else None)


def _defect_name(sample: Sample) -> str:
    """DEFECT/name: MVTec numbers the images of every kind of defect from 000."""
    folder = sample.image.parent
    return f"{folder.parent.name if folder.name.lower() == 'img' else folder.name}/{sample.image.name}"

"""The medical layout, OBJ_AD/{valid,test}/{good,Ungood}/img, and few-shot sets from it.

Masks lie in Ungood/anomaly_mask, or in Ungood/label as BMAD's authors publish them. Folder names in any
case; images may also lie directly in good and Ungood. Masks of objects that have none in the protocol
(Chest, ...) are not looked at.
"""

from dataclasses import replace
from pathlib import Path

from dataset.folders import images_in, pair_masks, subfolder, subfolders
from dataset.images import Sample, check
from dataset.registry import ObjectInfo
from dataset.support import FewShotSet, Pool, Request, choose, tally
from errors import InputError

MASK_FOLDERS = ("anomaly_mask", "label")


def open_few(info: ObjectInfo, root: Path, request: Request) -> FewShotSet:
    """Support from `root/valid`, `root/test` to score; raises InputError for any fault of the tree."""
    info = resolve_masks(info, root)
    valid = read_split(info, root, "valid")
    test = read_split(info, root, "test")
    place = subfolder(root, "valid")
    pool = Pool(
        normal={sample.image.name: sample for sample in valid if not sample.label},
        abnormal={sample.image.name: sample for sample in valid if sample.label},
        normal_place=place / "good",
        abnormal_place=place / "Ungood",
    )
    support = choose(info, pool, request)
    check((*valid, *test), info.name)
    counts = tally(info, "valid", valid, test, support)
    return FewShotSet(info, support[0], support[1], test, counts)


def read_split(info: ObjectInfo, root: Path, split: str) -> tuple[Sample, ...]:
    """The images of one split, normal first, each sorted by name, with masks where `info` has them.

    A user's own data may lack one of good and Ungood; a benchmark's test split must have both.
    """
    folder = subfolder(root, split)
    if folder is None:
        raise InputError(f"{root} has no folder {split}: {_tree(info)}")
    good, ungood = subfolder(folder, "good"), subfolder(folder, "Ungood")
    if ungood is None:
        strangers = [path.name for path in subfolders(folder) if path != good]
        if strangers:
            raise InputError(f"{folder / strangers[0]} is neither good nor Ungood: rename it to Ungood or remove it")
    if info.layout != "own" and split == "test" and not (good and ungood):
        raise InputError(f"{folder} has no folder {'good' if good is None else 'Ungood'}: {_tree(info)}")
    normal = [Sample(image, 0) for image in images_in(good)] if good else []
    abnormal = _abnormal(info, ungood) if ungood else []
    if not normal and not abnormal:
        raise InputError(f"{folder} is empty: {_tree(info)}")
    return (*normal, *abnormal)


def resolve_masks(info: ObjectInfo, root: Path) -> ObjectInfo:
    """`info` with `masks` decided: a user's own data has masks if any split has a folder of them."""
    if info.masks is not None:
        return info
    splits = [subfolder(root, split) for split in ("valid", "test")]
    ungood = [subfolder(split, "Ungood") for split in splits if split]
    return replace(info, masks=any(subfolder(folder, *MASK_FOLDERS) for folder in ungood if folder))


def _abnormal(info: ObjectInfo, ungood: Path) -> list[Sample]:
    images = images_in(ungood)
    if not info.masks:
        return [Sample(image, 1) for image in images]
    masks = subfolder(ungood, *MASK_FOLDERS)
    if masks is None:
        raise InputError(
            f"{ungood} has no folder anomaly_mask (or label): put there a mask for every image of {ungood}"
        )
    return [Sample(image, 1, mask) for image, mask in zip(images, pair_masks(images, masks), strict=True)]


def _tree(info: ObjectInfo) -> str:
    return f"{info.name} wants valid and test, each with good/img and Ungood/img (tree: data/readme.md)"

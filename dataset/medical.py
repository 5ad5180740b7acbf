"""The medical layouts (`layouts.MEDICAL_TREES`): the reader of a split, and what runs read with it.

Masks of objects that have none in the protocol (Chest, ...) and those of normal images are not looked at.
"""

from dataclasses import replace
from pathlib import Path

from dataset.folders import BARE, Fault, FaultHandler, descend, images_in, pair_masks, stop, subfolders
from dataset.images import Sample, check_headers
from dataset.layouts import MEDICAL_EXPECTED, MedicalTree, SplitFolders, no_layout, split_folders, tree_of
from dataset.registry import MEDICAL, TRANSFER, ObjectInfo, barred, look_for
from dataset.support import Candidates, FewShotSet, Request, few_shot_set
from runtime.errors import InputError


def open_few(info: ObjectInfo, root: Path, request: Request) -> FewShotSet:
    """Support from the split `valid`, `test` to score; raises InputError for any fault of the tree."""
    info = resolve_masks(info, root)
    valid = read_split(info, root, "valid")
    test = read_split(info, root, "test")
    tree = tree_of(root)
    at = split_folders(tree, root, "valid")
    candidates = Candidates(
        normal={sample.image.name: sample for sample in valid if not sample.label},
        abnormal={sample.image.name: sample for sample in valid if sample.label},
        normal_place=at.normal or at.folder / tree.normal.format(at.name),
        abnormal_place=at.abnormal or at.folder / tree.abnormal.format(at.name),
    )
    return few_shot_set(info, "valid", valid, test, candidates, request)


def open_test(info: ObjectInfo, root: Path) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """The test split of one object, masks resolved; raises InputError for any fault of the tree."""
    info = resolve_masks(info, root)
    samples = read_split(info, root, "test")
    check_headers(samples, info.name)
    return info, samples


def open_transfer(obj: str, data_path: Path, required: bool) -> list[tuple[ObjectInfo, tuple[Sample, ...]]]:
    """The test splits of all medical objects found under `data_path` but `obj` and those that share its images.

    Raises InputError when there is none although it is `required`: nothing could be trained on.
    """
    wanted = [name for name in TRANSFER if name not in barred(obj)]
    sources = [open_test(MEDICAL[name], root) for name in wanted if (root := look_for(MEDICAL[name], data_path))]
    if required and not sources:
        folders = ", ".join(f"{name}_AD" for name in wanted)
        raise InputError(
            f"{data_path} holds no medical object other than {obj} to train on: put some of {folders} there"
        )
    return sources


def read_split(info: ObjectInfo, root: Path, split: str, report: FaultHandler = stop) -> tuple[Sample, ...]:
    """The images of "valid" or "test", normal first, each sorted by name, with masks where `info` has them.

    A user's own data may lack one of normal and abnormal images; a benchmark's test split must have both. Faults go to
    `report`, which raises InputError at the first unless told otherwise.
    """
    tree = tree_of(root)
    if tree is None:
        report(Fault(root, no_layout(root, MEDICAL_EXPECTED)))
        return ()
    at = split_folders(tree, root, split)
    if at is None:
        wanted = " or ".join(tree.valid if split == "valid" else tree.test)
        report(Fault(root, f"{root} has no folder {wanted}: {_tree(info)}"))
        return ()
    _both_there(info, tree, at, split, report)
    normal = [Sample(image, 0) for image in images_in(at.normal, report)] if at.normal else []
    abnormal = _abnormal(info, tree, at, report) if at.abnormal else []
    if not normal and not abnormal:
        report(Fault(at.folder, f"{at.folder} is empty: {_tree(info)}"))
    return (*normal, *abnormal)


def resolve_masks(info: ObjectInfo, root: Path) -> ObjectInfo:
    """`info` with `masks` decided: a user's own data has masks if any split has a folder of them."""
    if info.masks is not None:
        return info
    tree = tree_of(root)
    splits = [split_folders(tree, root, split) for split in ("valid", "test")] if tree else []
    return replace(info, masks=any(split and split.masks for split in splits))


def _both_there(info: ObjectInfo, tree: MedicalTree, at: SplitFolders, split: str, report: FaultHandler) -> None:
    """FaultHandler folders that hold neither normal nor abnormal images, and what a benchmark's test split lacks."""
    if at.abnormal is None:
        beside = at.normal.parent if at.normal else at.folder
        for path in subfolders(beside):
            if path != at.normal:
                line = f"{path} is neither good nor Ungood: abnormal images belong into {beside / 'Ungood'}"
                report(Fault(path, f"{line} (tree: data/readme.md)"))
    if info.layout != "own" and split == "test" and not (at.normal and at.abnormal):
        missing = (tree.abnormal if at.normal else tree.normal).format(at.name)
        report(Fault(at.folder, f"{at.folder} has no folder {missing}: {_tree(info)}"))


def _abnormal(info: ObjectInfo, tree: MedicalTree, at: SplitFolders, report: FaultHandler) -> list[Sample]:
    images = images_in(at.abnormal, report)
    if not info.masks:
        return [Sample(image, 1) for image in images]
    if at.masks is None:
        first, *others = (Path(path.format(at.name)) for path in tree.masks)
        folder = descend(at.folder, first.parent.as_posix()) or at.folder / first.parent
        names = " or ".join(path.name for path in (first, *others))
        line = f"{folder} has no folder {names}: put there a mask for every image of {at.abnormal}"
        for image in images:
            report(Fault(image, line, BARE))
        return [Sample(image, 1) for image in images]
    return [Sample(image, 1, mask) for image, mask in zip(images, pair_masks(images, at.masks, report), strict=True)]


def _tree(info: ObjectInfo) -> str:
    return f"{info.name} wants valid and test, each with normal and abnormal images (trees: data/readme.md)"

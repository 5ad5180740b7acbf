"""The layouts that are read: which one a folder has, and where those of the medical sets keep images and masks."""

import os
from dataclasses import dataclass
from pathlib import Path

from dataset.folders import GOOD, descend, subfolder, subfolders

AUTHORS = "BMAD as its authors publish it"
NAMES = {"mvtec": "MVTec AD", "visa": "VisA"}
MEDICAL_EXPECTED = (
    "test/good and test/Ungood with valid/good (medical, OBJ_AD), the same beside train/good or with val for valid, "
    f"valid/img/good and test/img/good, or Val/val/good and Test/test/good ({AUTHORS})"
)
EXPECTED = (
    f"{MEDICAL_EXPECTED}, train/good and test/DEFECT (MVTec AD), or Data/Images with ../split_csv/1cls.csv (VisA)"
)


@dataclass(frozen=True)
class MedicalTree:
    """One way in which a medical set lies on a disk; folders match whatever their case, of several the first counts.

    `normal`, `abnormal` and `masks` stand below a split's folder, and `{}` in them is that folder's own name, in lower
    case. The files lie in these folders, or in a folder `img` there.
    """

    name: str
    valid: tuple[str, ...]
    test: tuple[str, ...] = ("test",)
    normal: str = "good"
    abnormal: str = "Ungood"
    masks: tuple[str, ...] = ("Ungood/anomaly_mask", "Ungood/label")
    signs: tuple[str, ...] = ()  # one of these folders has to be there as well


RESC = MedicalTree(AUTHORS, ("Val",), ("Test",), "{}/good", "{}/Ungood", ("{}_label/Ungood",))
LIVER = MedicalTree(AUTHORS, ("valid", "val"), ("test",), "img/good", "img/Ungood", ("label/Ungood",))
BMAD = MedicalTree(AUTHORS, ("valid", "val"), signs=("train/good", "val"))
OBJ_AD = MedicalTree("medical (OBJ_AD)", ("valid",))
MEDICAL_TREES = (RESC, LIVER, BMAD, OBJ_AD)  # the first that is seen counts


@dataclass(frozen=True)
class SplitFolders:
    """The folders of one split: its own, and those of normal images, abnormal images and masks (None: not there)."""

    folder: Path
    normal: Path | None
    abnormal: Path | None
    masks: Path | None

    @property
    def name(self) -> str:
        """What stands for `{}` in a tree's paths."""
        return self.folder.name.lower()


def split_folders(tree: MedicalTree, root: Path, split: str) -> SplitFolders | None:
    """Where `tree` keeps the split "valid" or "test" of the set in `root`; None where it has no such split.

    Raises InputError for folders that differ only by case.
    """
    folder = descend(root, *(tree.valid if split == "valid" else tree.test))
    if folder is None:
        return None
    name, places = folder.name.lower(), ((tree.normal,), (tree.abnormal,), tree.masks)
    return SplitFolders(folder, *(descend(folder, *(path.format(name) for path in paths)) for paths in places))


def tree_of(root: Path) -> MedicalTree | None:
    """The first of the medical trees with a folder of normal or abnormal images in a split of `root`; or None."""
    for tree in MEDICAL_TREES:
        splits = [split_folders(tree, root, split) for split in ("valid", "test")]
        seen = any(split and (split.normal or split.abnormal) for split in splits)
        if seen and (not tree.signs or descend(root, *tree.signs)):
            return tree
    return None


def layout_of(folder: Path) -> str | None:
    """Which layout a folder has: "medical", "mvtec", "visa", or None."""
    if descend(folder, "Data/Images"):
        return "visa"
    test = subfolder(folder, "test")
    if test is None:
        return None
    if tree_of(folder) in (RESC, LIVER):
        return "medical"
    ungood = subfolder(test, "Ungood")
    kinds = {kind.name.lower() for kind in subfolders(test)}
    if subfolder(folder, "train") and kinds.difference(GOOD, ["ungood"]):
        return "mvtec"  # its own `valid`, if there is one, is of no use here
    # Ungood/img is medical even without `valid`, so that its masks are not passed over as MVTec's would be.
    if descend(folder, "valid", "val/Ungood") or (ungood and subfolder(ungood, "img")):
        return "medical"
    if subfolder(folder, "train") or subfolder(folder, "ground_truth"):
        return "mvtec"
    # Only a test split: enough for scoring.
    if ungood:
        return "medical"
    return "mvtec" if kinds else None


def no_layout(folder: Path, expected: str = EXPECTED) -> str:
    """The line about a folder that has none of the `expected` layouts: what was looked for, and what is there."""
    there = sorted(entry.name for entry in os.scandir(folder))
    held = ", ".join(there[:4]) + (f" and {len(there) - 4} more" if len(there) > 4 else "") if there else "nothing"
    return f"{folder} has none of the layouts that are read; looked for {expected}; found {held}; see data/readme.md"

"""Our layout from any folder of images and a csv that says which are abnormal.

    python -m dataset.convert folders --source DIR --csv FILE --obj NAME --out data

writes OUT/NAME_AD/{valid,test}/{good,Ungood}/img, with Ungood/anomaly_mask where the csv names masks. Columns:
path (under DIR), label, and if wanted mask (under DIR, for abnormal images) and split; others are passed over.
Rows of the split train join valid, where the support comes from: nothing else is trained on.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from sklearn.model_selection import train_test_split

from dataset.convert.names import flat_name, inside
from dataset.convert.table import read_table
from dataset.convert.writer import LABELS, File, check_mask, make, summary
from dataset.folders import IMAGE_SUFFIXES
from dataset.images import open_picture
from dataset.registry import FAMILIES, MEDICAL
from runtime.bars import Bar
from runtime.errors import InputError, naming

NORMAL = ("0", "0.0", "good", "normal", "ok", "negative", "pass", "healthy")
ABNORMAL = (
    *("1", "1.0", "bad", "ungood", "abnormal", "ng", "positive", "fail"),
    *("anomaly", "anomalous", "defect", "defective"),
)
LABEL_OF = dict.fromkeys(NORMAL, 0) | dict.fromkeys(ABNORMAL, 1)
SPLITS = {"train": "valid", "valid": "valid", "val": "valid", "test": "test"}
VALID_SHARE, SEED = 0.2, 111
OBJ = re.compile(r"\w([\w .-]*\w)?")
T = TypeVar("T")


class Draw(NamedTuple):
    """How rows are split where the csv has no column for it; None: not asked for."""

    valid_share: float | None = None
    seed: int | None = None


AS_IT_COMES = Draw()


@dataclass(frozen=True)
class Annotation:
    """One line of the csv: paths under the source, label 0 or 1, the split ("valid" or "test") if the csv has any."""

    line: int
    image: str
    label: int
    mask: str | None
    split: str | None


def convert(source: Path, table: Path, obj: str, out: Path, draw: Draw = AS_IT_COMES) -> Path:
    """Write OUT/OBJ_AD, and return it. Raises InputError, before anything is written, for any fault of the csv."""
    _check_obj(obj)
    if not source.is_dir():
        raise InputError(f"no folder {source}: give the one that the paths in {table} start from with --source")
    rows, how = split_rows(read_rows(table, source), table, draw)
    _check_masks(rows, table)
    folder = out / f"{obj}_AD"
    make(folder, plan(rows, source), partial(_check_files, rows, table, source))
    print(summary(folder))
    print(how)
    print(f"to train on it: python train_few.py --obj {obj} --data_path {out} {_shots(rows)}")
    return folder


def read_rows(table: Path, source: Path) -> list[Annotation]:
    """The rows of the csv; InputError naming the line of a value or file that won't do, or an image named twice."""
    rows: list[Annotation] = []
    seen: dict[str, Annotation] = {}
    for line, values in read_table(table, ("path", "label"), ("mask", "split")):
        where = f"{table}, line {line}"
        image = _image_path(values["path"], source, where)
        mask = _image_path(values["mask"], source, where) if values.get("mask") else None
        split = _one_of(SPLITS, values["split"], "split", where) if "split" in values else None
        row = Annotation(line, image, _one_of(LABEL_OF, values["label"], "label", where), mask, split)
        twin = seen.setdefault(image.casefold(), row)
        if twin.image != image:
            raise InputError(f"{where}: {image} and {twin.image} (line {twin.line}) differ only in case: rename one")
        if twin is not row:
            raise InputError(f"{where}: {image} is named on line {twin.line} already: remove one of the rows")
        rows.append(row)
    if not rows:
        raise InputError(f"{table} names no images: add rows")
    return rows


def split_rows(rows: list[Annotation], table: Path, draw: Draw) -> tuple[list[Annotation], str]:
    """Every row with its split, sorted by path, and in words where the split comes from."""
    rows = sorted(rows, key=lambda row: row.image)
    if rows[0].split is not None:
        if draw != AS_IT_COMES:
            raise InputError(f"{table} has a column split, so leave --valid_share and --seed out")
        how = f"split as in {table}; train counts as valid"
    else:
        share = VALID_SHARE if draw.valid_share is None else draw.valid_share
        seed = SEED if draw.seed is None else draw.seed
        rows = _drawn(rows, share, seed, table)
        how = f"split drawn by label with seed {seed}, a share of {share:g} for valid"
    if not any(row.split == "test" for row in rows):
        raise InputError(f"{table} has no row of the split test: give some, since those images are scored")
    if not any(row.split == "valid" and not row.label for row in rows):
        raise InputError(f"{table} has no normal image of the split valid or train: give some, support comes from them")
    return rows, how


def plan(rows: Sequence[Annotation], source: Path) -> list[File]:
    """Every file of the set, to be copied byte for byte; masks take the stem of their image."""
    files = []
    for row in rows:
        place, name = f"{row.split}/{LABELS[row.label]}", flat_name(row.image)
        files.append(File(f"{place}/img/{name}", row.image, partial(shutil.copyfile, source / row.image)))
        if row.mask and row.label:
            mask = Path(name).stem + Path(row.mask).suffix
            files.append(File(f"{place}/anomaly_mask/{mask}", row.mask, partial(shutil.copyfile, source / row.mask)))
    return files


def _shots(rows: Sequence[Annotation]) -> str:
    """Options of a run that the support of these rows is enough for."""
    labels = [row.label for row in rows if row.split == "valid"]
    normal, abnormal = labels.count(0), labels.count(1)
    return f"--shot {min(4, normal, abnormal)}" if abnormal else f"--shot {min(4, normal)} --abnormal_shot 0"


def _check_obj(obj: str) -> None:
    if not OBJ.fullmatch(obj):
        raise InputError(f"--obj {obj!r} is not a name for a folder: use letters, digits, _ and -")
    known = [name for name in (*MEDICAL, *FAMILIES) if name.lower() == obj.lower()]
    if known:
        raise InputError(f"--obj {obj} is a benchmark's, with counts and selections of its own: choose another name")


def _image_path(text: str, source: Path, where: str) -> str:
    path = inside(text, source, where)
    if not path.lower().endswith(IMAGE_SUFFIXES):
        raise InputError(f"{where}: {path} is no kind of image that is read: want {', '.join(IMAGE_SUFFIXES)}")
    return path


def _one_of(meanings: dict[str, T], text: str, column: str, where: str) -> T:
    if text.lower() not in meanings:
        raise InputError(f"{where}: {column} is {text[:40]!r}: want one of {', '.join(meanings)}")
    return meanings[text.lower()]


def _drawn(rows: list[Annotation], share: float, seed: int, table: Path) -> list[Annotation]:
    if not 0 < share < 1:
        raise InputError(f"--valid_share {share:g}: give a share between 0 and 1, such as {VALID_SHARE}")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: give a number from 0 to {2**32 - 1}")
    labels = [row.label for row in rows]
    try:
        chosen = set(train_test_split(range(len(rows)), train_size=share, stratify=labels, random_state=seed)[0])
    except ValueError as fault:
        raise InputError(
            f"{table} has {labels.count(0)} normal and {labels.count(1)} abnormal images, too few to draw a share of "
            f"{share:g} of each: add images, give another --valid_share, or a column split"
        ) from fault
    return [replace(row, split="valid" if i in chosen else "test") for i, row in enumerate(rows)]


def _check_masks(rows: Sequence[Annotation], table: Path) -> None:
    """All abnormal images have masks or none has, and no two of them would share a mask's name."""
    abnormal = sorted((row for row in rows if row.label), key=lambda row: row.line)
    masked = [row for row in abnormal if row.mask]
    if not masked:
        return
    if len(masked) < len(abnormal):
        bare = next(row for row in abnormal if not row.mask)
        raise InputError(
            f"{table}, line {bare.line}: {bare.image} is abnormal but has no mask, as line {masked[0].line} has: "
            "add it, or leave all masks out"
        )
    stems: dict[tuple[str, str], Annotation] = {}
    for row in masked:
        twin = stems.setdefault((row.split, Path(row.image).with_suffix("").as_posix().casefold()), row)
        if twin is not row:
            raise InputError(
                f"{table}, line {row.line}: {row.image} and {twin.image} (line {twin.line}) differ only in their "
                "ending, so their masks could not be told apart: rename one"
            )


def _check_files(rows: Sequence[Annotation], table: Path, source: Path) -> None:
    """Read every image and mask, so that nothing is written of a set that a run would refuse."""
    for row in Bar(rows, f"checking {table.name}", unit="image", leave=False):
        image, mask = source / row.image, row.mask and source / row.mask
        with naming(f"{table}, line {row.line}"):
            size = open_picture(image).size
            if mask and check_mask(mask, size, image) and not row.label:
                raise InputError(f"{image} is labelled normal but its mask {mask} marks pixels: change one of them")

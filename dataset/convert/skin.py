"""Dermoscopy from the raw downloads: HAM10000 and ISIC 2019, melanoma against naevus, as the reproduction study of
MVFA-AD prepared them, but with the clinical labels: melanoma is abnormal (the study has naevi there).

    python -m dataset.convert ham10000 --source DIR --out data
    python -m dataset.convert isic2019 --source DIR --out data

DIR holds what the archives unpack to. The split is the study's to the image, so that its selections can be used:
80/10/10, stratified, drawn twice with random_state 42. HAM10000 is written as PNG, since the study's selections
name .png files, and with the outlines of its melanomas as masks; outlines of naevi mark no anomaly and are left out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sklearn.model_selection import train_test_split

from dataset.convert.table import read_table
from dataset.convert.writer import File, copy_image, copy_mask, make, summary
from dataset.folders import subfolder
from dataset.images import open_picture
from dataset.support import SEED_FILES, read_selection
from runtime.errors import InputError

MELANOMA, NAEVUS = "Ungood", "good"
NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Diagnosis:
    """One line of the table: its number, the name of an image without suffix, MELANOMA or NAEVUS."""

    line: int
    name: str
    label: str


def _ham(table: Path) -> list[Diagnosis]:
    kinds = {"mel": MELANOMA, "nv": NAEVUS}
    rows = read_table(table, ("image_id", "dx"))
    return [Diagnosis(line, row["image_id"], kinds[kind]) for line, row in rows if (kind := row["dx"].lower()) in kinds]


def _isic(table: Path) -> list[Diagnosis]:
    """All melanomas in the table's order, then all naevi: the order that the study split them in."""
    rows: dict[str, list[Diagnosis]] = {"MEL": [], "NV": []}
    for line, row in read_table(table, ("image", "MEL", "NV")):
        wrong = [row[name] for name in rows if row[name] not in ("0", "0.0", "1", "1.0")]
        marked = [name for name in rows if row[name].startswith("1")]
        if wrong or len(marked) > 1:
            raise InputError(
                f"{table}, line {line}: want 0 or 1 under MEL and NV, and not both 1, found {row['MEL']!r} and "
                f"{row['NV']!r}: restore the table"
            )
        for name in marked:
            rows[name].append(Diagnosis(line, row["image"], MELANOMA if name == "MEL" else NAEVUS))
    return rows["MEL"] + rows["NV"]


@dataclass(frozen=True)
class Source:
    """One of the two sets: the names that its table and folders go by, how the table is read, what images become."""

    obj: str
    tables: tuple[str, ...]
    images: tuple[str, ...]
    masks: tuple[str, ...]
    rows: Callable[[Path], list[Diagnosis]]
    suffix: str


SOURCES = {
    "ham10000": Source(
        "Skin_HAM10000",
        ("HAM10000_metadata.csv", "HAM10000_metadata"),
        ("HAM10000_images", "HAM10000_images_part_1", "HAM10000_images_part_2"),
        ("HAM10000_segmentations_masks", "HAM10000_segmentations_lesion_tschandl"),
        _ham,
        ".png",
    ),
    "isic2019": Source(
        "Skin_ISIC2019",
        ("ISIC_2019_Training_GroundTruth.csv",),
        ("ISIC_2019_Training_Input",),
        (),
        _isic,
        ".jpg",
    ),
}


def convert(name: str, source: Path, out: Path) -> Path:
    """Write OUT/Skin_HAM10000_AD or OUT/Skin_ISIC2019_AD from the raw downloads in `source`; InputError for a fault."""
    files = plan(name, source)
    folder = out / f"{SOURCES[name].obj}_AD"
    make(folder, files)
    print(summary(folder))
    print(compared(SOURCES[name].obj, files))
    return folder


def plan(name: str, source: Path) -> list[File]:
    """Every file of the set; raises InputError naming what is missing in `source` or wrong with its table."""
    of = SOURCES[name]
    if not source.is_dir():
        raise InputError(f"no folder {source}: give the one that holds the unpacked downloads with --source")
    table = next((source / name for name in of.tables if (source / name).is_file()), source / of.tables[0])
    rows = _checked(table, of.rows(table))
    images = _index(source, of.images, ".jpg")
    masks = _index(source, of.masks, "_segmentation.png") if of.masks else {}
    files = []
    for row, split in zip(rows, split_rows(rows, table), strict=True):
        place, image = f"{split}/{row.label}", _named(images, row, f"{row.name}.jpg", table)
        write = partial(_to_png if of.suffix == ".png" else copy_image, image)
        files.append(File(f"{place}/img/{row.name}{of.suffix}", image.relative_to(source).as_posix(), write))
        if of.masks and row.label == MELANOMA:
            mask = _named(masks, row, f"{row.name}_segmentation.png", table)
            write = partial(copy_mask, mask, image)
            files.append(File(f"{place}/anomaly_mask/{row.name}.png", mask.relative_to(source).as_posix(), write))
    return files


def split_rows(rows: Sequence[Diagnosis], table: Path) -> list[str]:
    """The split of every row, "train", "valid" or "test", as the study drew it.

    The draw depends on which label sorts first; the study's selections show that it was melanoma.
    """
    labels = [int(row.label == NAEVUS) for row in rows]
    splits = ["train"] * len(rows)
    try:
        if len(set(labels)) < 2:  # which scikit-learn would split all the same
            raise ValueError
        rest = train_test_split(range(len(rows)), test_size=0.2, stratify=labels, random_state=42)[1]
        halves = train_test_split(rest, test_size=0.5, stratify=[labels[i] for i in rest], random_state=42)
    except ValueError as fault:
        raise InputError(
            f"{table} has {labels.count(0)} melanomas and {labels.count(1)} naevi, too few to split 80/10/10 by label: "
            "restore the table"
        ) from fault
    for split, half in zip(("valid", "test"), halves, strict=True):
        for i in half:
            splits[i] = split
    return splits


def compared(obj: str, files: Sequence[File]) -> str:
    """Beside the study's: melanomas in `valid`, of which its largest selection names all, and the selected names."""
    valid = {file.name for file in files if file.name.startswith("valid/") and "/img/" in file.name}
    melanomas = sum(name.startswith(f"valid/{MELANOMA}/") for name in valid)
    chosen: set[str] = set()
    largest = 0
    for file in SEED_FILES.glob(f"{obj}/*-shot.txt"):
        for label, names in zip((NAEVUS, MELANOMA), read_selection(file), strict=True):
            chosen.update(f"valid/{label}/img/{name}" for name in names)
            largest = max(largest, len(names))
    found = len(chosen & valid)
    lines = [
        f"melanomas in valid: {melanomas} (the study: {largest})",
        f"images in the published selections: {len(chosen)}, found in valid under their label: {found}",
    ]
    if found < len(chosen):
        lines.append("this is not the study's table, or not in its order: draw the support with --iterate -1")
    return "\n".join(lines)


def _checked(table: Path, rows: list[Diagnosis]) -> list[Diagnosis]:
    """`rows`, whose names are safe to use as file names and come once each."""
    seen: dict[str, int] = {}
    for row in rows:
        if not NAME.fullmatch(row.name):
            raise InputError(f"{table}, line {row.line}: {row.name!r} is no name of an image: restore the table")
        if row.name in seen:
            raise InputError(f"{table} names {row.name} on lines {seen[row.name]} and {row.line}: remove one")
        seen[row.name] = row.line
    return rows


def _index(source: Path, names: Sequence[str], ending: str) -> Mapping[str, Path]:
    """Files by name in those of the folders that there are, also when an archive put a folder into a folder."""
    folders = [folder for name in names if (folder := subfolder(source, name))]
    if not folders:
        raise InputError(f"{source} has no folder {names[0]}: unpack the archive there")
    found: dict[str, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.rglob("*")) if "__MACOSX" not in path.parts):
        name = path.name.removesuffix(path.suffix) + path.suffix.lower()
        if name.endswith(ending) and found.setdefault(name, path) != path:
            raise InputError(f"{found[name]} and {path} bear one name: take one of them away")
    return found


def _named(files: Mapping[str, Path], row: Diagnosis, name: str, table: Path) -> Path:
    if name not in files:
        raise InputError(f"{table}, line {row.line}: {name} is not among the {len(files)} files found: unpack them all")
    return files[name]


def _to_png(source: Path, path: Path) -> None:
    open_picture(source).save(path, compress_level=1)  # quick, and lossless all the same

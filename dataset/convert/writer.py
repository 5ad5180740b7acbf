"""A set of files that is whole or not there, and whose writing goes on where it was stopped.

Files are written under a hidden name beside the set's own, each of them whole or not at all, and the set takes
its name when nothing is missing: no run can mistake an unfinished set for a whole one. A record in it says what
it was made of, so that a second call knows what it may go on with, and what it must leave alone.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.folders import images_in, subfolder
from dataset.images import check_mask_size, image_size, open_picture, read_mask
from runtime.bars import Bar
from runtime.errors import InputError
from runtime.files import atomic_write

RECORD = "converted.json"
SPLITS = ("train", "valid", "test")
LABELS = ("good", "Ungood")  # by label: 0, 1


@dataclass(frozen=True)
class File:
    """One file of a set: its path there, what it is made of (the same words on every call), and how."""

    name: str
    origin: str
    write: Callable[[Path], object]


def make(folder: Path, files: Sequence[File], check: Callable[[], None] = lambda: None) -> None:
    """Write a set as `folder`, or finish what an earlier call began; a finished one is kept.

    `check` is called before anything is written. Raises InputError for a folder that is something else.
    """
    if is_there(folder, files):
        print(f"{folder} is there already; remove it to make it anew")
        return
    check()
    draft = folder.with_name(f".{folder.name}.part")
    _claim(draft, files)
    for file in Bar(files, f"writing {folder.name}", unit="file", leave=False):
        target = draft / file.name
        if not target.exists():
            with atomic_write(target) as path:
                file.write(path)
    for leftover in [path for path in draft.rglob(".*") if path.is_file()]:
        leftover.unlink()  # what a killed call was at
    _record(draft, files, finished=True)
    draft.rename(folder)


def is_there(folder: Path, files: Sequence[File]) -> bool:
    """Whether `folder` is this very set, finished; InputError if it is anything else."""
    if not folder.exists():
        return False
    record = read_record(folder)
    names = {file.name for file in files}
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    there = {path.relative_to(folder).as_posix() for path in found}
    if record is None and there == names:
        return True  # made before there was a record
    if record is None or not record["finished"]:
        raise InputError(f"{folder} is there and was not made by this command: rename it, or choose another --out")
    if record["made of"] != fingerprint(files):
        raise InputError(f"{folder} was made of other files or options: remove it to make it anew")
    if lost := sorted(names - there):
        raise InputError(f"{folder} has lost {lost[0]} ({len(lost)} missing): remove the folder to make it anew")
    return True


def read_record(folder: Path) -> dict | None:
    """What a set made here says of itself: "made of" (a hash), "files" (how many), "finished"; None if it has none."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"made of": str(record["made of"]), "files": int(record["files"]), "finished": bool(record["finished"])}
    except (ValueError, KeyError, TypeError) as fault:
        raise InputError(f"{path} can't be read: remove {folder} to make it anew") from fault


def fingerprint(files: Sequence[File]) -> str:
    """A hash of which files a set has and what they are made of."""
    lines = sorted(f"{file.name}\t{file.origin}\n" for file in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _record(folder: Path, files: Sequence[File], finished: bool) -> None:
    record = {"made of": fingerprint(files), "files": len(files), "finished": finished}
    with atomic_write(folder / RECORD) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _claim(draft: Path, files: Sequence[File]) -> None:
    """Make the hidden folder, or go on with the one that an earlier call for the same files left."""
    record = read_record(draft) if draft.is_dir() else None
    if record is None:
        if draft.exists() and any(draft.iterdir()):
            raise InputError(f"{draft} is not what a stopped conversion leaves: remove it")
        _record(draft, files, finished=False)
    elif record["made of"] != fingerprint(files):
        raise InputError(f"{draft} was left by a stopped conversion of other files or options: remove it")
    else:
        done = sum((draft / file.name).exists() for file in files)
        print(f"going on: {done} of {len(files)} files are in {draft} already")


def copy_image(source: Path, path: Path) -> None:
    """Copy an image byte for byte; InputError if it can't be read as one."""
    open_picture(source)
    shutil.copyfile(source, path)


def copy_mask(source: Path, image: Path, path: Path) -> None:
    """Copy the mask of `image` byte for byte; InputError if it can't be read or has another size."""
    check_mask(source, image_size(image), image)
    shutil.copyfile(source, path)


def check_mask(mask: Path, size: tuple[int, int], image: Path) -> bool:
    """Whether a mask marks anything; InputError if it can't be read or is not of (width, height) `size`."""
    marked = read_mask(mask)
    check_mask_size(mask, marked.shape[::-1], image, size)
    return bool(marked.any())


def summary(folder: Path) -> str:
    """A line per split with the numbers of its images."""
    lines = [f"{folder}:"]
    for split in SPLITS:
        if place := subfolder(folder, split):
            normal, abnormal = (len(images_in(place / label)) if (place / label).is_dir() else 0 for label in LABELS)
            lines.append(f"  {split}: {normal} normal + {abnormal} abnormal")
    return "\n".join(lines)

"""Files that are either whole or not there, and their hashes."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runtime.errors import InputError

LOCK = ".running"  # the file in a folder that its one writer holds
DRAFT = re.compile(r"\..+-[0-9a-f]{8}(\.\w+)?")  # what atomic_write calls its temporary files


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on success it takes `path`'s place, on failure it goes.

    The folder is made if it is missing. The temporary name keeps the suffix, since writers look at it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    except OSError as fault:
        fault.filename = str(path)  # a failed write knows no name, a failed opening the temporary one
        raise
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path, age: float = 0.0) -> None:
    """Take away the temporary files that a killed `atomic_write` left in the folder, if it is there.

    age: seconds for which nobody has written to them, where other processes may be writing theirs.
    """
    for path in folder.glob(".*-*"):
        with contextlib.suppress(FileNotFoundError):
            if DRAFT.fullmatch(path.name) and path.is_file() and time.time() - path.stat().st_mtime >= age:
                path.unlink()


def lock(folder: Path) -> FileLock | None:
    """A hold on the folder, None while another process has it; the system frees it when its owner dies."""
    held = FileLock(folder / LOCK)
    try:
        held.acquire(timeout=0)
    except Timeout:
        return None
    return held


def unlock(held: FileLock) -> None:
    """Let others have the folder."""
    Path(held.lock_file).unlink(missing_ok=True)
    held.release()


def check_writable(folder: Path) -> None:
    """Make the folder and write to it, so that the system refuses before long work, not after it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"?")


def check_room(needs: Mapping[Path, int]) -> None:
    """Raise InputError unless every disk has room for the bytes that its folders, which are there, will take."""
    disks: dict[int, list[Path]] = {}
    for folder in needs:
        disks.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in disks.values():
        need, free = sum(needs[folder] for folder in folders), shutil.disk_usage(folders[0]).free
        if free < need:
            raise InputError(
                f"no space left on the device for {folders[0]}: this run may take {need / 1e6:,.0f} MB and "
                f"{free / 1e6:,.0f} MB are free; free some or choose another folder"
            )


def suffix_of(path: str | Path) -> str:
    """The end of a file's name that says its kind: ".png", and of a packed volume ".nii.gz", in the case it has."""
    path = Path(path)
    packed = "".join(path.suffixes[-2:])
    return packed if packed.lower() == ".nii.gz" else path.suffix


def no_formula(value: Any) -> Any:
    """A cell of a csv: text that a spreadsheet would take for a formula gets a quote before it, numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def sha256(path: str | Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

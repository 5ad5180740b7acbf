"""Paths of a table: safe ones alone, and as names of files in one folder."""

import posixpath
import re
from pathlib import Path, PureWindowsPath

from runtime.errors import InputError

JOINT = "__"  # between the folders of a path that became a name
MAX_NAME = 200  # bytes; file systems take 255, and a name being written is a little longer


def inside(text: str, source: Path, where: str) -> str:
    """The path of a file under `source`, tidied ("a/../b.png" is "b.png") and with slashes.

    Raises InputError for one that is absolute, leads out of `source`, has no file, or is too long to make a name of.
    """
    path = text.replace("\\", "/")
    if not path or any(ord(sign) < 32 for sign in path):
        raise InputError(f"{where}: {text!r} is no path: give one under {source}")
    if path.startswith("/") or PureWindowsPath(path).drive:
        raise InputError(f"{where}: {text} is an absolute path: give it as it is under {source}")
    path = posixpath.normpath(path)
    if path.split("/")[0] == "..":
        raise InputError(f"{where}: {text} leads out of {source}: give a --source that holds all files")
    if len(flat_name(path).encode("utf-8")) > MAX_NAME:
        raise InputError(f"{where}: {path[:60]}... is too long for one name: shorten it, or give a --source nearer by")
    if not (source / path).is_file():
        raise InputError(f"{where}: no file {source / path}: restore it or remove the row")
    return path


def flat_name(path: str) -> str:
    """A path as one name, no two of them alike: "cam_1/0001.png" is "cam_1__0001.png".

    What would be taken for a joint or for a hidden file is written as %XX, and so is the % itself; unquoting what
    stands between the joints is the way back.
    """
    return JOINT.join(re.sub(r"%|^[._]|_$|(?<=_)_", _escaped, part) for part in path.split("/"))


def _escaped(found: re.Match) -> str:
    return f"%{ord(found[0]):02X}"

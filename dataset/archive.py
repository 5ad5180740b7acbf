"""A tar archive from a stranger, unpacked so that it can do no harm: into one folder, within bounds, or not at all."""

import gzip
import io
import re
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from errors import InputError

MAX_BYTES = 64 << 30  # of all files together; the largest of the six sets, Chest, has some 20 GB
MAX_FILES = 200_000
MAX_READ = 1 << 20  # bytes that a tar header may make us take in at once
MAX_DEPTH = 12  # folders in one another
MAX_TAIL = 1 << 26  # bytes of padding after the last file
GZIP = b"\x1f\x8b"
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, UnicodeError, ValueError)
FORBIDDEN = re.compile(r'[\x00-\x1f\\:*?"<>|]')  # in names: control characters, and what Windows takes for paths
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices there


class _Bounded(io.RawIOBase):
    """A stream whose single reads are bounded: tarfile reads a whole extended header at once, however long it says."""

    def __init__(self, inner: BinaryIO) -> None:
        self.inner = inner

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.inner.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.inner.seek(offset, whence)

    def tell(self) -> int:
        return self.inner.tell()


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a .tar or .tar.gz into `folder`, which is made and must not exist; gives the number of files.

    Only plain files and folders, under relative paths without "..", no name twice, at most MAX_FILES files of MAX_BYTES
    in all; owners, modes and times are not taken over. Raises InputError naming the archive for anything else and for
    one that is cut or damaged; what was unpacked by then is for the caller to remove.
    """
    folder.mkdir(parents=True)
    count = total = 0
    try:
        with (
            archive.open("rb") as file,
            tqdm.wrapattr(file, "read", archive.stat().st_size, **_bar(archive)) as counted,
        ):
            gzipped = file.read(len(GZIP)) == GZIP
            file.seek(0)
            stream = gzip.GzipFile(fileobj=counted) if gzipped else counted
            with tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
                while member := tar.next():
                    tar.members.clear()  # else every header stays in memory
                    target = folder.joinpath(*_parts(member, archive))
                    count, total = count + 1, total + member.size
                    if count > MAX_FILES or total > MAX_BYTES:
                        raise InputError(
                            f"{archive} holds more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB and was not unpacked"
                        )
                    _write(tar, member, target, archive)
            _drain(stream, archive)
    except DAMAGE as fault:
        raise InputError(
            f"{archive} is cut, damaged or no tar archive ({str(fault) or type(fault).__name__}): "
            "delete it and fetch it again"
        ) from fault
    if not count:
        raise InputError(f"{archive} is empty: delete it and fetch it again")
    return count


def _bar(archive: Path) -> dict:
    return {"desc": f"unpacking {archive.name}", "leave": False, "unit": "B", "unit_scale": True}


def _parts(member: tarfile.TarInfo, archive: Path) -> tuple[str, ...]:
    """The path of a member in parts; InputError for one that could do harm."""
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise InputError(f"{archive} holds {member.name!r}, which is a link or a device; it was not unpacked")
    path = PurePosixPath(member.name)
    parts = [part for part in path.parts if part != "."]
    bad = path.is_absolute() or ".." in parts or len(parts) > MAX_DEPTH or FORBIDDEN.search(member.name)
    if bad or any(RESERVED.fullmatch(part) or part != part.rstrip(". ") for part in parts):
        raise InputError(f"{archive} holds the path {member.name!r}, which is not safe; it was not unpacked")
    return tuple(parts)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    try:
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            shutil.copyfileobj(tar.extractfile(member), file, MAX_READ)
            if file.tell() != member.size:
                raise EOFError(f"{member.name} ends early")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as fault:
        raise InputError(f"{archive} holds {member.name!r} twice; it was not unpacked") from fault


def _drain(stream: BinaryIO, archive: Path) -> None:
    """Read what follows the last file, which must be zeros: tarfile stops in silence at whatever is no header.

    At the end gzip compares its checksum.
    """
    tail = 0
    while piece := stream.read(MAX_READ):
        tail += len(piece)
        if tail > MAX_TAIL:
            raise InputError(f"{archive} goes on after its last file and was not unpacked")
        if piece.strip(b"\0"):
            raise tarfile.ReadError("no header where one should be")
    if tail < tarfile.BLOCKSIZE:
        raise EOFError("it has no end mark")

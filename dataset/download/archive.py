"""An archive from a stranger, unpacked so that it can do no harm: into one folder, within bounds, or not at all."""

import errno
import gzip
import io
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from runtime.bars import Bar
from runtime.errors import InputError

MAX_BYTES = 64 << 30  # of all files together; the largest of the six sets, Chest, has some 20 GB
MAX_FILES = 200_000
MAX_READ = 1 << 20  # bytes that a tar header may make us take in at once
MAX_DEPTH = 12  # folders in one another
MAX_TAIL = 1 << 26  # bytes of padding after the last file
MAX_RATIO = 100  # bytes that a byte of a zip archive may unpack to; images hardly shrink
GZIP = b"\x1f\x8b"
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError)
ZIP_DAMAGE = (EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, struct.error, ValueError)
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
    bar = {"desc": f"unpacking {archive.name}", "leave": False, "unit": "B", "unit_scale": True}
    try:
        with archive.open("rb") as file, Bar.wrapattr(file, "read", archive.stat().st_size, **bar) as counted:
            gzipped = file.read(len(GZIP)) == GZIP
            file.seek(0)
            stream = gzip.GzipFile(fileobj=counted) if gzipped else counted
            with tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:
                while member := tar.next():
                    tar.members.clear()  # else every header stays in memory
                    if not (member.isdir() or (member.isreg() and not member.issparse())):
                        raise _special(archive, member.name)
                    target = folder.joinpath(*_parts(member.name, archive))
                    count, total = count + 1, total + member.size
                    _bounded(archive, count, total)
                    _write(None if member.isdir() else tar.extractfile(member), member.size, target, archive)
            _drain(stream, archive)
    except DAMAGE as fault:
        raise _damaged(archive, "tar", fault) from fault
    if not count:
        raise InputError(f"{archive} is empty: delete it and fetch it again")
    return count


def unpack_zip(archive: Path, folder: Path, skip: Collection[str] = ()) -> int:
    """Unpack a .zip into `folder`, which is made and must not exist; gives the number of files and folders.

    As `unpack`; nor may members be encrypted, packed in other ways than deflate, overlap, or unpack to another size
    than they state. What the archive says of its members, and the room on the disk, is checked before anything is
    written. What lies in a folder of a name in `skip` stays packed.
    """
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _zip_members(zipped, archive, skip)
            _room(archive, folder, sum(member.file_size for member, _ in members))
            for member, parts in Bar(members, f"unpacking {archive.name}", unit="file", leave=False):
                size = member.file_size
                member.file_size += 1  # zipfile cuts a file to the size that it states; one byte more shows a lie
                with zipped.open(member) as source:
                    _write(None if member.is_dir() else source, size, folder.joinpath(*parts), archive)
    except (*ZIP_DAMAGE, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno != errno.EINVAL:  # EINVAL: a place before the file's start
            raise
        raise _damaged(archive, "zip", fault) from fault
    return len(members)


def _zip_members(
    zipped: zipfile.ZipFile, archive: Path, skip: Collection[str]
) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """The members that are to be unpacked, and their paths in parts; InputError if any member could do harm."""
    members = zipped.infolist()
    total, packed = (sum(getattr(member, name) for member in members) for name in ("file_size", "compress_size"))
    _bounded(archive, len(members), total)
    whole = archive.stat().st_size
    if packed > whole or total > MAX_RATIO * whole:
        raise InputError(f"{archive} ({whole} bytes) claims to hold {total} bytes, a zip bomb; it was not unpacked")
    if not members:
        raise InputError(f"{archive} is empty: delete it and fetch it again")
    found = []
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _special(archive, member.filename)
        if member.flag_bits & 1:
            raise InputError(f"{archive} holds {member.filename!r} encrypted: unpack it by hand with its password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{archive} holds {member.filename!r} packed in an unusual way; it was not unpacked")
        _parts(member.orig_filename, archive)  # as it was before zipfile cut it at a zero byte
        parts = _parts(member.filename, archive)
        if not set(skip).intersection(parts if member.is_dir() else parts[:-1]):
            found.append((member, parts))
    return found


def _room(archive: Path, folder: Path, size: int) -> None:
    """InputError if the disk has less room than `size` bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"{archive} unpacks to {size / 1e9:.1f} GB and {folder.parent.parent} has {free / 1e9:.1f} GB left: "
            "free some or choose another --data_path"
        )


def _bounded(archive: Path, count: int, total: int) -> None:
    if count > MAX_FILES or total > MAX_BYTES:
        raise InputError(f"{archive} holds more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB and was not unpacked")


def _special(archive: Path, name: str) -> InputError:
    return InputError(f"{archive} holds {name!r}, which is a link or a device; it was not unpacked")


def _damaged(archive: Path, kind: str, fault: Exception) -> InputError:
    reason = str(fault) or type(fault).__name__
    return InputError(f"{archive} is cut, damaged or no {kind} archive ({reason}): delete it and fetch it again")


def _parts(name: str, archive: Path) -> tuple[str, ...]:
    """The path of a member in parts; InputError for one that could do harm."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    bad = path.is_absolute() or ".." in parts or len(parts) > MAX_DEPTH or FORBIDDEN.search(name)
    if bad or any(RESERVED.fullmatch(part) or part != part.rstrip(". ") for part in parts):
        raise InputError(f"{archive} holds the path {name!r}, which is not safe; it was not unpacked")
    return tuple(parts)


def _write(source: BinaryIO | None, size: int, target: Path, archive: Path) -> None:
    """Write one file of `size` bytes, or make a folder (`source` None); InputError if that name is taken."""
    try:
        if source is None:
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            shutil.copyfileobj(source, file, MAX_READ)
            if file.tell() != size:
                raise EOFError(f"{target.name} has another size than it states")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as fault:
        raise InputError(f"{archive} holds {target.name!r} twice; it was not unpacked") from fault


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

"""Where maps of a run on many machines go: a folder, or an object store by its URL."""

from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from runtime.errors import InputError


class MapStore:
    """A folder or URL to put files in. Raises InputError for an URL of no kind that is known here."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") or "/"
        self.system, self.root = _open(self.place)
        self.system.create_dir(self.root, recursive=True)

    def put(self, name: str, content: bytes) -> str:
        """Write a file, or write it again; gives where it is."""
        with self.system.open_output_stream(f"{self.root}/{name}") as stream:
            stream.write(content)
        return f"{self.place}/{name}"


def _open(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder or URL: pyarrow's own, else one of fsspec's."""
    if "://" not in place:
        return fs.LocalFileSystem(), str(Path(place).absolute())
    try:
        return fs.FileSystem.from_uri(place)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _by_fsspec(place)
    except OSError as fault:
        raise InputError(f"--save_maps {place} can't be reached ({fault})") from fault


def _by_fsspec(place: str) -> tuple[fs.FileSystem, str]:
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as fault:
        raise InputError(f"--save_maps {place}: {fault}") from fault
    return fs.PyFileSystem(fs.FSSpecHandler(system)), root

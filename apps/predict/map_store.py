"""Where maps of a run on many machines go: a folder, or an object store by its URL."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from runtime.errors import InputError


class MapStore:
    """A folder or URL to put files in, made with the first. Raises InputError for an URL of no kind that is known."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") or "/"
        self.system, self.root = _open(self.place)
        self.made = False

    def put(self, name: str, content: bytes) -> str:
        """Write a file, or write it again; gives where it is."""
        if not self.made:
            self.system.create_dir(self.root, recursive=True)
            self.made = True
        with self.system.open_output_stream(f"{self.root}/{name}") as stream:
            stream.write(content)
        return f"{self.place}/{name}"


def check_maps(place: str, inputs: Sequence[str]) -> None:
    """Raise InputError for a place of maps that can't be, or where a later run would take them for its inputs."""
    store = MapStore(place)
    if isinstance(store.system, fs.LocalFileSystem):
        root = Path(store.root).resolve()
        for folder in (Path(name).resolve() for name in inputs):
            if root == folder or folder in root.parents:
                raise InputError(f"--save_maps {place} lies in the input {folder}: name a folder outside of it")


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

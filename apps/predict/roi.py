"""Which mask of --roi belongs to which input."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from apps.predict import volumes
from dataset.folders import IMAGE_SUFFIXES
from runtime.errors import InputError
from runtime.files import suffix_of

READ = (*IMAGE_SUFFIXES, *volumes.NIFTI, *volumes.NRRD)


class RegionMasks:
    """The masks below a folder. An input's is the one that lies there as the input does: of `in/a/s.png` it is
    `a/s.png`, or `s.png` if no other input would take that. It has the input's name or stem, alone or with _mask.
    Raises InputError when the folder is not there.
    """

    def __init__(self, folder: Path, inputs: Iterable[Path]) -> None:
        if not folder.is_dir():
            raise InputError(f"--roi {folder} is no folder: give the one that holds the masks")
        self.folder, self.table = folder, _table(folder)
        self.takers = Counter(hits[0] for hits in map(self._hits, inputs) if len(hits) == 1)

    def of(self, file: Path) -> Path:
        """The mask of an input. Raises InputError if there is none, or several, or it is another input's too."""
        hits = self._hits(file)
        if len(hits) != 1:
            what = f"several masks in {self.folder}, such as {hits[0].name}" if hits else f"no mask in {self.folder}"
            raise InputError(f"{file} has {what}: put there one of its own name")
        if self.takers[hits[0]] > 1:
            own = Path(file.absolute().parent.name, file.name)
            raise InputError(f"{file} has the mask {hits[0]}, but so has another input: put its own at {own} there")
        return hits[0]

    def _hits(self, file: Path) -> list[Path]:
        """The masks that may be meant: those at the longest end of the input's path; of its very name, only that."""
        folders = file.absolute().parent.parts
        for start in range(1, len(folders) + 1):
            hits = [mask for mask in self.table.get((folders[start:], _stem(file)), ()) if not mask.samefile(file)]
            if hits:
                return [mask for mask in hits if mask.name == file.name] or hits
        return []


def _table(folder: Path) -> dict[tuple[tuple[str, ...], str], list[Path]]:
    """The masks by the folders below `folder` that they lie in, and their stem without _mask."""
    table: dict[tuple[tuple[str, ...], str], list[Path]] = {}
    for mask in sorted(folder.rglob("*")):
        if suffix_of(mask).lower() in READ and not mask.name.startswith(".") and mask.is_file():
            inside, stem = mask.relative_to(folder).parts[:-1], _stem(mask)
            for name in {stem, stem.removesuffix("_mask")}:
                table.setdefault((inside, name), []).append(mask)
    return table


def _stem(file: Path) -> str:
    """The name without its suffix; the end of a UID (1.2.840.10008), as DICOM files are named by, is none."""
    suffix = suffix_of(file)
    return file.name.removesuffix(suffix) if suffix.lower() in (*READ, ".dcm") else file.name

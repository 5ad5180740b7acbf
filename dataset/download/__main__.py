"""Fetch the six medical sets, unpack and check them: all of BMAD, or one as MVFA-AD's authors preprocessed it.

python -m dataset.download bmad                             to data/bmad/OBJ
python -m dataset.download Brain                            to data/Brain_AD
python -m dataset.download bmad --archive bmad.zip          a file fetched by hand
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import dataset
from dataset.download.archive import unpack, unpack_zip
from dataset.folders import subfolder, subfolders
from dataset.layouts import layout_of, tree_of
from dataset.registry import BMAD_FOLDER, MEDICAL, look_for
from runtime.download import fetch as fetch_url
from runtime.errors import InputError, Parser, exit_code
from runtime.files import sha256
from runtime.flags import path

ADDRESS = "https://drive.google.com/uc?id={}"
NESTED = 3  # folders around the set, in an archive, that are seen through


@dataclass(frozen=True)
class Shared:
    """A file on Google Drive: its id, and the name that its authors gave it."""

    id: str
    archive: str

    @property
    def url(self) -> str:
        return ADDRESS.format(self.id)


# The preprocessed sets that the readme of MVFA-AD links to, one archive an object.
SETS = {
    "Brain": Shared("1YxcjcQqsPdkDO0rqIVHR5IJbqS9EIyoK", "Brain.tar.gz"),
    "Liver": Shared("1xriF0uiwrgoPh01N6GlzE5zPi_OIJG1I", "Liver.tar.gz"),
    "Retina_RESC": Shared("1BqDbK-7OP5fUha5zvS2XIQl-_t8jhTpX", "Retina_RESC.tar.gz"),
    "Retina_OCT2017": Shared("1GqT0V3_3ivXPAuTn4WbMM6B9i0JQcSnM", "Retina_OCT2017.tar.gz"),
    "Chest": Shared("15DhnBAk-h6TGLTUbNLxP8jCCDtwOHAjb", "Chest.tar.gz"),
    "Histopathology": Shared("1hueVJZCFIZFHBLHFlv1OhqF8SFjUVHk6", "Histopathology_AD.tar.gz"),
}

# All six sets of BMAD in one archive: the mirror that anomalib fetches too.
MIRROR = "https://huggingface.co/datasets/code-dev05/BMAD/resolve/main/bmad.zip"
MIRROR_SHA256 = "df655def31f3f638a91c567550de54d6e45a74b2368f666c13a6a3052c063165"
LICENCE = "BMAD's licence is CC BY-NC-SA 4.0: name its authors, no commercial use, share alike"


def fetch(shared: Shared, path: Path) -> None:
    """Download to `path`; a download that was cut before goes on. InputError says what to do by hand when it can't."""
    by_hand = f"open {shared.url} in a browser, put the file into {path.parent} as {path.name}, and run this again"
    try:
        import gdown
        import requests
    except ImportError as fault:
        raise InputError(
            f"the package gdown is missing: pip install -r requirements/download.txt; or {by_hand}"
        ) from fault
    try:
        done = gdown.download(url=shared.url, output=str(path), resume=True, use_cookies=False)
    except (gdown.exceptions.DownloadError, requests.exceptions.RequestException) as fault:
        why = " ".join(str(fault).split())[:100]
        raise InputError(
            f"{path.name} could not be fetched ({type(fault).__name__}: {why}); run again to go on, or {by_hand}"
        ) from fault
    if done is None or not path.is_file():
        raise InputError(f"{path.name} could not be fetched; {by_hand}")


@contextmanager
def at_hand(by_hand: Path | None, path: Path, get: Callable[[], object], keep: bool) -> Iterator[tuple[Path, bool]]:
    """The archive `by_hand`, else the one at `path`, which `get` brings if it is not there; and whether it did.

    One that was brought goes when it was unpacked, unless `keep`; where that fails it stays.
    """
    fetched = by_hand is None and not path.exists()
    if fetched:
        get()
    path = by_hand or path
    if not path.is_file():
        raise InputError(f"no file {path}: name the archive that was fetched by hand")
    yield path, fetched
    if fetched and not keep:
        path.unlink()


def install(obj: str, archive: Path, data_path: Path) -> Path:
    """Unpack an archive as DATA_PATH/OBJ_AD, whole or not at all. InputError for one that does not hold such a set."""
    target = data_path / f"{obj}_AD"
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=data_path) as folder:
        inside = Path(folder) / "archive"
        count = unpack(archive, inside)
        found = find_set(inside)
        if found is None:
            tops = ", ".join(path.name for path in sorted(inside.iterdir())[:3])
            raise InputError(f"{archive} holds no folders valid and test, but {tops}; is it the set {obj}?")
        found.rename(target)
    print(f"{target}: {count} entries unpacked from {archive.name}")
    return target


def find_set(folder: Path) -> Path | None:
    """The one folder with the medical layout, this one or one in it, whatever its name; else None."""
    for level in _levels(folder):
        hits = [path for path in level if layout_of(path) == "medical"]
        if hits:
            return hits[0] if len(hits) == 1 else None
    return None


def _levels(folder: Path) -> Iterator[list[Path]]:
    """The folder itself, the folders in it, those in them, ..., down to NESTED."""
    level = [folder]
    for _ in range(NESTED + 1):
        yield level
        level = [inside for path in level for inside in subfolders(path)]


def checked(obj: str, data_path: Path) -> str:
    """What the readers find in the set, beside the published counts; InputError for what would stop a run."""
    counts = dataset.open_few(obj, data_path, shot=1, iterate=-1).counts
    return dataset.describe({name: found for name, found in counts.items() if name not in ("support", "scored")})


def obtain(obj: str, data_path: Path, archive: Path | None = None, keep: bool = False) -> None:
    """Bring one set to DATA_PATH/OBJ_AD and check it; one that is there already is only checked.

    archive: a file fetched by hand, which stays; without it, one in DATA_PATH under the shared name, or the download,
    which goes when it was unpacked unless `keep`.
    """
    target, shared = data_path / f"{obj}_AD", SETS[obj]
    if target.exists():
        print(f"{target} is there already; remove it to unpack the set anew")
    else:
        data_path.mkdir(parents=True, exist_ok=True)
        path = data_path / shared.archive
        with at_hand(archive, path, partial(fetch, shared, path), keep) as (path, _):
            install(obj, path, data_path)
    print(checked(obj, data_path))
    print(f"for duplicates, sizes and masks: python -m dataset.check {data_path} --obj {obj}")


def found_set(obj: str, data_path: Path) -> Path | None:
    """The folder that a run would read `obj` from; None if there is no set."""
    folder = look_for(MEDICAL[obj], data_path)
    return folder if folder and tree_of(folder) else None


def install_bmad(archive: Path, folder: Path, wanted: list[str]) -> list[str]:
    """Unpack the `wanted` sets of BMAD's archive as FOLDER/OBJ, each whole; gives those that it held.

    InputError, and nothing made, for an archive that could do harm or holds none of them.
    """
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        inside = Path(temporary) / "archive"
        count = unpack_zip(archive, inside, skip=SETS.keys() - wanted)
        found: dict[str, Path] = {}
        for path in chain.from_iterable(_levels(inside)):
            places = {obj: found_set(obj, path) for obj in wanted if obj not in found}
            found |= {obj: place for obj, place in places.items() if place}
        if not found:
            raise InputError(f"{archive} holds none of {', '.join(wanted)} with valid and test; is it BMAD's archive?")
        folder.mkdir(exist_ok=True)
        for obj, place in found.items():
            place.rename(folder / obj)
    print(f"{folder}: {', '.join(found)}, {count} entries unpacked from {archive.name}")
    return list(found)


def obtain_bmad(data_path: Path, archive: Path | None = None, keep: bool = False) -> None:
    """Bring BMAD's six sets to DATA_PATH/bmad/OBJ and check them; a set that a run finds already is left as it is.

    archive, keep: as in `obtain`. Raises InputError for whatever keeps a set from being read.
    """
    print(LICENCE)
    data_path.mkdir(parents=True, exist_ok=True)
    folder = subfolder(data_path, BMAD_FOLDER) or data_path / BMAD_FOLDER
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file where a folder is wanted: take it away, then run this again")
    there = {obj: place for obj in SETS if (place := found_set(obj, data_path))}
    for place in there.values():
        print(f"{place} is there already and is kept")
    wanted = [obj for obj in SETS if obj not in there]
    for place in folder.iterdir() if folder.is_dir() else ():
        if place.name.lower() in {obj.lower() for obj in wanted}:
            raise InputError(f"{place} is there but holds no set: take it away, then run this again")
    if wanted:
        there |= dict.fromkeys(_bring(data_path, folder, wanted, archive, keep))
    faults = []
    for obj in there:
        try:
            print(checked(obj, data_path))
        except InputError as fault:
            faults.append(str(fault))
    if lacking := [obj for obj in SETS if obj not in there]:
        print(f"not in the archive: {', '.join(lacking)}")
    print(f"for duplicates, sizes and masks: python -m dataset.check {data_path} --obj OBJ")
    if faults:
        raise InputError(faults[0] + (f" (and {len(faults) - 1} more sets)" if len(faults) > 1 else ""))


def _bring(data_path: Path, folder: Path, wanted: list[str], archive: Path | None, keep: bool) -> list[str]:
    """Fetch BMAD's archive unless it is at hand, and unpack `wanted`; gives the sets that it held."""
    path = data_path / Path(MIRROR).name
    mend = f"put {MIRROR} into {data_path} as {path.name} and run this again"
    with at_hand(archive, path, partial(fetch_url, MIRROR, path, MIRROR_SHA256, mend), keep) as (path, fetched):
        if not fetched and sha256(path) != MIRROR_SHA256:
            print(f"{path} has another sha256 than the mirror's file; what it holds is checked all the same")
        return install_bmad(path, folder, wanted)


def main() -> None:
    """Obtain every set that is named."""
    parser = Parser(
        prog="python -m dataset.download",
        description=f"Fetch, unpack and check medical sets: bmad, all six in one archive ({MIRROR}), or single ones "
        f"shared by MVFA-AD. {LICENCE}.",
    )
    parser.add_argument("obj", nargs="+", choices=[BMAD_FOLDER, *SETS], metavar="OBJ", help=f"bmad, {', '.join(SETS)}")
    parser.add_argument(
        "--data_path", type=path, default=Path("data"), help="where bmad/OBJ or OBJ_AD is made (default data)"
    )
    parser.add_argument("--archive", type=path, help="an archive fetched by hand, for bmad or one OBJ")
    parser.add_argument("--keep", action="store_true", help="keep the downloaded archive")
    args = parser.parse_args()
    if args.archive and len(args.obj) > 1:
        raise InputError("--archive is one set's; name one object")
    for obj in args.obj:
        if obj == BMAD_FOLDER:
            obtain_bmad(args.data_path, args.archive, args.keep)
        else:
            obtain(obj, args.data_path, args.archive, args.keep)


if __name__ == "__main__":
    sys.exit(exit_code(main))

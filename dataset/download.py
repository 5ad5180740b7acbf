"""Fetch the six medical sets as the authors of MVFA-AD preprocessed and share them, unpack and check them.

python -m dataset.download Brain
python -m dataset.download Brain --archive Brain.tar.gz     (a file fetched by hand)
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import dataset
from dataset.archive import unpack
from dataset.folders import subfolders
from dataset.layouts import layout_of
from errors import InputError, Parser, exit_code

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


def fetch(shared: Shared, path: Path) -> None:
    """Download to `path`; a download that was cut before goes on. InputError says what to do by hand when it can't."""
    by_hand = f"open {shared.url} in a browser, put the file into {path.parent} as {path.name}, and run this again"
    try:
        import gdown
        import requests
    except ImportError as fault:
        raise InputError(
            f"the package gdown is missing: pip install -r requirements-download.txt; or {by_hand}"
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
    level = [folder]
    for _ in range(NESTED + 1):
        hits = [path for path in level if layout_of(path) == "medical"]
        if hits:
            return hits[0] if len(hits) == 1 else None
        level = [inside for path in level for inside in subfolders(path)]
    return None


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
        path = archive or data_path / shared.archive
        fetched = archive is None and not path.exists()
        if fetched:
            fetch(shared, path)
        if not path.is_file():
            raise InputError(f"no file {path}: name the archive that was fetched by hand")
        install(obj, path, data_path)
        if fetched and not keep:
            path.unlink()
    print(checked(obj, data_path))
    print(f"for duplicates, sizes and masks: python -m dataset.check {data_path} --obj {obj}")


def main() -> None:
    """Obtain every set that is named."""
    parser = Parser(
        prog="python -m dataset.download", description="Fetch, unpack and check the medical sets shared by MVFA-AD."
    )
    parser.add_argument("obj", nargs="+", choices=SETS, metavar="OBJ", help=", ".join(SETS))
    parser.add_argument("--data_path", type=Path, default=Path("data"), help="where OBJ_AD is made (default data)")
    parser.add_argument("--archive", type=Path, help="an archive fetched by hand, for one OBJ")
    parser.add_argument("--keep", action="store_true", help="keep the downloaded archive")
    args = parser.parse_args()
    if args.archive and len(args.obj) > 1:
        raise InputError("--archive is one set's; name one object")
    for obj in args.obj:
        obtain(obj, args.data_path, args.archive, args.keep)


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""The one table of objects, objects.csv, and where on a disk each of them lies. Their words: prompt.py."""

import csv
import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dataset.folders import descend, subfolder
from dataset.layouts import MEDICAL_EXPECTED, layout_of, no_layout, tree_of
from prompt import class_name
from runtime.errors import InputError


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a benchmark, or a user's own.

    `masks` is None for own data until its folder is read. `test` and `valid` are the published numbers of
    images in the test split and in the split that the support comes from (industrial: `train/good`); Solar's
    are what its converter writes.
    """

    name: str  # "Brain", "mvtec/bottle", or the user's own name
    classname: str  # the words that prompts put in place of {classname}
    modality: str
    masks: bool | None
    layout: str  # "medical" | "mvtec" | "btad" | "visa" | "own"
    test: int | None
    valid: int | None


# The folders in which BMAD's authors publish their sets.
_BMAD = {
    "Brain": ("BraTS2021_slice",),
    "Liver": ("hist_DIY", "Train/hist_DIY"),
    "Retina_RESC": ("RESC",),
    "Retina_OCT2017": ("OCT2017",),
    "Chest": ("Chest-RSNA", "chest-rsna/Chest-RSNA"),
    "Histopathology": ("camelyon16_256",),
}
BMAD_FOLDER = "bmad"  # under the data path, in any case; holds any of the above, or OBJ

_FAMILY_FOLDERS = {  # what the folder around a family's classes is called
    "mvtec": ("mvtec", "mvtec_ad", "mvtec_anomaly_detection"),
    "mpdd": ("mpdd",),
    "btad": ("btad", "BTech_Dataset_transformed"),
    "visa": ("visa", "VisA_20220922"),
}


def _read_objects() -> dict[str, ObjectInfo]:
    """The rows of objects.csv by name; its columns are ObjectInfo's fields, empty where nothing is published."""
    with Path(__file__).with_name("objects.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["name"]: ObjectInfo(
                name=row["name"],
                classname=class_name(row["name"]),
                modality=row["modality"],
                masks={"yes": True, "no": False}[row["masks"]],
                layout=row["layout"],
                test=int(row["test"]) if row["test"] else None,
                valid=int(row["valid"]) if row["valid"] else None,
            )
            for row in csv.DictReader(file)
        }


_KNOWN = _read_objects()
MEDICAL = {name: info for name, info in _KNOWN.items() if info.layout == "medical"}
INDUSTRIAL = {name: info for name, info in _KNOWN.items() if info.layout != "medical"}
FAMILIES = {family: tuple(name for name in INDUSTRIAL if name.startswith(f"{family}/")) for family in _FAMILY_FOLDERS}

# What makes an object of a raw download or a package.
CONVERTED = {
    "Skin_HAM10000": "ham10000 --source DIR",
    "Skin_ISIC2019": "isic2019 --source DIR",
    "Solar": "elpv",
}
# What zero-shot transfer trains on: Solar has the medical layout but is not medicine.
TRANSFER: tuple[str, ...] = tuple(name for name in MEDICAL if name != "Solar")
# ISIC 2019 holds the images of HAM10000, so neither may train for the other.
SAME_IMAGES: tuple[frozenset[str], ...] = (frozenset({"Skin_HAM10000", "Skin_ISIC2019"}),)


def barred(obj: str) -> frozenset[str]:
    """The objects that must not train for `obj`: itself, and those that share its images."""
    return frozenset({obj}).union(*(twins for twins in SAME_IMAGES if obj in twins))


def expand(obj: str) -> list[str]:
    """The classes behind a name: "mvtec" -> ["mvtec/bottle", ...]; any other name -> [itself]."""
    return list(FAMILIES.get(obj, (obj,)))


def find(obj: str, data_path: str | Path, classname: str | None = None) -> ObjectInfo:
    """The record of `obj`: a benchmark's, or a new one where `data_path` holds the user's own `obj`.

    `classname` replaces the words for the prompts. Raises InputError for a name that is neither.
    """
    if obj in FAMILIES:
        raise InputError(f"{obj} is a set of {len(FAMILIES[obj])} classes: name one, such as {FAMILIES[obj][0]}")
    info = _KNOWN.get(obj)
    if info is None:
        _own_root(obj, Path(data_path))
        info = ObjectInfo(obj, class_name(obj), "own images", None, "own", None, None)
    return replace(info, classname=classname) if classname else info


def locate(info: ObjectInfo, data_path: str | Path) -> Path:
    """The folder of `info`'s splits, somewhere under `data_path`; InputError when it is not there."""
    data_path = Path(data_path)
    if info.layout == "own":
        return _own_root(info.name, data_path)
    if folder := look_for(info, data_path):
        return folder
    if info.layout == "medical":
        raise InputError(_nowhere(info, data_path))
    raise InputError(
        f"no folder {data_path / info.name}: put the {info.name.split('/')[0]} set there, "
        "or say where it is with --data_path (trees: data/readme.md)"
    )


def look_for(info: ObjectInfo, data_path: str | Path) -> Path | None:
    """A benchmark object's folder, under `data_path` or `data_path` itself; None if it is not there.

    Of several folders of a medical object the first that holds a medical tree: OBJ_AD, OBJ, as BMAD's authors name it,
    then the same in `bmad`, then `data_path` itself; if none holds one, the first.
    """
    data_path = Path(data_path)
    if info.layout == "medical":
        first = None
        for folder in _medical_folders(info, data_path):
            if tree_of(folder):
                return folder
            first = first or folder
        return first
    family, name = info.name.split("/")
    family_folder = subfolder(data_path, *_FAMILY_FOLDERS[family])
    inside = subfolder(family_folder, name) if family_folder else None
    return inside or subfolder(data_path, name) or _itself(data_path, (name,))


def passed_over(info: ObjectInfo, data_path: str | Path) -> list[str]:
    """A line that says which folder is read where there are several trees of one object; else nothing."""
    places: dict[Path, Path] = {}
    if info.layout == "medical":
        with suppress(InputError):  # folders that differ by case, beyond the one that is read
            for folder in _medical_folders(info, Path(data_path)):
                if tree_of(folder):
                    places.setdefault(folder.resolve(), folder)
    first, *others = map(str, places.values()) if places else [""]
    return [f"{info.name}: {first} is read; there too, and not read: {', '.join(others)}"] if others else []


def words_note(words: str, source: str) -> str:
    """A line on words for the prompts that nobody gave."""
    return f'prompts say "{words}" ({source}); other words: --classname'


def own_words(info: ObjectInfo, classname: str | None) -> list[str]:
    """That line, for a user's own object whose words are its name; else nothing."""
    return [] if classname or info.layout != "own" else [words_note(info.classname, f"the name {info.name}")]


def _medical_names(info: ObjectInfo) -> tuple[str, ...]:
    """What a medical object's folder may be called, by preference; authors' folders may lie in OBJ_AD and OBJ."""
    own, tops = (f"{info.name}_AD", info.name), _BMAD.get(info.name, ())
    return (*own, *tops, *(f"{outer}/{top}" for outer in own for top in tops))


def _medical_folders(info: ObjectInfo, data_path: Path) -> Iterator[Path]:
    """The folders that are there under such a name, by preference."""
    names = _medical_names(info)
    for name in names:
        if folder := descend(data_path, name):
            yield folder
    inner = subfolder(data_path, BMAD_FOLDER)
    for name in names if inner else ():
        if folder := descend(inner, name):
            yield folder
    if folder := _itself(data_path, [name.split("/")[-1] for name in names]):
        yield folder


def _nowhere(info: ObjectInfo, data_path: Path) -> str:
    """The line about a medical object that is not there: what was looked for, where, and how to get it."""
    names = list(dict.fromkeys(name.split("/")[-1] for name in _medical_names(info)))
    mend = "put the set there"
    if info.name in CONVERTED:
        mend = f"make it with: python -m dataset.convert {CONVERTED[info.name]} --out {data_path}"
    elif info.name in _BMAD:
        mend = f"fetch it with: python -m dataset.download bmad --data_path {data_path}"
    return (
        f"no folder {data_path / names[0]}: looked in {data_path} and {data_path / BMAD_FOLDER} for {', '.join(names)} "
        f"in one of these layouts: {MEDICAL_EXPECTED}; {mend}, "
        "or say where it is with --data_path (trees: data/readme.md)"
    )


def _itself(data_path: Path, names: Iterable[str]) -> Path | None:
    """`data_path` when it bears the object's own name, so that no class is read from another one's folder."""
    same = Path(os.path.realpath(data_path)).name.lower() in {name.lower() for name in names}
    return data_path if same and data_path.is_dir() else None


def _own_root(obj: str, data_path: Path) -> Path:
    """A user's own object: DIR/NAME_AD, DIR/NAME or DIR itself, whichever has a layout that is read."""
    parts = Path(obj).parts
    if not parts or Path(obj).is_absolute() or ".." in parts:
        raise InputError(f"--obj {obj!r} is not a name: name the object and give its folder with --data_path")
    if not data_path.is_dir():
        raise InputError(f"no folder {data_path}: give the folder that holds {obj} with --data_path")
    named = [folder for folder in (data_path / f"{obj}_AD", data_path / obj) if folder.is_dir()]
    # A misspelt class of a benchmark must not pass for a name of `data_path` itself.
    candidates = named if parts[0] in FAMILIES else [*named, data_path]
    for folder in candidates:
        if layout_of(folder):
            return folder
    if named:
        raise InputError(no_layout(named[0]))
    raise InputError(_unknown(obj, data_path))


def _unknown(obj: str, data_path: Path) -> str:
    names = {name.lower(): name for name in (*_KNOWN, *FAMILIES)}
    names |= {name.split("/")[1].lower(): name for name in INDUSTRIAL}
    close = difflib.get_close_matches(obj.lower(), names, n=1)
    if not close and "/" in obj:
        close = difflib.get_close_matches(obj.split("/")[1].lower(), names, n=1)
    guess = f" Did you mean {names[close[0]]}?" if close else ""
    families = ", ".join(f"{family}/CLASS" for family in FAMILIES)
    return (
        f"unknown object {obj}, and no folder of that name in {data_path}.{guess} "
        f"Objects: {', '.join(MEDICAL)}, {families}, or a folder of your own: --obj NAME --data_path DIR"
    )

"""The one table of objects: whether they have masks, how many images, where they lie. Their words: prompt.py."""

import difflib
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


# name: (modality, has masks, published test images, published validation images)
_MEDICAL = {
    "Brain": ("brain MRI (BraTS2021), 240x240", True, 3715, 83),
    "Liver": ("liver CT (BTCV + LiTS), 512x512", True, 1493, 166),
    "Retina_RESC": ("retinal OCT (RESC), 512x1024", True, 1805, 115),
    "Retina_OCT2017": ("retinal OCT (OCT2017), 512x496", False, 968, 32),
    "Chest": ("chest X-ray (RSNA), 1024x1024", False, 17194, 1490),
    "Histopathology": ("H&E patches (Camelyon16), 256x256", False, 1997, 236),
    "Skin_HAM10000": ("dermoscopy, melanoma against naevus", True, None, None),
    "Skin_ISIC2019": ("dermoscopy, melanoma against naevus", False, None, None),
    "Solar": ("electroluminescence of solar cells (ELPV), 300x300", False, 1999, 224),
}
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

# family -> class: (published test images, published normal training images)
_INDUSTRIAL = {
    "mvtec": {
        "bottle": (83, 209),
        "cable": (150, 224),
        "capsule": (132, 219),
        "carpet": (117, 280),
        "grid": (78, 264),
        "hazelnut": (110, 391),
        "leather": (124, 245),
        "metal_nut": (115, 220),
        "pill": (167, 267),
        "screw": (160, 320),
        "tile": (117, 230),
        "toothbrush": (42, 60),
        "transistor": (100, 213),
        "wood": (79, 247),
        "zipper": (151, 240),
    },
    "mpdd": {
        "bracket_black": (79, 289),
        "bracket_brown": (77, 185),
        "bracket_white": (60, 110),
        "connector": (44, 128),
        "metal_plate": (97, 54),
        "tubes": (101, 122),
    },
    "btad": {
        "01": (70, 400),
        "02": (230, 399),
        "03": (441, 1000),
    },
    "visa": {
        "candle": (200, 900),
        "capsules": (160, 542),
        "cashew": (150, 450),
        "chewinggum": (150, 453),
        "fryum": (150, 450),
        "macaroni1": (200, 900),
        "macaroni2": (200, 900),
        "pcb1": (200, 904),
        "pcb2": (200, 901),
        "pcb3": (201, 905),
        "pcb4": (201, 904),
        "pipe_fryum": (150, 450),
    },
}
_FAMILY = {  # family: (layout, modality, names that its folder goes by)
    "mvtec": ("mvtec", "industrial photograph (MVTec AD)", ("mvtec", "mvtec_ad", "mvtec_anomaly_detection")),
    "mpdd": ("mvtec", "photograph of painted metal parts (MPDD)", ("mpdd",)),
    "btad": ("btad", "industrial photograph (BTAD)", ("btad", "BTech_Dataset_transformed")),
    "visa": ("visa", "industrial photograph (VisA)", ("visa", "VisA_20220922")),
}

MEDICAL: dict[str, ObjectInfo] = {
    name: ObjectInfo(name, class_name(name), modality, masks, "medical", test, valid)
    for name, (modality, masks, test, valid) in _MEDICAL.items()
}
INDUSTRIAL: dict[str, ObjectInfo] = {
    name: ObjectInfo(name, class_name(name), _FAMILY[family][1], True, _FAMILY[family][0], test, train)
    for family, classes in _INDUSTRIAL.items()
    for name, (test, train) in ((f"{family}/{name}", counts) for name, counts in classes.items())
}
FAMILIES: dict[str, tuple[str, ...]] = {
    family: tuple(f"{family}/{name}" for name in classes) for family, classes in _INDUSTRIAL.items()
}
_KNOWN = MEDICAL | INDUSTRIAL

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
    family_folder = subfolder(data_path, *_FAMILY[family][2])
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
    same = data_path.resolve().name.lower() in {name.lower() for name in names}
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

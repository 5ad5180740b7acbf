"""The demonstration benchmark: nine objects that the program draws itself, in their benchmarks' real layouts.

python -m dataset.demo --out data/demo [--seed 0]

Every picture has a random generator of its own, seeded by (seed, object, split, label, index): the benchmark
is the same everywhere, and no picture depends on which others were drawn.
"""

import csv
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.demo import brain as demo_brain
from dataset.demo import chest as demo_chest
from dataset.demo import histo as demo_histo
from dataset.demo import industrial as demo_industrial
from dataset.demo import liver as demo_liver
from dataset.demo import oct as demo_oct
from dataset.demo.draw import Drawing
from runtime.bars import Bar
from runtime.errors import InputError

VERSION = 1  # raise it when a generator draws otherwise than before
STAMP = "VERSION"  # the file in an object's folder that says which generator and seed it is of
VALID, TEST = 8, 25  # pictures of either label
JPEG_QUALITY = 95


@dataclass(frozen=True)
class DemoObject:
    """One object: its generator, its layout ("medical", "mvtec", "visa") and its folder under the root."""

    draw: Callable[[np.random.Generator, bool], Drawing]
    layout: str
    folder: str
    masks: bool = True
    suffix: str = ".png"


OBJECTS: dict[str, DemoObject] = {
    "Brain": DemoObject(demo_brain.draw, "medical", "Brain_AD"),
    "Liver": DemoObject(demo_liver.draw, "medical", "Liver_AD"),
    "Retina_RESC": DemoObject(demo_oct.draw_resc, "medical", "Retina_RESC_AD"),
    "Retina_OCT2017": DemoObject(demo_oct.draw_oct2017, "medical", "Retina_OCT2017_AD", False, ".jpeg"),
    "Chest": DemoObject(demo_chest.draw, "medical", "Chest_AD", False),
    "Histopathology": DemoObject(demo_histo.draw, "medical", "Histopathology_AD", False),
    "mvtec/carpet": DemoObject(demo_industrial.draw_carpet, "mvtec", "mvtec/carpet"),
    "mvtec/metal_nut": DemoObject(demo_industrial.draw_metal_nut, "mvtec", "mvtec/metal_nut"),
    "visa/pcb1": DemoObject(demo_industrial.draw_pcb, "visa", "visa"),  # the split table lies beside the class
}


@dataclass(frozen=True)
class Picture:
    """One picture of the benchmark: its split ("valid", "test"), its label and its running number."""

    split: str
    abnormal: bool
    index: int
    drawing: Drawing


def draw_object(name: str, rng: np.random.Generator, abnormal: bool) -> Drawing:
    """One picture of an object: image uint8 (H, W) or (H, W, 3) RGB, mask bool (H, W), words of the finding.

    Raises InputError when there is no such object.
    """
    return _object(name).draw(rng, abnormal)


def generate(root: str | Path, seed: int = 0, names: Iterable[str] | None = None) -> None:
    """Draw the objects `names` (all when None) into their folders under `root`, whole or not at all.

    A folder of an earlier generation is replaced. Raises InputError when there is no such object, or when a
    folder is in the way that this program did not write.
    """
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or more")
    chosen = {name: _object(name) for name in (OBJECTS if names is None else names)}
    for item in chosen.values():
        _check_replaceable(Path(root) / item.folder)
    total = len(chosen) * 2 * (VALID + TEST)
    with Bar(total=total, desc="demo data", unit="image", disable=not chosen) as bar:
        for name, item in chosen.items():
            bar.set_postfix_str(name)
            _generate(Path(root) / item.folder, name, seed, bar.update)


def ensure(root: str | Path, seed: int = 0, names: Iterable[str] | None = None) -> Path:
    """Draw what is missing under `root`, or is of another generator version or seed; returns the root."""
    wanted = OBJECTS if names is None else names
    missing = [name for name in wanted if _stamp(Path(root) / _object(name).folder) != _stamp_text(seed)]
    if missing:
        generate(root, seed, missing)
    return Path(root)


def _object(name: str) -> DemoObject:
    if name not in OBJECTS:
        raise InputError(f"the demo has no object {name!r}; it has {', '.join(OBJECTS)}")
    return OBJECTS[name]


# Folders that are whole or not there


def _stamp_text(seed: int) -> str:
    return f"demo generator {VERSION}, seed {seed}\n"


def _stamp(folder: Path) -> str | None:
    """What the folder's stamp says; None without one."""
    path = folder / STAMP
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not (_stamp(folder) or "").startswith("demo generator"):
        raise InputError(f"{folder} was not written by the demo generator; move it or choose another folder")


def _generate(folder: Path, name: str, seed: int, tick: Callable[[], object]) -> None:
    """Write one object beside its place, then move it there; a folder of an earlier generation makes room."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        draft = Path(temporary) / "new"
        WRITERS[OBJECTS[name].layout](draft, name, _pictures(name, seed, tick))
        (draft / STAMP).write_text(_stamp_text(seed), encoding="utf-8")
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        try:
            draft.rename(folder)
        except OSError:
            if _stamp(folder) != _stamp_text(seed):  # else another process was quicker with the very same
                raise


def _pictures(name: str, seed: int, tick: Callable[[], object]) -> Iterator[Picture]:
    """Every picture of an object, in order."""
    for split, count in (("valid", VALID), ("test", TEST)):
        for abnormal in (False, True):
            for index in range(count):
                drawing = OBJECTS[name].draw(_rng(seed, name, split, abnormal, index), abnormal)
                yield Picture(split, abnormal, index, drawing)
                tick()


def _rng(seed: int, name: str, split: str, abnormal: bool, index: int) -> np.random.Generator:
    key = hashlib.sha256(f"{name}/{split}/{int(abnormal)}/{index}".encode()).digest()
    return np.random.default_rng(np.random.SeedSequence([seed, int.from_bytes(key[:16], "big")]))


# Layouts


def _save(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3), or a mask, bool (H, W), as 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = picture.astype(np.uint8) * 255 if picture.dtype == bool else picture
    options = {"compress_level": 3} if path.suffix == ".png" else {"quality": JPEG_QUALITY}
    Image.fromarray(levels).save(path, **options)


def _write_medical(folder: Path, name: str, pictures: Iterable[Picture]) -> None:
    """{valid,test}/{good,Ungood}/img and Ungood/anomaly_mask, where the object has masks."""
    item = OBJECTS[name]
    for picture in pictures:
        place = folder / picture.split / ("Ungood" if picture.abnormal else "good")
        file = f"{picture.split}_{'abnormal' if picture.abnormal else 'normal'}_{picture.index:03d}{item.suffix}"
        _save(place / "img" / file, picture.drawing.image)
        if picture.abnormal and item.masks:
            _save(place / "anomaly_mask" / file, picture.drawing.mask)


def _write_mvtec(folder: Path, name: str, pictures: Iterable[Picture]) -> None:
    """train/good, test/good, test/DEFECT and ground_truth/DEFECT; all abnormal images are in test."""
    item, used = OBJECTS[name], {}
    for picture in pictures:
        part = "train" if picture.split == "valid" and not picture.abnormal else "test"
        kind = picture.drawing.words["finding"].replace(" ", "_") if picture.abnormal else "good"
        number = used[part, kind] = used.get((part, kind), -1) + 1
        _save(folder / part / kind / f"{number:03d}{item.suffix}", picture.drawing.image)
        if picture.abnormal:
            _save(folder / "ground_truth" / kind / f"{number:03d}_mask.png", picture.drawing.mask)


def _write_visa(folder: Path, name: str, pictures: Iterable[Picture]) -> None:
    """CLASS/Data/{Images,Masks}/{Normal,Anomaly}; split_csv/1cls.csv with paths relative to the folder."""
    rows, used = [], {"Normal": 0, "Anomaly": 0}
    data = Path(name.split("/")[1])
    for picture in pictures:
        kind = "Anomaly" if picture.abnormal else "Normal"
        image, mask = data / "Data/Images" / kind / f"{used[kind]:04d}.JPG", ""
        used[kind] += 1
        _save(folder / image, picture.drawing.image)
        if picture.abnormal:
            mask = data / "Data/Masks" / kind / f"{image.stem}.png"
            _save(folder / mask, picture.drawing.mask)
        part = "train" if picture.split == "valid" and not picture.abnormal else "test"
        rows.append((data, part, kind.lower(), image.as_posix(), mask and mask.as_posix()))
    table = folder / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("object", "split", "label", "image", "mask"))
        writer.writerows(rows)


WRITERS: Mapping[str, Callable[[Path, str, Iterable[Picture]], None]] = {
    "medical": _write_medical,
    "mvtec": _write_mvtec,
    "visa": _write_visa,
}

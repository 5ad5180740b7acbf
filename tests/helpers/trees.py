"""Small trees of images in every layout that is read."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (12, 10), level: int = 90) -> Path:
    """A grey RGB image file of (width, height) with a gradient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, level, size[0] * size[1]).reshape(size[1], size[0], 1).astype(np.uint8)
    Image.fromarray(ramp.repeat(3, axis=2)).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (12, 10), level: int = 255) -> Path:
    """A mask file whose upper left quarter is `level`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size[::-1], np.uint8)
    values[: size[1] // 2, : size[0] // 2] = level
    Image.fromarray(values).save(path)
    return path


def medical(
    root: Path,
    valid: tuple[int, int] = (5, 5),
    test: tuple[int, int] = (4, 3),
    masks: str | None = "anomaly_mask",
) -> Path:
    """ROOT/{valid,test}/{good,Ungood}/img with so many (normal, abnormal) images; masks in folder `masks`."""
    for split, (normal, abnormal) in {"valid": valid, "test": test}.items():
        for i in range(normal):
            picture(root / split / "good" / "img" / f"{split}_n{i}.png")
        for i in range(abnormal):
            picture(root / split / "Ungood" / "img" / f"{split}_a{i}.png")
            if masks:
                mask(root / split / "Ungood" / masks / f"{split}_a{i}.png")
    return root


# BMAD as its authors publish it: object -> the set's folder, its training images, and where its splits keep normal
# images, abnormal ones, their masks, and (black) masks of normal ones. Written out, so that no table checks itself.
BMAD = {
    "Brain": (
        "BraTS2021_slice",
        "train/good/img",
        {
            split: (f"{split}/good/img", f"{split}/Ungood/img", f"{split}/Ungood/label", f"{split}/good/label")
            for split in ("valid", "test")
        },
    ),
    "Liver": (
        "Liver/Train/hist_DIY",
        "train/good",
        {
            split: (f"{split}/img/good", f"{split}/img/Ungood", f"{split}/label/Ungood", f"{split}/label/good")
            for split in ("valid", "test")
        },
    ),
    "Retina_RESC": (
        "RESC",
        "Train/train/good",
        {
            "valid": ("Val/val/good", "Val/val/Ungood", "Val/val_label/Ungood", None),
            "test": ("Test/test/good", "Test/test/Ungood", "Test/test_label/Ungood", None),
        },
    ),
    "Retina_OCT2017": (
        "OCT2017",
        "train/good",
        {"valid": ("val/good", "val/Ungood", None, None), "test": ("test/good", "test/Ungood", None, None)},
    ),
    "Chest": (
        "chest-rsna/Chest-RSNA",
        "train/good",
        {"valid": ("val/good", "val/Ungood", None, None), "test": ("test/good", "test/Ungood", None, None)},
    ),
    "Histopathology": (
        "camelyon16_256",
        "train/good",
        {"valid": ("valid/good", "valid/Ungood", None, None), "test": ("test/good", "test/Ungood", None, None)},
    ),
}


def bmad(data: Path, obj: str, top: str | None = None) -> Path:
    """DATA/TOP as BMAD's authors publish `obj`: 5 + 5 images in valid, 4 + 3 in test, named as in `medical`."""
    published, train, splits = BMAD[obj]
    root = data / (published if top is None else top)
    for i in range(2):
        picture(root / train / f"train_n{i}.png")
    for (split, (normal, abnormal, masks, black)), counts in zip(splits.items(), ((5, 5), (4, 3)), strict=True):
        for i in range(counts[0]):
            picture(root / normal / f"{split}_n{i}.png")
            if black:
                mask(root / black / f"{split}_n{i}.png", level=0)
        for i in range(counts[1]):
            picture(root / abnormal / f"{split}_a{i}.png")
            if masks:
                mask(root / masks / f"{split}_a{i}.png")
    return root


def mirror(folder: Path) -> Path:
    """FOLDER/OBJ/{train,valid,test}/{good,Ungood} of all six sets, as the archive holds them; Chest without `img`."""
    for obj, (*_, splits) in BMAD.items():
        root = medical(folder / obj, masks="label" if splits["test"][2] else None)
        picture(root / "train" / "good" / "train_n0.png")
    for images in [*(folder / "Chest").rglob("img")]:
        for file in images.iterdir():
            file.rename(images.parent / file.name)
        images.rmdir()
    return folder


def mvtec(
    root: Path, good: str = "good", defects: tuple[str, ...] = ("crack", "hole"), suffix: str = "_mask.png"
) -> Path:
    """CLASS/{train,test,ground_truth}: 5 training images, 3 good test images, 3 of every defect."""
    for i in range(5):
        picture(root / "train" / good / f"{i:03d}.png")
    for i in range(3):
        picture(root / "test" / good / f"{i:03d}.png")
        for defect in defects:
            picture(root / "test" / defect / f"{i:03d}.png")
            mask(root / "ground_truth" / defect / f"{i:03d}{suffix}")
    return root


def visa(root: Path, name: str = "candle") -> Path:
    """ROOT/CLASS/Data and ROOT/split_csv/1cls.csv: 4 images to train, 2 good and 3 bad ones to test."""
    rows = []
    for i in range(6):
        file = picture(root / name / "Data" / "Images" / "Normal" / f"{i:04d}.JPG")
        rows.append((name, "train" if i < 4 else "test", "normal", file.relative_to(root).as_posix(), ""))
    for i in range(3):
        file = picture(root / name / "Data" / "Images" / "Anomaly" / f"{i:03d}.JPG")
        drawn = mask(root / name / "Data" / "Masks" / "Anomaly" / f"{i:03d}.png", level=i + 1)
        rows.append((name, "test", "anomaly", file.relative_to(root).as_posix(), drawn.relative_to(root).as_posix()))
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir()
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])
    return root / name

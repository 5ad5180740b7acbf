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

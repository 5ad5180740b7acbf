"""The demonstration benchmark: its trees, its masks and words, and that no simple detector solves it."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import rankdata

from dataset import demo
from runtime.errors import InputError

SEVERITY = {"size": {"small", "medium", "large"}, "contrast": {"faint", "clear"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return demo.ensure(tmp_path_factory.mktemp("demo"))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def split(root: Path, name: str, part: str) -> dict[int, list[Path]]:
    """The images of one split ("train" being what support is drawn from) by label."""
    item = demo.OBJECTS[name]
    folder = root / item.folder
    if item.layout == "medical":
        folder = folder / ("valid" if part == "train" else part)
        return {label: sorted((folder / kind / "img").iterdir()) for label, kind in enumerate(("good", "Ungood"))}
    if item.layout == "mvtec":
        files = sorted((folder / part).glob("*/*"))
        return {label: [file for file in files if (file.parent.name != "good") == label] for label in (0, 1)}
    with (folder / "split_csv" / "1cls.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == part]
    kinds = enumerate(("normal", "anomaly"))
    return {label: [folder / row["image"] for row in rows if row["label"] == kind] for label, kind in kinds}


def mask_of(root: Path, name: str, image: Path) -> Path:
    item = demo.OBJECTS[name]
    if item.layout == "medical":
        return image.parent.parent / "anomaly_mask" / image.name
    if item.layout == "mvtec":
        return root / item.folder / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
    return image.parents[2] / "Masks" / "Anomaly" / f"{image.stem}.png"


def auroc(normal: list[float], abnormal: list[float]) -> float:
    """The chance that an abnormal image scores above a normal one, ties counting half."""
    ranks = rankdata(np.concatenate([normal, abnormal]))[len(normal) :]
    return float((ranks.sum() - len(abnormal) * (len(abnormal) + 1) / 2) / (len(normal) * len(abnormal)))


def test_auroc_by_hand():
    assert auroc([1, 2], [3, 4]) == 1.0
    assert auroc([1, 3], [2, 3]) == 0.625  # of four pairs: 2 > 1, 3 > 1, 3 = 3


@pytest.mark.parametrize("name", demo.OBJECTS)
def test_tree_and_counts(root, name):
    item = demo.OBJECTS[name]
    support, test = split(root, name, "train"), split(root, name, "test")
    industrial = item.layout != "medical"
    assert (len(support[0]), len(support[1])) == (8, 0 if industrial else 8)
    assert (len(test[0]), len(test[1])) == (25, 33 if industrial else 25)
    assert {image.suffix for part in (support, test) for image in part[0] + part[1]} == {
        {"visa/pcb1": ".JPG", "Retina_OCT2017": ".jpeg"}.get(name, ".png")
    }
    assert (root / item.folder / "VERSION").read_text() == f"demo generator {demo.VERSION}, seed 0\n"


def test_no_mask_without_image(root):
    assert not list(root.glob("*_AD/*/good/anomaly_mask"))
    for name in ("Retina_OCT2017", "Chest", "Histopathology"):
        assert not list((root / f"{name}_AD").glob("**/anomaly_mask"))
    for name in ("carpet", "metal_nut"):
        folder = root / "mvtec" / name
        assert names(folder) == ["VERSION", "ground_truth", "test", "train"]
        assert names(folder / "train") == ["good"]
        assert ["good", *names(folder / "ground_truth")] == sorted(names(folder / "test"), key="good".__ne__)
    with (root / "visa" / "split_csv" / "1cls.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["object", "split", "label", "image", "mask"]
    assert all((row["mask"] != "") == (row["label"] == "anomaly") for row in rows)
    assert len(list((root / "visa" / "pcb1" / "Data" / "Masks").glob("*/*"))) == 33


@pytest.mark.parametrize("name", [name for name, item in demo.OBJECTS.items() if item.masks])
def test_masks(root, name):
    for image in split(root, name, "train")[1] + split(root, name, "test")[1]:
        mask = Image.open(mask_of(root, name, image))
        levels = np.asarray(mask)
        assert mask.size == Image.open(image).size, image
        assert set(np.unique(levels)) == {0, 255}, image  # neither empty nor everywhere
        assert 30 < (levels > 0).sum() < 0.4 * levels.size, image


@pytest.mark.parametrize("statistic", [np.mean, np.max])
@pytest.mark.parametrize("name", demo.OBJECTS)
def test_intensity_alone_tells_nothing(root, name, statistic):
    scores = {
        label: [float(statistic(np.asarray(Image.open(file).convert("L")))) for file in files]
        for label, files in split(root, name, "test").items()
    }
    area = auroc(scores[0], scores[1])
    assert max(area, 1 - area) < 0.70, f"{name}: AUROC {area:.3f}"


@pytest.mark.parametrize("name", demo.OBJECTS)
def test_drawings(name):
    places = set()
    for index in range(4):
        normal = demo.draw_object(name, np.random.default_rng([5, index]), False)
        assert normal.words == {} and not normal.mask.any()
        drawing = demo.draw_object(name, np.random.default_rng([6, index]), True)
        assert drawing.image.dtype == np.uint8 and drawing.mask.dtype == bool
        assert drawing.mask.shape == drawing.image.shape[:2] == normal.image.shape[:2]
        assert drawing.mask.any()
        assert set(drawing.words) == {"finding", "place", "size", "contrast"}
        assert drawing.words["finding"] and drawing.words["place"]
        assert all(drawing.words[key] in known for key, known in SEVERITY.items())
        places.add(tuple(np.argwhere(drawing.mask).mean(0).round()))
    assert len(places) == 4  # no two drawings are alike


@pytest.mark.parametrize("name", ["Brain", "mvtec/metal_nut", "visa/pcb1"])
def test_deterministic(root, tmp_path, name, monkeypatch):
    """Few of the same pictures, drawn again alone, have the same bytes; another seed gives others."""
    monkeypatch.setattr(demo, "VALID", 2)
    monkeypatch.setattr(demo, "TEST", 0)
    demo.generate(tmp_path / "again", names=[name])
    demo.generate(tmp_path / "other", seed=1, names=[name])
    pictures = [file for file in (tmp_path / "again").rglob("*.*") if file.suffix != ".csv"]
    assert len(pictures) == 6  # two normal, two abnormal, their masks
    others = {file.read_bytes() for file in (tmp_path / "other").rglob("*.*")}
    for file in pictures:
        assert file.read_bytes() == (root / file.relative_to(tmp_path / "again")).read_bytes(), file
        assert file.read_bytes() not in others, file


def test_ensure_draws_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "VALID", 1)
    monkeypatch.setattr(demo, "TEST", 1)
    wanted = ["mvtec/metal_nut", "visa/pcb1"]
    drawn = []
    generate = demo.generate
    monkeypatch.setattr(demo, "generate", lambda *args: (drawn.append(list(args[2])), generate(*args)))
    assert demo.ensure(tmp_path, names=wanted[:1]) == tmp_path
    demo.ensure(tmp_path, names=wanted)
    demo.ensure(tmp_path, names=wanted)
    demo.ensure(tmp_path, seed=3, names=wanted[1:])
    monkeypatch.setattr(demo, "VERSION", 99)
    demo.ensure(tmp_path, names=wanted[:1])
    assert drawn == [wanted[:1], wanted[1:], wanted[1:], wanted[:1]]
    assert not list(tmp_path.rglob(".*"))


def test_nothing_half_written(tmp_path, monkeypatch):
    def broken(rng, abnormal):
        if abnormal:
            raise RuntimeError("interrupted")
        return demo_object.draw(rng, abnormal)

    demo_object = demo.OBJECTS["Brain"]
    monkeypatch.setitem(demo.OBJECTS, "Brain", demo.DemoObject(broken, "medical", "Brain_AD"))
    with pytest.raises(RuntimeError, match="interrupted"):
        demo.generate(tmp_path, names=["Brain"])
    assert list(tmp_path.iterdir()) == []


def test_faults(tmp_path):
    with pytest.raises(InputError, match="no object 'Knee'"):
        demo.generate(tmp_path, names=["Knee"])
    with pytest.raises(InputError, match="0 or more"):
        demo.generate(tmp_path, seed=-1)
    (tmp_path / "Brain_AD").mkdir()
    (tmp_path / "Brain_AD" / "mine.txt").write_text("real data")
    with pytest.raises(InputError, match="not written by the demo generator"):
        demo.ensure(tmp_path, names=["Brain"])
    assert names(tmp_path / "Brain_AD") == ["mine.txt"]

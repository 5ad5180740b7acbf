"""The converter of the solar cells: what is kept, the split, the tree, and that it is whole or not there."""

import builtins
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import dataset
from dataset import registry, solar
from errors import InputError


@pytest.fixture(scope="module")
def cells():
    return solar.read_cells()


@pytest.fixture(scope="module")
def few_cells(cells):
    images, probabilities, kinds = cells
    return images[:240], probabilities[:240], kinds[:240]


def test_the_split_of_the_whole_set(cells):
    files = solar.plan(cells[1], cells[2])
    counts = Counter(name.rsplit("/", 2)[0] for _, name in files)
    assert counts == {"valid/good": 151, "valid/Ungood": 73, "test/good": 1357, "test/Ungood": 642}
    info = registry.MEDICAL["Solar"]
    assert info.valid == 151 + 73 and info.test == 1357 + 642
    assert len({index for index, _ in files}) == len({name for _, name in files}) == len(files)
    assert files == solar.plan(cells[1], cells[2])
    for index, name in files[::100]:
        assert name.endswith(f"{index + 1:04d}_{cells[2][index]}.png")
        assert cells[1][index] == (0 if "/good/" in name else 1)


def test_doubtful_cells_are_left_out():
    files = solar.plan(np.array([0, 1 / 3, 2 / 3, 1]), np.array(["mono", "poly", "mono", "poly"]))
    assert files == [(0, "valid/good/img/0001_mono.png"), (3, "valid/Ungood/img/0004_poly.png")]


def test_convert_and_open(tmp_path, few_cells):
    folder = solar.convert(tmp_path / "data", few_cells)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["Solar_AD"]
    few = dataset.open_few("Solar", tmp_path / "data", 2)
    assert few.info.classname == "solar cell" and few.info.masks is False
    assert len(few.test) == sum("test/" in name for _, name in solar.plan(*few_cells[1:]))
    image = few.test[0].image
    original = few_cells[0][int(image.name.split("_")[0]) - 1]
    assert (np.asarray(Image.open(image)) == original).all()
    assert "valid:" in solar.summary(folder)
    before = image.stat().st_mtime_ns
    assert solar.convert(tmp_path / "data", few_cells) == folder and image.stat().st_mtime_ns == before


def test_nothing_is_left_half_written(tmp_path, few_cells, monkeypatch):
    written = []

    def save(self, file, **_):
        written.append(file)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        solar.convert(tmp_path, few_cells)
    assert len(written) == 3 and not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("elpv_dataset"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="pip install elpv-dataset"):
        solar.convert(tmp_path)


def test_the_command_prints_counts(tmp_path, few_cells):
    solar.convert(tmp_path, few_cells)
    run = subprocess.run(
        [sys.executable, "-m", "dataset.solar", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and run.stderr == ""
    assert "test:" in run.stdout

"""The solar cells as a set: what is kept, the split, the tree, and that a stopped conversion goes on."""

import builtins
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import dataset
from dataset import registry
from dataset.convert import elpv
from dataset.convert.writer import RECORD
from runtime.errors import InputError


@pytest.fixture(scope="module")
def cells():
    return elpv.read_cells()


@pytest.fixture(scope="module")
def few_cells(cells):
    images, probabilities, kinds = cells
    return images[:240], probabilities[:240], kinds[:240]


def test_the_split_of_the_whole_set(cells):
    files = elpv.plan(cells[1], cells[2])
    counts = Counter(name.rsplit("/", 2)[0] for _, name in files)
    assert counts == {"valid/good": 151, "valid/Ungood": 73, "test/good": 1357, "test/Ungood": 642}
    info = registry.MEDICAL["Solar"]
    assert info.valid == 151 + 73 and info.test == 1357 + 642
    assert len({index for index, _ in files}) == len({name for _, name in files}) == len(files)
    assert files == elpv.plan(cells[1], cells[2])
    for index, name in files[::100]:
        assert name.endswith(f"{index + 1:04d}_{cells[2][index]}.png")
        assert cells[1][index] == (0 if "/good/" in name else 1)


def test_doubtful_cells_are_left_out():
    files = elpv.plan(np.array([0, 1 / 3, 2 / 3, 1]), np.array(["mono", "poly", "mono", "poly"]))
    assert files == [(0, "valid/good/img/0001_mono.png"), (3, "valid/Ungood/img/0004_poly.png")]


def test_convert_and_open(tmp_path, few_cells, capsys):
    folder = elpv.convert(tmp_path / "data", few_cells)
    out = capsys.readouterr().out
    assert "is there already" not in out and f"{folder}:" in out and "valid: " in out
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["Solar_AD"]
    few = dataset.open_few("Solar", tmp_path / "data", 2)
    assert few.info.classname == "solar cell" and few.info.masks is False
    assert len(few.test) == sum("test/" in name for _, name in elpv.plan(*few_cells[1:]))
    image = few.test[0].image
    original = few_cells[0][int(image.name.split("_")[0]) - 1]
    assert (np.asarray(Image.open(image)) == original).all()
    before = image.stat().st_mtime_ns
    assert elpv.convert(tmp_path / "data") == folder and image.stat().st_mtime_ns == before
    assert "is there already" in capsys.readouterr().out


def test_a_set_from_before_there_were_records_is_kept(tmp_path, few_cells):
    folder = elpv.convert(tmp_path, few_cells)
    (folder / RECORD).unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert elpv.convert(tmp_path, few_cells) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def test_a_stopped_conversion_goes_on(tmp_path, few_cells, monkeypatch):
    save, written = Image.Image.save, []

    def stop(self, file, **options):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(file)
        save(self, file, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", stop)
        elpv.convert(tmp_path, few_cells)
    assert [path.name for path in tmp_path.iterdir()] == [".Solar_AD.part"]
    with pytest.raises(InputError, match="no folder"):
        dataset.open_few("Solar", tmp_path, 2)
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert len(done) == 3
    folder = elpv.convert(tmp_path, few_cells)
    assert [path.name for path in tmp_path.iterdir()] == ["Solar_AD"]
    files = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert len(files) == len(elpv.plan(*few_cells[1:]))
    assert {name: files[name] for name in done} == done


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("elpv_dataset"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="pip install elpv-dataset"):
        elpv.convert(tmp_path)


@pytest.mark.parametrize("command", [("dataset.convert", "elpv"), ("dataset.solar",)])
def test_the_commands_print_counts(tmp_path, few_cells, command):
    elpv.convert(tmp_path, few_cells)
    run = subprocess.run(
        [sys.executable, "-m", *command, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and run.stderr == ""
    assert "test: " in run.stdout

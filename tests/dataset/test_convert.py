"""What all converters share: sets that are whole or not there, tables, and names made of paths."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from helpers.flat_names import path_of

from dataset.convert import writer
from dataset.convert.names import flat_name, inside
from dataset.convert.table import read_table
from dataset.convert.writer import File, make
from runtime.errors import InputError


def texts(names: str, log: list[str] | None = None, stop: int = 99) -> list[File]:
    """Files that hold their own name; writing the one after `stop` is interrupted in the middle."""
    log = [] if log is None else log

    def put(name: str, path: Path) -> None:
        path.write_text(name[:1])
        if len(log) == stop:
            raise KeyboardInterrupt
        log.append(name)
        path.write_text(name)

    return [File(f"test/{name}", name, partial(put, name)) for name in names.split()]


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "test").iterdir()}


def test_a_set_is_whole_or_not_there(tmp_path, capsys):
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set", texts("aa bb cc dd", log, stop=2))
    draft = tmp_path / ".set.part"
    assert list(tmp_path.iterdir()) == [draft] and content(draft) == {"aa": "aa", "bb": "bb"}
    (draft / "test" / ".cc-0123abcd").write_text("left by a kill")
    make(tmp_path / "set", texts("aa bb cc dd", log))
    assert log == ["aa", "bb", "cc", "dd"]  # nothing written twice
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]
    assert content(tmp_path / "set") == {name: name for name in log}
    assert "going on: 2 of 4 files" in capsys.readouterr().out
    make(tmp_path / "set", texts("aa bb cc dd", log))
    assert len(log) == 4 and "set is there already" in capsys.readouterr().out


def test_what_is_there_is_never_destroyed(tmp_path):
    def fault(names: str) -> str:
        before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(InputError) as caught:
            make(tmp_path / "set", texts(names))
        assert before == {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
        return str(caught.value)

    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    assert "was not made by this command" in fault("aa")
    (tmp_path / "set" / "mine.txt").unlink()
    (tmp_path / "set").rmdir()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set", texts("aa bb", stop=1))
    assert "left by a stopped conversion of other files" in fault("aa cc")
    (tmp_path / ".set.part").rename(tmp_path / "set")
    assert "was not made by this command" in fault("aa bb")  # unfinished, whatever its name
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    make(tmp_path / "set", texts("aa bb"))
    assert "was made of other files or options" in fault("aa cc")
    (tmp_path / "set" / "test" / "bb").unlink()
    assert "has lost test/bb" in fault("aa bb")
    (tmp_path / "set" / writer.RECORD).write_text("{}")
    assert f"{writer.RECORD} can't be read" in fault("aa bb")
    (tmp_path / "set").rename(tmp_path / ".set.part")
    (tmp_path / ".set.part" / writer.RECORD).unlink()
    assert "is not what a stopped conversion leaves" in fault("aa bb")


def test_nothing_is_begun_when_the_check_fails(tmp_path):
    def check() -> None:
        raise InputError("no")

    with pytest.raises(InputError):
        make(tmp_path / "out" / "set", texts("aa"), check)
    assert not list(tmp_path.iterdir())


def rows(path: Path, text: str | bytes, *optional: str) -> list[tuple[int, dict[str, str]]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_table(path, ("path", "label"), optional))


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,1\n\nb c.png,0\n",
        "\ufeffpath,label\r\na.png,1\r\n,\r\nb c.png,0",
        'Label;Note;"PATH"\n1;"x;\ty";a.png\n\n 0 ;; b c.png \n',
        "path\tlabel\na.png\t1\n\nb c.png\t0\n",
    ],
)
def test_tables_as_programs_write_them(tmp_path, text):
    first, second = {"path": "a.png", "label": "1"}, {"path": "b c.png", "label": "0"}
    assert rows(tmp_path / "t.csv", text, "split") == [(2, first), (4, second)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column path: its first line must name path, label"),
        ("path,kind\na,1\n", "has no column label"),
        ("path,label,Label\na,1,1\n", "has two columns label"),
        ("path,label\na,1\nb\n", "line 3 has 1 values for 2 columns"),
        ("path,label\na,b,1\n", "line 2 has 3 values for 2 columns"),
        ('path,label\n"a"b,1\n', "line 2 is no csv"),
        ('path,label\n"a,1\nb,1\n', "is no csv (unexpected end of data)"),
        (b"path,label\na,1\n\xe4,0\n", "line 3 is not UTF-8"),
        ("path,label\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("path,label\n" + "a" * 200_000 + ",1\n", "line 2 is no csv (field larger than field limit"),
    ],
)
def test_faults_of_a_table(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        rows(tmp_path / "t.csv", text)
    assert f"{tmp_path / 't.csv'}" in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_table(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="no file"):
            list(read_table(path, ()))


PATHS = [
    *("a.png", "x/a.png", "x_a.png", "x__a.png", "x_/a.png", "x/_a.png", "x___a.png", "x/_/a.png", "x_/_a.png"),
    *("x%5F/a.png", "x%2F_a.png", "%/a.png", ".x/a.png", "x/.a.png", "cam 1/ö,a.png", "_/__/___.png"),
]


def test_names_of_paths():
    assert flat_name("cam_1/part/0001.png") == "cam_1__part__0001.png"
    assert len({flat_name(path) for path in PATHS}) == len(PATHS)
    for path in PATHS:
        name = flat_name(path)
        assert path_of(name) == path and "/" not in name and not name.startswith(".") and name.endswith(".png")


def test_paths_inside(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("a.png", "x/a.png"):
        (tmp_path / name).touch()
    for text, path in (("a.png", "a.png"), (r"x\a.png", "x/a.png"), ("./x/../a.png", "a.png"), ("x//a.png", "x/a.png")):
        assert inside(text, tmp_path, "t.csv, line 2") == path
    for text, message in (
        (f"{tmp_path}/a.png", "is an absolute path"),
        (r"C:\a.png", "is an absolute path"),
        ("../a.png", "leads out of"),
        ("x/../../a.png", "leads out of"),
        ("b.png", "no file"),
        ("x", "no file"),
        ("", "is no path"),
        ("a\n.png", "is no path"),
        ("a\0.png", "is no path"),
        ("y/" * 90 + "a.png", "too long"),
        ("ö" * 120 + ".png", "too long"),
    ):
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            inside(text, tmp_path, "t.csv, line 2")
        assert str(caught.value).startswith("t.csv, line 2: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [[], ["nonsense"], ["folders", "--source", "x"], ["elpv", "--source", "x"]])
def test_a_wrong_command_is_one_line(words):
    run = subprocess.run([sys.executable, "-m", "dataset.convert", *words], capture_output=True, text=True, check=False)
    assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1

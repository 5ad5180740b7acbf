"""The shared medical sets: fetched from a server on this machine, resumed, unpacked within bounds, checked."""

import gzip
import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import trees
from helpers.file_server import FileServer, send, serving
from helpers.lab import files, paint

from dataset.download import __main__ as download
from dataset.download import archive
from dataset.download.archive import unpack
from runtime.errors import InputError, exit_code

Change = Callable[[tarfile.TarFile], None]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving(monkeypatch) as running:
        yield running


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    """`said` may set it."""
    monkeypatch.setattr(sys, "argv", [])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder for --data_path, empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def packed(root: Path, file: Path, top: str = "Brain_AD") -> Path:
    """A set in the medical layout as FILE, its files below `top`."""
    tree = paint(trees.medical(root / "tree"))
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tree, top or ".")
    return file


def said(*flags: object) -> int:
    sys.argv = ["dataset.download", *map(str, flags)]
    return exit_code(download.main)


@pytest.mark.parametrize("top", ["Brain_AD", "Brain", "", "home/someone/brain_preprocessed"])
def test_the_top_folder_is_put_right(tmp_path, data, capsys, top):
    file = packed(tmp_path, tmp_path / "fetched.tar.gz", top)
    assert said("Brain", "--archive", file, "--data_path", data) == 0
    assert [path.name for path in data.iterdir()] == ["Brain_AD"] and file.is_file()
    assert files(data / "Brain_AD") == files(tmp_path / "tree")
    out = capsys.readouterr().out
    assert "valid 5 normal + 5 abnormal (10 of the benchmark's 83)" in out and "dataset.check" in out
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert said("Brain", "--archive", file, "--data_path", data) == 0
    assert "is there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


@pytest.mark.parametrize("keep", [False, True])
def test_fetched_with_gdown(tmp_path, data, server, monkeypatch, keep):
    body = packed(tmp_path, tmp_path / "Brain.tar.gz").read_bytes()
    server.url("/file", lambda request: send(request, body, Content_Disposition='attachment; filename="x.tar.gz"'))
    monkeypatch.setattr(download, "ADDRESS", f"http://127.0.0.1:{server.server_port}/file")
    assert said("Brain", "--data_path", data, *["--keep"] * keep) == 0
    assert {path.name for path in data.iterdir()} == {"Brain_AD"} | ({"Brain.tar.gz"} if keep else set())
    if keep:
        assert (data / "Brain.tar.gz").read_bytes() == body


def test_a_cut_download_goes_on(tmp_path, data, server, monkeypatch, capsys):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/NOTES").write_bytes(os.urandom(3 << 20))  # gdown keeps pieces of 512 KiB
    body = packed(tmp_path, tmp_path / "Brain.tar.gz").read_bytes()

    def cut_once(request) -> None:
        start = request.headers.get("Range")
        if start is None:
            send(request, body[: len(body) // 2], length=len(body))
            request.close_connection = True
            return
        first = int(start.removeprefix("bytes=").rstrip("-"))
        span = f"bytes {first}-{len(body) - 1}/{len(body)}"
        send(request, body[first:], status=206, Content_Range=span)

    monkeypatch.setattr(download, "ADDRESS", server.url("/file", cut_once))
    assert said("Brain", "--data_path", data) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: Brain.tar.gz could not be fetched") and "run again to go on" in line
    assert not (data / "Brain_AD").exists() and not (data / "Brain.tar.gz").exists()
    assert said("Brain", "--data_path", data) == 0
    assert any(asked for asked in server.ranges) and [path.name for path in data.iterdir()] == ["Brain_AD"]


def test_no_network_is_one_line_with_the_address_and_the_folder(data, monkeypatch, capsys):
    monkeypatch.setattr(download, "ADDRESS", "http://127.0.0.1:9/uc?id={}")
    assert said("Brain", "--data_path", data) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"open http://127.0.0.1:9/uc?id={download.SETS['Brain'].id} in a browser" in line
    assert f"put the file into {data} as Brain.tar.gz" in line


def test_a_file_put_there_by_hand_is_taken_and_stays(tmp_path, data, monkeypatch):
    packed(tmp_path, data / "Brain.tar.gz")
    monkeypatch.setattr(download, "ADDRESS", "http://127.0.0.1:9/{}")
    assert said("Brain", "--data_path", data) == 0
    assert {path.name for path in data.iterdir()} == {"Brain_AD", "Brain.tar.gz"}


def test_gdown_missing(data, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gdown", None)
    assert said("Brain", "--data_path", data) == 2
    assert "pip install -r requirements/download.txt" in capsys.readouterr().err


def test_a_set_with_a_fault_is_named(tmp_path, data, capsys):
    file = packed(tmp_path, tmp_path / "a.tar.gz")
    (tmp_path / "tree/test/Ungood/anomaly_mask/test_a1.png").unlink()
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tmp_path / "tree", "Brain_AD")
    assert said("Brain", "--archive", file, "--data_path", data) == 2
    assert "test_a1.png has no mask" in capsys.readouterr().err


def test_the_ids_are_those_that_are_shared():
    assert len(download.SETS) == len({shared.id for shared in download.SETS.values()}) == 6
    assert all(len(shared.id) == 33 and shared.archive.startswith(obj) for obj, shared in download.SETS.items())


# Hostile and broken archives


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"x", **fields: object) -> Change:
    """What adds one member to an archive."""

    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
        for field, value in fields.items():
            setattr(info, field, value)
        tar.addfile(info, io.BytesIO(content))

    return add


def twice(tar: tarfile.TarFile) -> None:
    member("Brain_AD/a.png")(tar)
    member("Brain_AD/a.png", content=b"other")(tar)


def through_a_link(tar: tarfile.TarFile) -> None:
    member("Brain_AD/out", tarfile.SYMTYPE, linkname="../..")(tar)
    member("Brain_AD/out/evil.txt")(tar)


HOSTILE: dict[str, tuple[Change, str]] = {
    "parent folder": (member("Brain_AD/../../evil.txt"), "not safe"),
    "absolute": (member("/tmp/evil-of-a-test.txt"), "not safe"),
    "drive": (member("C:/evil.txt"), "not safe"),
    "backslashes": (member("..\\evil.txt"), "not safe"),
    "line break in a name": (member("a\nb.png"), "not safe"),
    "name of a device": (member("Brain_AD/NUL.png"), "not safe"),
    "deep": (member("/".join("a" * 50)), "not safe"),
    "symlink": (member("Brain_AD/a", tarfile.SYMTYPE, linkname="/etc/passwd"), "link or a device"),
    "file through a symlink": (through_a_link, "link or a device"),
    "hardlink": (member("Brain_AD/a", tarfile.LNKTYPE, linkname="../../evil"), "link or a device"),
    "character device": (member("Brain_AD/a", tarfile.CHRTYPE, devmajor=1, devminor=5), "link or a device"),
    "block device": (member("Brain_AD/a", tarfile.BLKTYPE), "link or a device"),
    "pipe": (member("Brain_AD/a", tarfile.FIFOTYPE), "link or a device"),
    "the same name twice": (twice, "twice"),
    "a file as a folder": (lambda tar: (member("a")(tar), member("a/b")(tar)), "twice"),
    "nothing": (lambda tar: None, "is empty"),
    "no set": (member("notes/readme.txt"), "no folders valid and test, but notes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path, data, case):
    change, words = HOSTILE[case]
    file = tmp_path / "hostile.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        change(tar)
    refused(file, data, words)


def refused(file: Path, data: Path, words: str) -> None:
    """The archive is not unpacked, one line says why, and nothing is left or made anywhere."""
    before = files(data.parent)
    with pytest.raises(InputError, match=words) as stopped:
        download.install("Brain", file, data)
    assert str(file) in str(stopped.value) and "\n" not in str(stopped.value)
    assert files(data.parent) == before and not any(data.iterdir())
    assert not Path("/tmp/evil-of-a-test.txt").exists()


def test_bombs(tmp_path, data, monkeypatch):
    bomb = tmp_path / "bomb.tar.gz"
    with tarfile.open(bomb, "w:gz") as tar:
        member("Brain_AD/zeros.png", content=bytes(5 << 20))(tar)
    assert bomb.stat().st_size < 20_000
    monkeypatch.setattr(archive, "MAX_BYTES", 4 << 20)
    refused(bomb, data, "more than")
    monkeypatch.setattr(archive, "MAX_FILES", 10)
    with tarfile.open(bomb, "w:gz") as tar:
        for number in range(11):
            member(f"Brain_AD/{number}.png")(tar)
    refused(bomb, data, "more than 10 files")
    with bomb.open("wb") as file, gzip.open(file, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w:") as tar:
        member("Brain_AD/a.png")(tar)
    monkeypatch.setattr(archive, "MAX_TAIL", 1 << 20)
    bomb.write_bytes(gzip.compress(gzip.decompress(bomb.read_bytes()) + bytes(4 << 20)))
    refused(bomb, data, "goes on after its last file")


def test_a_header_that_claims_gigabytes(tmp_path, data):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    file = tmp_path / "header.tar.gz"
    file.write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))
    refused(file, data, "a header of 3221225472 bytes")


def test_cut_and_damaged_archives(tmp_path, data):
    whole = packed(tmp_path, tmp_path / "whole.tar.gz").read_bytes()
    plain = gzip.decompress(whole)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        header = tar.getmembers()[-2].offset
    wrong = plain[:header] + b"U" * tarfile.BLOCKSIZE + plain[header + tarfile.BLOCKSIZE :]
    cases = {
        "half": whole[: len(whole) // 2],
        "without its checksum": whole[:-8],
        "with a wrong checksum": whole[:-8] + bytes(4) + whole[-4:],
        "no archive": b"<html>quota exceeded</html>" * 100,
        "empty": b"",
        "plain, cut between files": plain[:header],
        "garbage inside": gzip.compress(wrong),
    }
    for name, content in cases.items():
        file = tmp_path / "broken.tar.gz"
        file.write_bytes(content)
        refused(file, data, "cut, damaged or no tar archive")
        assert name


def test_plain_tar_and_modes(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member("./set/a.png", content=b"abc", mode=0o4777, uid=12345)(tar)
    assert unpack(tmp_path / "a.tar", tmp_path / "out") == 1
    found = tmp_path / "out/set/a.png"
    assert found.read_bytes() == b"abc" and not found.stat().st_mode & 0o7111

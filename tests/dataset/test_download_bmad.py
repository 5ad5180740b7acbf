"""BMAD's archive: fetched from a server on this machine, resumed, checked, unpacked within bounds, nothing lost."""

import hashlib
import io
import os
import shutil
import stat
import struct
import sys
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import trees
from helpers.file_server import FileServer, send, serving
from helpers.lab import files, paint

from dataset.download import __main__ as download
from dataset.download import archive
from dataset.download.archive import unpack_zip
from runtime.errors import InputError, exit_code

Change = Callable[[zipfile.ZipFile], None]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving(monkeypatch) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder for --data_path, empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The six sets as the archive holds them."""
    tree = paint(trees.mirror(tmp_path_factory.mktemp("mirror")))
    return zipped(tree)


def zipped(tree: Path, top: str = "") -> bytes:
    """A folder as a zip archive, its files below `top`."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(tree.rglob("*")):
            target.write(path, Path(top, path.relative_to(tree)))
    return held.getvalue()


def said(*flags: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dataset.download", "bmad", *map(str, flags)])
        return exit_code(download.main)


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# Fetched


def test_fetched_unpacked_and_checked(data, server, monkeypatch, body, capsys):
    monkeypatch.setattr(download, "MIRROR", server.url("/bmad.zip", lambda request: send(request, body)))
    monkeypatch.setattr(download, "MIRROR_SHA256", hashlib.sha256(body).hexdigest())
    assert said("--data_path", data) == 0
    assert [path.name for path in data.iterdir()] == ["bmad"]
    assert {path.name for path in (data / "bmad").iterdir()} == set(trees.BMAD)
    out = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in out
    for published in (3715, 1493, 1805, 968, 17194, 1997):
        assert f"test 4 normal + 3 abnormal (7 of the benchmark's {published})" in out
    before = stamps(data)
    assert said("--data_path", data) == 0
    assert capsys.readouterr().out.count("is there already and is kept") == 6
    assert stamps(data) == before and len(server.ranges) == 1


def test_a_cut_download_goes_on(data, server, monkeypatch, body, capsys):
    half = len(body) // 2

    def ranged(request) -> None:
        first = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if first == 0:
            send(request, body[:half], length=len(body))
        elif cut:
            send(request, b"", 503)
        else:
            span = f"bytes {first}-{len(body) - 1}/{len(body)}"
            send(request, body[first:], 206, Content_Range=span)

    cut = True
    monkeypatch.setattr(download, "MIRROR", server.url("/bmad.zip", ranged))
    monkeypatch.setattr(download, "MIRROR_SHA256", hashlib.sha256(body).hexdigest())
    assert said("--data_path", data) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"put {download.MIRROR} into {data} as bmad.zip and run this again" in line and "--demo" not in line
    assert {path.name: path.stat().st_size for path in data.iterdir()} == {"bmad.zip.part": half}
    cut = False
    assert said("--data_path", data, "--keep") == 0
    assert server.ranges[-1] == f"bytes={half}-"
    assert {path.name for path in data.iterdir()} == {"bmad", "bmad.zip"} and (data / "bmad.zip").read_bytes() == body


def test_other_bytes_than_published(data, server, monkeypatch, body, capsys):
    monkeypatch.setattr(download, "MIRROR", server.url("/bmad.zip", lambda request: send(request, body)))
    assert said("--data_path", data) == 2
    assert "gave other bytes than those published" in capsys.readouterr().err and not any(data.iterdir())


def test_the_address_and_the_digest_are_those_of_the_mirror():
    assert download.MIRROR.startswith("https://") and download.MIRROR.endswith("/bmad.zip")
    assert len(bytes.fromhex(download.MIRROR_SHA256)) == 32


# By hand


@pytest.mark.parametrize("top", ["", "bmad", "BMAD", "home/someone/bmad"])
def test_an_archive_fetched_by_hand(tmp_path, data, capsys, top):
    tree = paint(trees.mirror(tmp_path / "tree"))
    file = tmp_path / "fetched.zip"
    file.write_bytes(zipped(tree, top))
    assert said("--archive", file, "--data_path", data) == 0
    assert files(data / "bmad") == files(tree) and file.is_file()
    assert "another sha256" in capsys.readouterr().out


def test_the_authors_own_trees_in_one_archive(tmp_path, data):
    for obj in trees.BMAD:
        paint(trees.bmad(tmp_path / "tree", obj))
    file = tmp_path / "authors.zip"
    file.write_bytes(zipped(tmp_path / "tree"))
    assert said("--archive", file, "--data_path", data) == 0
    assert {path.name for path in (data / "bmad").iterdir()} == set(trees.BMAD)


def test_what_is_there_is_kept(tmp_path, data, body, capsys):
    """A set as MVFA-AD's authors share it, one of BMAD's under another name, and a file of the user's."""
    paint(trees.medical(data / "Brain_AD"))
    paint(trees.medical(data / "BMAD/Liver"))
    (data / "BMAD/notes.txt").write_text("mine")
    before = stamps(data / "Brain_AD") | stamps(data / "BMAD/Liver")
    (data / "bmad.zip").write_bytes(body)
    assert said("--data_path", data) == 0
    assert stamps(data / "Brain_AD") | stamps(data / "BMAD/Liver") == before
    assert {path.name for path in (data / "BMAD").iterdir()} == {"notes.txt", *trees.BMAD} - {"Brain"}
    assert {path.name for path in data.iterdir()} == {"Brain_AD", "BMAD", "bmad.zip"}
    assert capsys.readouterr().out.count("is there already and is kept") == 2


def test_a_folder_in_the_way_is_not_touched(data, body, capsys):
    (data / "bmad/Liver").mkdir(parents=True)
    (data / "bmad/Liver/notes.txt").write_text("mine")
    (data / "bmad.zip").write_bytes(body)
    assert said("--data_path", data) == 2
    assert "bmad/Liver is there but holds no set" in capsys.readouterr().err
    assert files(data) == {"bmad.zip", "bmad/Liver/notes.txt"}


@pytest.mark.parametrize("name", ["bmad/liver", "bmad"])
def test_what_is_in_the_way_is_seen_before_anything_is_fetched(data, name, capsys):
    data.mkdir(exist_ok=True)
    if name == "bmad":
        (data / name).write_text("mine")
    else:
        (data / name).mkdir(parents=True)
    assert said("--data_path", data) == 2
    assert f"{name} is" in capsys.readouterr().err and not (data / "bmad.zip").exists()


def test_every_set_with_a_fault_is_counted(tmp_path, data, capsys):
    tree = paint(trees.mirror(tmp_path / "tree"))
    for obj in ("Brain", "Liver"):
        (tree / obj / "test/Ungood/label/test_a1.png").unlink()
    shutil.rmtree(tree / "Chest")
    (data / "bmad.zip").write_bytes(zipped(tree))
    assert said("--data_path", data) == 2
    printed = capsys.readouterr()
    assert "Brain/test/Ungood/img/test_a1.png has no mask" in printed.err and "(and 1 more sets)" in printed.err
    assert "Histopathology: valid 5 normal" in printed.out and "not in the archive: Chest" in printed.out


def test_no_file(tmp_path, data, capsys):
    assert said("--archive", tmp_path / "none.zip", "--data_path", data) == 2
    assert "no file" in capsys.readouterr().err


# Hostile and broken archives


def member(name: str, content: bytes = b"x", mode: int = 0, system: int = 3) -> Change:
    """What adds one member to an archive."""

    def add(target: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.create_system = mode << 16, system
        info.compress_type = zipfile.ZIP_DEFLATED
        target.writestr(info, content)

    return add


def both(one: Change, other: Change) -> Change:
    return lambda target: (one(target), other(target))


def packed_as(kind: int) -> Change:
    return lambda target: target.writestr("Brain/a.png", b"x" * 100, kind)


HOSTILE: dict[str, tuple[Change, str]] = {
    "parent folder": (member("Brain/../../evil.txt"), "not safe"),
    "absolute": (member("/tmp/evil-of-a-test.txt"), "not safe"),
    "drive": (member("C:/evil.txt"), "not safe"),
    "backslashes": (member("..\\evil.txt"), "not safe"),
    "line break in a name": (member("a\nb.png"), "not safe"),
    "name of a device": (member("Brain/NUL.png"), "not safe"),
    "deep": (member("/".join("a" * 50)), "not safe"),
    "in a set that is there": (member("Brain/../../evil.txt"), "not safe"),
    "symlink": (member("Brain/a", b"/etc/passwd", stat.S_IFLNK | 0o777), "link or a device"),
    "character device": (member("Brain/a", mode=stat.S_IFCHR | 0o666), "link or a device"),
    "pipe": (member("Brain/a", mode=stat.S_IFIFO | 0o666), "link or a device"),
    "symlink told as another system's": (member("Brain/a", mode=stat.S_IFLNK, system=0), "link or a device"),
    "the same name twice": (both(member("Brain/a.png"), member("Brain/a.png", b"other")), "twice"),
    "a file as a folder": (both(member("a"), member("a/b")), "twice"),
    "nothing": (lambda target: None, "is empty"),
    "no set": (member("notes/readme.txt"), "holds none of Brain, Liver"),
    "bzip2": (packed_as(zipfile.ZIP_BZIP2), "unusual way"),
    "lzma": (packed_as(zipfile.ZIP_LZMA), "unusual way"),
    "bomb": (member("Brain/zeros.png", bytes(5 << 20)), "zip bomb"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path, data, case):
    change, words = HOSTILE[case]
    file = tmp_path / "hostile.zip"
    with zipfile.ZipFile(file, "w") as target:
        change(target)
    refused(file, data, words)


def refused(file: Path, data: Path, words: str) -> None:
    """The archive is not unpacked, one line says why, and nothing is left or made anywhere."""
    before = files(data.parent)
    with pytest.raises(InputError, match=words) as stopped:
        download.install_bmad(file, data / "bmad", list(trees.BMAD))
    assert str(file) in str(stopped.value) and "\n" not in str(stopped.value)
    assert files(data.parent) == before and not any(data.iterdir())
    assert not Path("/tmp/evil-of-a-test.txt").exists()


def headers(content: bytes) -> tuple[int, int]:
    """Where the first local and the first central header stand."""
    return content.index(b"PK\3\4"), content.index(b"PK\1\2")


def test_headers_that_lie_about_the_size(tmp_path, data):
    """A member states 1,000 bytes, with their checksum, and unpacks to 50,000: zipfile would cut it in silence."""
    file, random = tmp_path / "lies.zip", os.urandom(50_000)
    with zipfile.ZipFile(file, "w") as target:
        member("Brain/a.png", random)(target)
    content = bytearray(file.read_bytes())
    local, central = headers(content)
    for place in (local + 14, central + 16):
        struct.pack_into("<L", content, place, zipfile.crc32(random[:1000]))
    for place in (local + 22, central + 24):
        struct.pack_into("<L", content, place, 1000)
    file.write_bytes(content)
    refused(file, data, "cut, damaged or no zip archive")


def test_an_encrypted_member(tmp_path, data):
    file = tmp_path / "locked.zip"
    with zipfile.ZipFile(file, "w") as target:
        member("Brain/a.png")(target)
    content = bytearray(file.read_bytes())
    local, central = headers(content)
    content[local + 6] |= 1
    content[central + 8] |= 1
    file.write_bytes(content)
    refused(file, data, "encrypted: unpack it by hand")


def test_members_that_overlap(tmp_path, data):
    """Each claims the same packed bytes, so that together they would be many times the file."""
    file = tmp_path / "overlap.zip"
    with zipfile.ZipFile(file, "w") as target:
        member("Brain/0.png", os.urandom(1 << 16))(target)
        first = target.infolist()[0]
        for number in range(1, 50):
            same = zipfile.ZipInfo(f"Brain/{number}.png")
            for name in ("header_offset", "compress_size", "file_size", "CRC", "compress_type", "external_attr"):
                setattr(same, name, getattr(first, name))
            target.filelist.append(same)
    refused(file, data, "zip bomb")


def test_bounds(tmp_path, data, monkeypatch):
    file = tmp_path / "large.zip"
    with zipfile.ZipFile(file, "w") as target:
        for number in range(11):
            member(f"Brain/{number}.png", os.urandom(1 << 10))(target)
    monkeypatch.setattr(archive, "MAX_FILES", 10)
    refused(file, data, "more than 10 files")
    monkeypatch.setattr(archive, "MAX_FILES", 100)
    monkeypatch.setattr(archive, "MAX_BYTES", 4 << 10)
    refused(file, data, "more than")


def test_no_room_on_the_disk(tmp_path, data, monkeypatch, body):
    file = tmp_path / "bmad.zip"
    file.write_bytes(body)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    refused(file, data, "free some or choose another --data_path")


def test_cut_and_damaged_archives(tmp_path, data, body):
    local, central = headers(body)
    cases = {
        "half": body[: len(body) // 2],
        "no end mark": body[:-22],
        "no archive": b"<html>quota exceeded</html>" * 100,
        "empty": b"",
        "a changed byte": body[: central // 2] + bytes([body[central // 2] ^ 0xFF]) + body[central // 2 + 1 :],
        "no local header": bytes(4) + body[local + 4 :],
        "a directory before the file's start": body[:-10] + struct.pack("<L", len(body) * 2) + body[-6:],
    }
    for content in cases.values():
        file = tmp_path / "broken.zip"
        file.write_bytes(content)
        refused(file, data, "cut, damaged or no zip archive")


def test_sets_that_are_there_stay_packed(tmp_path, body):
    file = tmp_path / "bmad.zip"
    file.write_bytes(body)
    unpack_zip(file, tmp_path / "out", skip={"Brain", "Chest"})
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(trees.BMAD) - {"Brain", "Chest"}

"""Fetching, against a server on this machine."""

import hashlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from helpers.file_server import FileServer, send, serving

from runtime import download
from runtime.download import NotPublished, fetch
from runtime.errors import InputError

BODY = bytes(range(256)) * 4000  # 1 MB
DIGEST = hashlib.sha256(BODY).hexdigest()


def whole(request: BaseHTTPRequestHandler) -> None:
    """A server that knows no ranges."""
    send(request, BODY)


def ranged(request: BaseHTTPRequestHandler) -> None:
    span = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    if span is None:
        return send(request, BODY)
    start = int(span[1])
    if start >= len(BODY):
        return send(request, b"", 416, Content_Range=f"bytes */{len(BODY)}")
    return send(request, BODY[start:], 206, Content_Range=f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")


def cut(request: BaseHTTPRequestHandler) -> None:
    """Promises the whole file and hangs up half way, whatever was asked for."""
    send(request, BODY[: len(BODY) // 2], length=len(BODY))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serving(monkeypatch) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT", 0.0)
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr(download, "CHUNK", 1 << 16)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ckpt" / "weights.pt"  # the folder is made


def part(path: Path) -> Path:
    return path.with_name("weights.pt.part")


def line(caught: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_whole_file(server, path):
    assert fetch(server.url("/a", ranged), path, DIGEST) == path
    assert path.read_bytes() == BODY
    assert not part(path).exists()


def test_the_start_of_a_digest_is_enough(server, path):
    assert fetch(server.url("/a", ranged), path, DIGEST[:8]).read_bytes() == BODY


def test_resumes_where_an_earlier_run_was_cut(server, path):
    path.parent.mkdir()
    part(path).write_bytes(BODY[:1000])
    assert fetch(server.url("/a", ranged), path, DIGEST).read_bytes() == BODY
    assert server.ranges == ["bytes=1000-"]


def test_a_cut_connection_is_taken_up_again(server, path):
    calls = []

    def cut_twice(request):
        calls.append(request)
        if len(calls) == 1:
            return cut(request)
        if len(calls) == 2:
            half = len(BODY) // 2
            headers = {"Content_Range": f"bytes {half}-{len(BODY) - 1}/{len(BODY)}"}
            return send(request, BODY[half : half + 1000], 206, len(BODY) - half, **headers)
        return ranged(request)

    assert fetch(server.url("/a", cut_twice), path, DIGEST).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={len(BODY) // 2}-", f"bytes={len(BODY) // 2 + 1000}-"]


def test_a_silent_connection_is_taken_up_again(server, path):
    calls = []
    release = threading.Event()

    def silent_once(request):
        calls.append(request)
        if len(calls) > 1:
            return ranged(request)
        send(request, BODY[:200_000], length=len(BODY))
        release.wait(5)
        return None

    try:
        assert fetch(server.url("/a", silent_once), path, DIGEST).read_bytes() == BODY
    finally:
        release.set()
    assert len(calls) == 2


def test_starts_over_where_the_server_knows_no_ranges(server, path):
    path.parent.mkdir()
    part(path).write_bytes(b"x" * 1000)
    assert fetch(server.url("/a", whole), path, DIGEST).read_bytes() == BODY


def test_a_part_that_is_already_whole_is_only_checked(server, path):
    path.parent.mkdir()
    part(path).write_bytes(BODY)
    assert fetch(server.url("/a", ranged), path, DIGEST).read_bytes() == BODY
    assert len(server.ranges) == 1


def test_a_part_that_is_longer_than_the_file_is_dropped(server, path):
    path.parent.mkdir()
    part(path).write_bytes(BODY + b"more")
    assert fetch(server.url("/a", ranged), path, DIGEST).read_bytes() == BODY


def test_another_range_than_asked_for_is_never_appended(server, path):
    def deaf(request):
        send(request, BODY[5:], 206, Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}")

    path.parent.mkdir()
    part(path).write_bytes(BODY[:1000])
    with pytest.raises(InputError, match="another range"):
        fetch(server.url("/a", deaf), path, DIGEST)
    assert part(path).read_bytes() == BODY[:1000]


def test_wrong_hash_removes_the_part(server, path):
    url = server.url("/a", ranged)
    with pytest.raises(InputError) as caught:
        fetch(url, path, "0" * 64)
    assert url in line(caught)
    assert "other bytes" in line(caught)
    assert list(path.parent.iterdir()) == []


def test_a_truncated_body_is_never_taken_for_the_file(server, path):
    url = server.url("/a", cut)
    with pytest.raises(InputError) as caught:
        fetch(url, path)  # without a digest the size alone must tell
    assert "cut after 0.5 MB (of 1.0 MB)" in line(caught)
    assert "run again" in line(caught)
    assert not path.exists()
    assert part(path).stat().st_size == len(BODY) // 2
    assert len(server.ranges) == 1 + download.ATTEMPTS


def test_missing_at_the_server(server, path):
    url = server.url("/a", lambda request: request.send_error(404))
    with pytest.raises(NotPublished) as caught:
        fetch(url, path)
    for word in ("404", url, str(path.parent), "weights.pt", "--demo"):
        assert word in line(caught)
    assert list(path.parent.iterdir()) == []


def test_server_fault(server, path):
    with pytest.raises(InputError, match="answered 503") as caught:
        fetch(server.url("/a", lambda request: request.send_error(503)), path)
    assert not isinstance(caught.value, NotPublished)


def test_no_network(path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/weights.pt"
    with pytest.raises(InputError) as caught:
        fetch(url, path)
    for word in ("could not be reached", url, str(path.parent), "--demo"):
        assert word in line(caught)
    assert list(path.parent.iterdir()) == []


def test_no_such_host_or_scheme(path):
    for url in ("http://weights.invalid/a.pt", "weights.pt", "ftp2://x/y"):
        with pytest.raises(InputError, match="could not be reached"):
            fetch(url, path)


def test_a_web_page_is_not_weights(server, path):
    url = server.url("/a", lambda request: send(request, b"<html>log in", Content_Type="text/html"))
    with pytest.raises(InputError, match="web page"):
        fetch(url, path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("stated, good", [(DIGEST, True), ("f" * 64, False)])
def test_the_hash_that_the_hub_states_is_checked(server, path, stated, good):
    target = server.url("/storage", ranged)
    url = server.url("/hub", lambda r: send(r, b"", 302, Location=target, X_Linked_Etag=f'"{stated}"'))
    if good:
        assert fetch(url, path).read_bytes() == BODY
        return
    with pytest.raises(InputError, match="other bytes"):
        fetch(url, path)
    assert list(path.parent.iterdir()) == []


def test_goes_through_a_proxy(server, path, monkeypatch):
    server.answers["http://weights.invalid/a.pt"] = ranged
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert fetch("http://weights.invalid/a.pt", path, DIGEST).read_bytes() == BODY


def test_a_full_disk_is_no_network_fault(server, path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(server.url("/a", ranged), path)
    assert len(server.ranges) == 1

"""A file server on this machine that answers as a test wants, well or badly, and notes which ranges were asked for."""

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from runtime import download

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class FileServer(http.server.ThreadingHTTPServer):
    """Gives `answers[path]` the request, and notes each request's Range header."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.ranges: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of these tests."""

    def url(self, path: str, answer: Answer) -> str:
        """Where that answer is found from now on."""
        self.answers[path] = answer
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self.server.answers[self.path](self)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server until the context is left; downloads reach it without a proxy and do not wait between attempts."""
    monkeypatch.setattr(download, "WAIT", 0.0)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with FileServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def send(
    request: http.server.BaseHTTPRequestHandler,
    body: bytes,
    status: int = 200,
    length: int | None = None,
    **headers: str,
) -> None:
    """An answer of any status; headers with underscores for hyphens. length: what is promised, if not all of it."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)

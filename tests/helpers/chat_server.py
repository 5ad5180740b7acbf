"""A chat endpoint on this machine that answers as a test wants, well or badly, and notes what it was asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """Its address, what is answered to the first, second, ... request (the last one again), and the requests."""

    replies: list[Reply]
    port: int = 0
    asked: list[dict] = field(default_factory=list)  # path, headers, body
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def api(self) -> str:
        """For --api."""
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def serving(*replies: Reply) -> Iterator[Server]:
    """A server until the context is left."""
    server = Server(list(replies))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.asked.append({"path": self.path, "headers": dict(self.headers), "body": body})
            reply = server.replies[min(len(server.asked), len(server.replies)) - 1]
            self.over = server.over
            try:
                reply(self)
            except OSError:
                self.close_connection = True  # whoever asked went away

        def do_GET(self) -> None:  # what a followed redirect would become
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            http.shutdown()
            thread.join()


def raw(status: int, body: bytes, **headers: str) -> Reply:
    """A reply of any status and bytes; headers with underscores for hyphens."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def says(content: object, finish_reason: str = "stop") -> Reply:
    """The protocol's reply with a content."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return raw(200, json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


def drips(before: bytes, piece: bytes, every: float) -> Reply:
    """Bytes, then a piece again and again without an end."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(before)
        until = time.monotonic() + 20  # should a test fail
        while not handler.over.wait(every) and time.monotonic() < until:
            handler.wfile.write(piece)
            handler.wfile.flush()
        handler.close_connection = True

    return reply

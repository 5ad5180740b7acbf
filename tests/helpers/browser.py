"""Headless Chromium for tests of pages, and a server that notes who asks it for anything."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ARGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable(playwright: Any) -> str | None:
    """The path of the system's Chromium, else of Playwright's own, if there is one."""
    found = next(filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path)
    return found if Path(found).exists() else None


@contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium: the system's, else Playwright's own; the tests are skipped where there is neither."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -r requirements/dev.txt")
    with api.sync_playwright() as playwright:
        found = executable(playwright)
        if found is None:
            pytest.skip("needs Chromium: apt-get install chromium, or python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """The address of a local server and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()

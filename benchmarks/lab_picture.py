"""The readme's picture of the prompt lab: the page on the demo, a few-shot checkpoint, an edited set B.

    python -m benchmarks.lab_picture                  (trains a small checkpoint first; Chromium must be installed)

Needs requirements/app.txt, playwright, and Debian's chromium or another one in CHROMIUM.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from engine import FewShotSpec, train_few_shot
from runtime.errors import InputError, exit_code
from runtime.files import atomic_write

if TYPE_CHECKING:
    from playwright.sync_api import Page

OUT = Path(__file__).with_name("lab.png")
COLOURS = 256  # of the palette that keeps the picture small
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
EDIT = "a healthy {classname} with two like halves"


def chromium() -> str:
    """The browser's path; InputError when there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise InputError("no Chromium: apt-get install chromium, or name one in CHROMIUM")
    return found


@contextmanager
def browser_page(width: int = 1400, height: int = 1250) -> Iterator["Page"]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def picture(url: str, draft: Path) -> None:
    """A screenshot of the page at `url`, set B filled with the P-Prompts and edited, as a PNG with a palette."""
    with browser_page() as page:
        page.goto(url)
        page.wait_for_selector("#table table", timeout=120_000)
        page.click("#B-llm")
        page.wait_for_function("document.querySelector('#B-normal-sentences textarea').value != ''")
        box = page.locator("#B-normal-sentences textarea")
        box.fill(f"{EDIT}\n{box.input_value()}")
        page.wait_for_function("words => document.querySelector('#figures').innerText.includes(words)", arg="49 + 120")
        box.evaluate("box => { box.blur(); box.scrollTop = 0 }")
        page.mouse.move(5, 5)
        page.wait_for_timeout(1000)
        page.screenshot(path=draft)
    with Image.open(draft) as shot:
        small = shot.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(draft, optimize=True)


def main() -> None:
    """Train, serve, look."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from apps.promptlab.page import serve
    from apps.promptlab.session import LabSession

    with tempfile.TemporaryDirectory() as scratch:
        folders = {"save_path": f"{scratch}/ckpt", "results_path": f"{scratch}/results", "log_dir": f"{scratch}/runs"}
        train_few_shot(FewShotSpec.of(demo=True, epoch=2, eval_every=0, **folders))
        os.environ["GRADIO_TEMP_DIR"] = scratch
        session = LabSession({"demo": True, "save_path": Path(scratch, "ckpt")}, Path(scratch))
        shown = serve(session, "127.0.0.1", 0, wait=False)
        with atomic_write(OUT) as draft:
            picture(shown.blocks.local_url, draft)
        shown.blocks.close()
    print(OUT)


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""The readme's picture of the report page: a demo report in headless Chromium, as a reader sees it on a desk.

python -m benchmarks.report_picture
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from engine import FewShotSpec, evaluate, train_few_shot
from runtime.errors import InputError, exit_code
from runtime.files import atomic_write
from tests.helpers.browser import ARGS, executable

OBJECT = "Retina_RESC"
OUT = Path(__file__).with_name("report.png")
WINDOW = {"width": 1280, "height": 2240}


def report(scratch: str) -> Path:
    """Train and test on the demo; the report page's path."""
    folders = {"results_path": f"{scratch}/results", "log_dir": f"{scratch}/runs", "save_path": f"{scratch}/ckpt"}
    train_few_shot(FewShotSpec.of(demo=True, obj=OBJECT, eval_every=0, **folders))
    evaluate(next(Path(scratch, "ckpt").glob("*.pth")), results_path=folders["results_path"])
    return next(Path(scratch, "results", "test_few").rglob("report.html"))


def photograph(page_file: Path, out: Path) -> None:
    """Open a page and write what its window shows."""
    with sync_playwright() as playwright:
        found = executable(playwright)
        if found is None:
            raise InputError("no Chromium: apt-get install chromium, or python -m playwright install chromium")
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGS))
        tab = browser.new_page(viewport=WINDOW, color_scheme="light")
        tab.goto(page_file.as_uri())
        with atomic_write(out) as draft:
            tab.screenshot(path=draft)
        browser.close()


def main() -> None:
    """Make the report and its picture."""
    with tempfile.TemporaryDirectory() as scratch:
        photograph(report(scratch), OUT)
    print(OUT)


if __name__ == "__main__":
    sys.exit(exit_code(main))

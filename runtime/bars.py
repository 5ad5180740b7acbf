"""Progress bars: drawn on a terminal; elsewhere, as in a log, one line a minute."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

EVERY = 60.0  # seconds between two lines of a log, whatever bars there are
QUICK = 1.0  # seconds; what takes less leaves no line while it goes on


class LogLines:
    """What a bar writes, as lines of a log: of all that is drawn over and over, what it shows once in a while.

    A bar that stays when it is done ends with a line of its own, if it took long enough to have others.
    """

    last: float | None = None  # when any bar last wrote a line, or the first one began

    def __init__(self, log: TextIO) -> None:
        self.log, self.shown = log, ""
        if LogLines.last is None:
            LogLines.last = time.monotonic()

    def write(self, text: str) -> None:
        """Take what the bar draws: "\\r" and its words, and "\\n" behind its last ones."""
        if text == "\n":
            self._tell()
        elif text.strip():
            self.shown = text.strip()
            if time.monotonic() - LogLines.last >= EVERY:
                self._tell()

    def flush(self) -> None:
        """Lines are passed on when they are written."""

    def _tell(self) -> None:
        if self.shown:
            self.log.write(f"{self.shown}\n")
            self.log.flush()
            self.shown, LogLines.last = "", time.monotonic()


class Bar(tqdm):
    """tqdm, with its settings, on a terminal; else its figures alone, a line a minute and none in the first one."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        shown_on = settings.get("file") or sys.stderr
        if not shown_on.isatty():
            paced = {"mininterval": EVERY, "maxinterval": EVERY, "delay": max(QUICK, settings.get("delay", 0.0))}
            settings |= {"file": LogLines(shown_on), "ncols": 0, "position": 0, **paced}
        super().__init__(*args, **settings)

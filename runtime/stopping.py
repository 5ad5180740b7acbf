"""Ctrl-C and SIGTERM during long work: heeded where nothing is lost by it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether somebody has asked this process to stop, while `heeding`.

    asked: noted, for the work to stop at its next good place. A second request, or one inside `at_once`, raises
    KeyboardInterrupt there and then.
    """

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False

    def note(self, *signal_and_frame: object) -> None:
        """The signals' handler."""
        if self.asked or self._at_once:
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is done in here may be broken off anywhere."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


@contextmanager
def heeding() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM instead of ending; outside the main thread, where Python can't, they do as always."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

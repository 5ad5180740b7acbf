"""What goes wrong through no fault of the program: one line that says so, and the exit code."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InputError(Exception):
    """A fault in what the user gave: the message is one line that names the file and the mend."""


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Put a file's name before the fault that comes of its content."""
    try:
        yield
    except InputError as fault:
        raise InputError(f"{path}: {fault}") from fault


def exit_code(main: Callable[[], None]) -> int:
    """Run `main`; a fault that a user can cause becomes one line on stderr and 2, success is 0.

    Programming errors keep their traceback (and Python's exit code 1).
    """
    try:
        main()
    except InputError as fault:
        return _say(str(fault))
    except KeyboardInterrupt:
        return _say("stopped by the user; no file was left half-written")
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            return _say(f"no space left on the device for {fault.filename or 'the output'}; free some and run again")
        if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _say(f"no permission for {fault.filename}; choose another folder")
        raise
    return 0


def _say(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 2

"""What goes wrong through no fault of the program: one line that says so, and the exit code."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

SYSTEM = {  # errno -> what is said of a file or folder
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "no space left on the device for {}; free some and run again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "no permission for {}; choose another folder"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "{} is a file where a folder is wanted; choose another folder"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTEMPTY), "{} is a folder where a file is wanted; take it away"),
    errno.ENOENT: "{} is not there, or can't be made there; choose another",
    errno.ELOOP: "{} is a link that leads to itself; take it away",
    errno.ENAMETOOLONG: "{} is too long a name; shorten it",
}


def _interrupted(kind: type[BaseException], fault: BaseException, trace: object) -> None:
    """An uncaught Ctrl-C, as during the imports of a script, is one line too."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"error: {STOPPED}", file=sys.stderr)
        os._exit(2)  # what was being imported is in no state to be tidied up
    sys.__excepthook__(kind, fault, trace)


NO_SUCH_KERNEL = "does not have a deterministic implementation"  # PyTorch's words, behind the operation's name
STOPPED = "stopped by the user; no file was left half-written"
sys.excepthook = _interrupted


class InputError(Exception):
    """A fault in what the user gave: the message is one line that names the file and the mend."""


class Stopped(KeyboardInterrupt):
    """Work that was stopped from outside and can go on later: the message is one line that says how."""


class Parser(argparse.ArgumentParser):
    """Raises InputError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


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
        return 0
    except InputError as fault:
        line = str(fault)
    except KeyboardInterrupt as stop:
        line = str(stop) or STOPPED
    except BrokenPipeError:  # whoever read our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except RuntimeError as fault:
        if NO_SUCH_KERNEL not in str(fault):
            raise
        line = f"{str(fault).split(',')[0]} on this device; leave --deterministic out, or use --device cpu"
    except OSError as fault:
        if fault.errno not in SYSTEM:
            raise
        line = SYSTEM[fault.errno].format(fault.filename or "the output")
    print(f"error: {line}", file=sys.stderr)
    return 2

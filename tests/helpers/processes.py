"""Processes that belong to a run: its children and theirs, by Linux's /proc."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    parents: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                after_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                parents.setdefault(int(after_name[1]), []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        own = parents.get(left.pop(), [])
        found += own
        left += own
    return found


def called(pids: list[int], name: str) -> list[int]:
    """Those of the processes that have a text in their command."""
    return [pid for pid in pids if name in _read(pid, "cmdline").replace("\0", " ")]


def peak_memory(pid: int) -> int:
    """The most memory that a process has taken so far, bytes; 0 if it is gone."""
    lines = [line for line in _read(pid, "status").splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def alive(pids: list[int]) -> list[int]:
    """Those that run still; one that is dead and waits for its parent does not."""
    return [pid for pid in pids if (state := _read(pid, "stat").rpartition(")")[2].split()) and state[0] != "Z"]


def wait_for_end(pids: list[int], seconds: float) -> list[int]:
    """Wait until processes are gone, then kill those that are not, and give these."""
    limit = time.monotonic() + seconds
    while (left := alive(pids)) and time.monotonic() < limit:
        time.sleep(0.1)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def _read(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""

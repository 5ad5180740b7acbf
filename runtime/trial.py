"""What is fastest on this machine, tried once and remembered: a choice that changed from run to run would change the
last digits of what is computed.

A trial is remembered in a file of the user's cache folder, for the processor and the version of PyTorch.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock, Timeout

from runtime.files import atomic_write
from runtime.processor import processor

ROUNDS = 8
CLOCK = time.perf_counter if sys.platform == "win32" else time.thread_time  # Windows counts a thread's in 16 ms
LEAST = 1e-9  # seconds that anything takes
PATIENCE = 10.0  # seconds that another process may take for a trial


def remembered(name: str, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of one core that each call takes, the least of `ROUNDS` in turns after one to warm up, since what else
    the machine does only adds to them: as they were the first time that `name` was tried on this machine. Where no file
    can be written, every process tries."""
    machine = f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    path = platformdirs.user_cache_path("clipmpcad", appauthor=False) / "trials.json"
    found = _read(path).get(machine, {}).get(name, {})
    if found.keys() == calls.keys():
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=PATIENCE):  # processes that start together choose together
            known = _read(path)
            trials = known.setdefault(machine, {})
            if trials.get(name, {}).keys() != calls.keys():
                trials[name] = _measured(calls)
                with atomic_write(path) as draft:
                    draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
            return trials[name]
    except (OSError, Timeout, NotImplementedError):  # a file system without locks, too
        return _measured(calls)


def _measured(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    least, threads = dict.fromkeys(calls, math.inf), torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other on a machine that is busy
    try:
        for number in range(1 + ROUNDS):
            for name, call in calls.items():
                started = CLOCK()
                call()
                if number:
                    least[name] = max(LEAST, min(least[name], CLOCK() - started))
    finally:
        torch.set_num_threads(threads)
    return least


def _read(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """What a file remembers; nothing of one that is damaged."""
    with suppress(OSError, ValueError, RecursionError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if _is_record(known):
            return known
    return {}


def _is_record(known: object) -> bool:
    return isinstance(known, dict) and all(
        isinstance(trials, dict)
        and all(
            isinstance(seconds, dict) and all(type(one) is float and 0 < one < math.inf for one in seconds.values())
            for seconds in trials.values()
        )
        for trials in known.values()
    )

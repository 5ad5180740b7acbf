"""A study's runs on a Ray cluster: a task a unit, on whichever node has room, again elsewhere when a node dies.

Nodes share the file system and see the study in the same working directory; Ray itself carries no data.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.study.plan import Run
from apps.study.pool import PATIENCE, TICK, python_path
from apps.study.work import Worker
from runtime.errors import InputError
from runtime.linear import SWITCH
from runtime.stopping import StopRequest

INSTALL = "--on ray needs Ray: pip install -r requirements/ray.txt"
RETRIES = 3  # of a unit whose process or node dies
ANSWER = 10.0  # seconds that a cluster has to answer
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # no report, no warning of a change


def run_on_ray(
    folder: Path,
    units: Sequence[Sequence[Run]],
    address: str | None,
    jobs: int,
    request: StopRequest,
    tick: Callable[[], None],
) -> list[tuple[Sequence[Run], str]]:
    """Have every unit done by the cluster at `address`; `tick` is called every second.

    address: HOST:PORT, "auto" for the one of this machine, "local" for a new one on it, None for the first of these
    that is there. jobs: at a time on a node, 0: one a GPU, or one. Gives the units whose process died too often, with
    what Ray knows of it. Once a stop is requested no unit begins, and the processes save what they are at. Raises
    InputError when Ray is missing, when no cluster answers, and for what no unit can start without.
    """
    with _connected(address) as ray:
        task = ray.remote(**_resources(ray.nodes(), jobs))(_do)
        waiting = {task.remote(str(Path.cwd()), folder, unit): unit for unit in units}
        died = []
        try:
            while waiting and not request.asked:
                for ready in ray.wait(list(waiting), timeout=TICK)[0]:
                    unit, reason = waiting.pop(ready), _death(ray, ready)
                    died += [(unit, reason)] if reason else []
                tick()
        finally:
            _cancel(ray, list(waiting))
    return died


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected for as long as the block goes on; SIGTERM stays with whoever had it."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    try:
        import ray
    except ImportError as fault:
        raise InputError(INSTALL) from fault
    if ray.is_initialized():
        yield ray
        return
    if address not in (None, "auto", "local"):
        _check_answers(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as fault:
        ray.shutdown()
        raise InputError(f"--on ray: no cluster {f'at {address}' if address else 'here'}: {_line(fault)}") from fault
    finally:
        signal.signal(signal.SIGTERM, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise InputError unless something listens there: Ray itself would try for minutes and say so on the screen."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"--on ray:{address} has no address as HOST:PORT of the cluster's head (or auto, local)")
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except (OSError, UnicodeError) as fault:
        raise InputError(f"--on ray: no cluster at {address}: {_line(fault)}") from fault


def _resources(nodes: Sequence[Mapping[str, Any]], jobs: int) -> dict[str, Any]:
    """What a task takes, as ray.remote has it, so that `jobs` of them fill the smallest of the nodes that can work.

    Those are the nodes with a GPU, where there are any. A task has as many threads as processors.
    """
    every = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not every:
        raise InputError("--on ray: no node of the cluster has a processor to give")
    able = [one for one in every if one.get("GPU", 0) >= 1] or every
    gpus, cpus = (int(min(one.get(kind, 0) for one in able)) for kind in ("GPU", "CPU"))
    count = jobs or gpus or 1
    threads = max(1, cpus // count)
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONPATH": python_path()}
    environment |= {SWITCH: os.environ[SWITCH]} if SWITCH in os.environ else {}
    return {
        "num_cpus": threads,
        "num_gpus": 1 / -(-count // gpus) if gpus else 0,  # several processes a GPU where so many are asked for
        "max_retries": RETRIES,
        "retry_exceptions": False,
        "max_calls": 0,  # a process does many units, on a GPU too
        "runtime_env": {"env_vars": environment},
    }


def _do(directory: str, folder: Path, unit: Sequence[Run]) -> None:
    """What a task does, in the main thread of a process that Ray started."""
    try:
        os.chdir(directory)
    except OSError as fault:
        raise InputError(f"--on ray: a node can't enter {directory}; all must share the file system") from fault
    _worker(folder).do(unit)


@lru_cache(maxsize=1)
def _worker(folder: Path) -> Worker:
    """The one of this process, so that what runs share stays."""
    return Worker(folder)


def _death(ray: Any, ready: Any) -> str:
    """Why a task failed for good; nothing if it did not. Raises InputError if its unit could not start."""
    try:
        ray.get(ready)
    except ray.exceptions.RayTaskError as fault:
        if isinstance(fault.cause, InputError):
            raise fault.cause from None
        return f"{type(fault.cause).__name__}: {_line(fault.cause)}"
    except ray.exceptions.RayError as fault:
        return f"its process died {RETRIES + 1} times, at last: {_line(fault)}"
    return ""


def _line(fault: BaseException) -> str:
    return next((line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__)


def _cancel(ray: Any, refs: Sequence[Any]) -> None:
    """Interrupt what runs, as Ctrl-C would, forget what waits, and wait for those that save."""
    for ref in refs:
        ray.cancel(ref, force=False)
    if refs:
        ray.wait(refs, num_returns=len(refs), timeout=PATIENCE)

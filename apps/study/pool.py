"""A study's runs on this machine: processes that live as long as there is work, one a GPU, or several on the CPU."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from apps.study.plan import Run
from apps.study.work import Worker
from runtime import distributed
from runtime.stopping import StopRequest
from runtime.threads import processors

TICK = 1.0  # seconds between looks at what is done
PATIENCE = 120.0  # seconds that workers have to save what they are at
ROOT = Path(__file__).resolve().parents[2]  # of this program


@dataclass
class Member:
    """A process of the pool, and what it is at."""

    process: BaseProcess
    pipe: Connection
    unit: Sequence[Run] = ()


def run_locally(
    folder: Path, units: Sequence[Sequence[Run]], jobs: int, request: StopRequest, tick: Callable[[], None]
) -> list[tuple[Sequence[Run], str]]:
    """Have every unit done by `jobs` processes; `tick` is called every second.

    Gives the units whose process died, with what is known of its death. Once a stop is requested no unit begins, and
    the processes save what they are at.
    """
    waiting, died, members, environments = deque(units), [], [], places(jobs)
    try:
        for environment in environments[: len(waiting)]:
            members.append(_start(folder, environment))  # one by one: those before one that can't start are ended
        while not request.asked:
            for member in members:
                if not member.unit and waiting:
                    member.unit = waiting.popleft()
                    with suppress(BrokenPipeError, ConnectionResetError):  # it died while idle, as is seen below
                        member.pipe.send(member.unit)
            busy = [member for member in members if member.unit]
            if not busy:
                return died
            ready = wait([member.pipe for member in busy], TICK)
            for place, member in enumerate(members):
                if member.pipe in ready and not _is_done(member):
                    died.append((member.unit, _death(member.process)))
                    member.unit = ()
                    if waiting:
                        members[place] = _start(folder, environments[place])
            tick()
    finally:
        _end(members)  # at a second Ctrl-C too, which gets here by itself
    return died


def places(jobs: int) -> list[dict[str, str]]:
    """The environment of each process: a GPU of its own where there are any, and its share of the processors."""
    gpus = torch.cuda.device_count()
    count = jobs or gpus or 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, processors() // count))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    each = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, distributed.LOCAL_SIZE: str(count)}
    return [each | ({"CUDA_VISIBLE_DEVICES": names[n % gpus]} if gpus else {}) for n in range(count)]


def python_path() -> str:
    """PYTHONPATH of processes that others start: they find this program, wherever they are."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _start(folder: Path, environment: dict[str, str]) -> Member:
    context = multiprocessing.get_context("spawn")  # CUDA and threads do not outlive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(folder, theirs), daemon=False)  # --num_workers: with children
    with inherited(environment):
        process.start()
    theirs.close()
    return Member(process, ours)


@contextmanager
def inherited(values: Mapping[str, str]) -> Iterator[None]:
    """What a process that is started now inherits."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _work(folder: Path, pipe: Connection) -> None:
    """What a process of the pool does: a unit after the other, until it is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of trainings too it ends tidily
    os.setpgrp()  # Ctrl-C at the keyboard reaches the study alone, which then asks this process to stop, once
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    worker = Worker(folder)
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):  # whoever stopped it knows; what it was at is saved
        while unit := pipe.recv():
            worker.do(unit)
            pipe.send(True)


def _stop_with_parent() -> None:
    """Ask this process to stop when the study is gone, killed without a word."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _is_done(member: Member) -> bool:
    """Whether a process says that its unit is done; if not, it died."""
    try:
        member.pipe.recv()
    except (EOFError, ConnectionResetError):
        return False
    member.unit = ()
    return True


def _death(process: BaseProcess) -> str:
    process.join()
    if process.exitcode < 0:
        name = signal.Signals(-process.exitcode).name
        return f"its process was killed by {name}{', perhaps for want of memory' if name == 'SIGKILL' else ''}"
    return f"its process ended with exit code {process.exitcode}"


def _end(members: Sequence[Member]) -> None:
    """End idle processes, have the others save and wait for that, kill what does not end."""
    for member in members:
        if member.process.is_alive() and member.unit:
            os.kill(member.process.pid, signal.SIGTERM)
        member.pipe.close()
    try:
        for member in members:
            member.process.join(PATIENCE)
    finally:
        for member in members:
            if member.process.is_alive():
                member.process.kill()

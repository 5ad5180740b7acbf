"""A Ray cluster to work on: one of this machine alone, or a running one; quiet, and with room for what is asked."""

import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from apps.predict.spec import ScaleSpec
from runtime.errors import InputError

QUIET = {"log_to_driver": False, "logging_level": logging.CRITICAL}
ANSWER = 10.0  # seconds to wait for a cluster's first answer
ROOT = Path(__file__).parents[2]
SPARE = 2  # CPUs that scoring leaves free: one for what passes over finished images, one for reading and writing
STORE, STORE_EACH = 256 << 20, 64 << 20  # bytes of a local cluster's object store, and more for every actor


@dataclass(frozen=True)
class Shape:
    """How many processes score, and the torch threads (CPUs) and GPUs of each."""

    actors: int
    threads: int
    gpus: int

    def remote(self) -> dict[str, float]:
        """As Ray is told."""
        return {"num_cpus": self.threads, "num_gpus": self.gpus}


@contextmanager
def cluster(spec: ScaleSpec, device: str) -> Iterator[Shape]:
    """Start a cluster, or join the one of --on; gives the shape of the work. InputError if it can't be reached."""
    address = (spec.on or "").partition(":")[2]
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ray\..*")
    try:
        _knock(address)
        with _unheard(), patched({"PYTHONPATH": _search_path()}):  # what is started here finds this program too
            ray.init(**(_joining(address) if address else _alone(spec)))
    except (OSError, OverflowError, RayError, RuntimeError, ValueError) as fault:
        raise InputError(
            f"--on {spec.on}: no cluster answers ({_line(fault)}); ray status shows whether one runs"
        ) from fault
    try:
        with redirect_stdout(OwnVoice(sys.stdout)):
            yield _shape(spec, device)
    finally:
        ray.shutdown()


class OwnVoice:
    """Standard output, where Ray's threads can't tell of workers that died and are started again."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write what comes of our own threads."""
        return len(text) if threading.current_thread().name.startswith("ray_") else self.stream.write(text)

    def flush(self) -> None:
        """As of the stream."""
        self.stream.flush()


@contextmanager
def patched(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def _unheard() -> Iterator[None]:
    """Away with what is written to stderr, by libraries that are not Python too; faults come as exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT, which Ray itself would try for minutes."""
    if ":" in address:
        host, port = address.rsplit(":", 1)
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()


def _joining(address: str) -> dict[str, Any]:
    """Its workers look for this program where it lies here."""
    return {"address": address, "runtime_env": {"env_vars": {"PYTHONPATH": _search_path()}}, **QUIET}


def _search_path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _alone(spec: ScaleSpec) -> dict[str, Any]:
    """A cluster of this machine; the CPUs that scoring leaves free are added, since what they do takes little time."""
    cpus = os.cpu_count() or 1
    threads = _threads(spec, cpus)
    actors = spec.ray_actors or max(1, cpus // threads)
    return {
        "address": "local",
        **QUIET,
        "include_dashboard": False,
        "num_cpus": max(cpus, actors * threads) + SPARE,
        "object_store_memory": STORE + actors * STORE_EACH,
    }


def _threads(spec: ScaleSpec, cpus: int) -> int:
    """Of an actor: as many as plain predict.py takes, which is what keeps scores equal to the bit; fewer for many."""
    usual = torch.get_num_threads()
    return min(usual, max(1, cpus // spec.ray_actors)) if spec.ray_actors else min(usual, cpus)


def _shape(spec: ScaleSpec, device: str) -> Shape:
    """How the cluster's CPUs and GPUs are shared out. InputError where it has too few."""
    room = ray.cluster_resources()
    cpus, gpus = int(room.get("CPU", 0)) - SPARE, int(room.get("GPU", 0))
    if cpus < 1:
        raise InputError(f"--on {spec.on}: the cluster has {cpus + SPARE} CPUs, and {SPARE + 1} are needed: add a node")
    if device.startswith("cuda") and (device != "cuda" or not gpus):
        why = "Ray chooses the GPU: give --device cuda" if gpus else "the cluster has no GPU: give --device cpu"
        raise InputError(f"--device {device}: {why}")
    if gpus and device in ("auto", "cuda"):
        return Shape(min(spec.ray_actors or gpus, gpus, cpus), 1, 1)
    widest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    threads = min(_threads(spec, cpus), max(1, widest))
    return Shape(min(spec.ray_actors or cpus, max(1, cpus // threads)), threads, 0)


def _line(fault: BaseException) -> str:
    """The first line of what a fault says."""
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0][:200]


@contextmanager
def as_own_faults(what: str) -> Iterator[None]:
    """Faults of workers as those of this process: InputError and OSError come out as they were, the end of the cluster
    becomes an InputError; whatever else keeps its traceback.
    """
    try:
        yield
    except (RayError, ConnectionError) as fault:
        causes = list(_chain(fault))
        own = [one for one in causes if isinstance(one, InputError | OSError) and not isinstance(one, RayError)]
        if own and not isinstance(own[0], ConnectionError):
            raise own[0] from None
        if any(isinstance(one, RayTaskError) for one in causes):
            raise
        raise InputError(f"Ray gave up ({_line(fault)}); {what}") from fault


def _chain(fault: BaseException) -> Iterator[BaseException]:
    """A fault and those that it came of."""
    seen: set[int] = set()
    left = [fault]
    while left:
        one = left.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [getattr(one, "cause", None), one.__cause__]

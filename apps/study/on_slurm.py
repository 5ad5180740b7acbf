"""A study's runs on a Slurm cluster: a job array, a job a unit, submitted by submitit.

Nodes share the file system of the study. A job that Slurm preempts, or whose time is up, saves its training, and Slurm
queues it again.
"""

import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self

from apps.study.plan import Run
from apps.study.pool import TICK, inherited, python_path
from apps.study.work import Worker
from engine.settings import Spec, setting
from runtime.errors import InputError, naming
from runtime.flags import MANY, WORKERS, number
from runtime.stopping import StopRequest

INSTALL = "--on slurm needs submitit: pip install -r requirements/ray.txt"
NO_SLURM = "--on slurm: no sbatch on this machine; start the study on a login node of a Slurm cluster"
ARRAY = 1000  # jobs of an array; Slurm's own limit is 1001 unless its administrator raised it
REST = 60.0  # seconds from an array to the next, which asks again for what others were at
TIMES_UP = 100  # times that a job may come to the end of its time and be queued again
RULE = "----------------------"  # submitit's, before and after a traceback
GRACE = 60.0  # seconds after SIGTERM in which Slurm's second signal may come, which queues the job again


@dataclass(frozen=True, kw_only=True)
class SlurmSpec(Spec):
    """What --slurm NAME=VALUE asks for each job; None: what the cluster gives."""

    partition: str | None = setting(None, "where jobs go")
    account: str | None = setting(None, "who pays")
    qos: str | None = setting(None, "quality of service")
    constraint: str | None = setting(None, "features that a node must have")
    time: int = setting(240, "minutes until a job saves and is queued again", type=number(int, 5, MANY))
    cpus_per_task: int = setting(4, "processors, and threads", type=number(int, 1, WORKERS))
    gpus_per_node: int = setting(0, "GPUs: 1, or none", type=number(int, 0, 1))
    mem_gb: int | None = setting(None, "gigabytes of memory", type=number(int, 1, MANY))
    array_parallelism: int = setting(256, "jobs at a time", type=number(int, 1, ARRAY))

    @classmethod
    def parse(cls, given: Sequence[str]) -> Self:
        """From NAME=VALUE; InputError names what is none."""
        asked, known = {}, [one.name for one in fields(cls)]
        for text in given:
            name, equals, value = text.partition("=")
            if not equals or name not in known:
                raise InputError(f"--slurm {text} is not NAME=VALUE with a name of {', '.join(known)}")
            asked[name] = value
        with naming("--slurm"):
            return cls(**asked)

    def parameters(self) -> dict[str, Any]:
        """As submitit's AutoExecutor calls them."""
        values = {name: value for name, value in asdict(self).items() if value}
        shared = {"cpus_per_task", "gpus_per_node", "mem_gb"}
        minutes = values.pop("time")
        named = {name if name in shared else f"slurm_{name}": value for name, value in values.items()}
        return {"timeout_min": minutes, **named}


def run_on_slurm(
    folder: Path,
    units: Sequence[Sequence[Run]],
    spec: SlurmSpec,
    request: StopRequest,
    tick: Callable[[], None],
    cluster: Literal["slurm", "local"] = "slurm",
) -> list[tuple[Sequence[Run], str]]:
    """Have units done, a job each, a thousand of them at most, in a minute at least; `tick` is called every second.

    cluster: "local" starts the jobs as processes here. Gives the units whose job failed, with why. Once a stop is
    requested all jobs are cancelled: those that run save what they are at. Raises InputError when submitit or Slurm is
    missing, and when Slurm refuses the jobs.
    """
    waiting, died = _submitted(folder, units[:ARRAY], spec, cluster), []
    rested = time.monotonic() + REST
    try:
        while (waiting or time.monotonic() < rested) and not request.asked:
            time.sleep(TICK)
            for pair in [pair for pair in waiting if pair[0].done()]:
                waiting.remove(pair)
                died += [(pair[1], reason)] if (reason := _death(pair[0])) else []
            tick()
    finally:
        for job, _ in waiting:
            job.cancel(check=False)
    return died


def _submitted(
    folder: Path, units: Sequence[Sequence[Run]], spec: SlurmSpec, cluster: str
) -> list[tuple[Any, Sequence[Run]]]:
    """Jobs with their units."""
    try:
        import submitit
    except ImportError as fault:
        raise InputError(INSTALL) from fault
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise InputError(NO_SLURM)
    executor = submitit.AutoExecutor(folder / "slurm", cluster=cluster, slurm_max_num_timeout=TIMES_UP)
    executor.update_parameters(name="study", **spec.parameters())
    threads = str(spec.cpus_per_task)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": python_path()}
    with inherited(environment):  # jobs start with the environment that they are submitted in
        try:
            return list(zip(executor.map_array(Job(folder), units), units, strict=True))
        except (submitit.core.utils.FailedSubmissionError, submitit.core.utils.FailedJobError) as fault:
            raise InputError(f"--on slurm: the jobs were refused: {_last_line(fault)}") from fault


class Job:
    """What a job does: a unit, in the main thread of a process of its own.

    submitit asks its `checkpoint` for what to queue again: the same unit, whose finished runs are found by their keys,
    and whose training goes on from where it was saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, unit: Sequence[Run]) -> None:
        queue_again, told = signal.getsignal(signal.SIGUSR2), _interrupt_at(signal.SIGUSR2)
        try:
            Worker(self.folder).do(unit)
            return
        except KeyboardInterrupt:  # a training has saved itself
            signal.signal(signal.SIGUSR2, queue_again)
        if told:
            signal.raise_signal(signal.SIGUSR2)  # submitit queues the job again and ends this process
        time.sleep(GRACE)  # cancelled, or to be preempted, and then the other signal follows

    def checkpoint(self, unit: Sequence[Run]) -> Any:
        """The unit again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, unit)


def _interrupt_at(number: signal.Signals) -> list[int]:
    """Have a signal do what Ctrl-C does, so that a training saves at a good place and ends; gives those that came."""
    came = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:  # a second one would break off the saving
            signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a process ignores it
    signal.signal(number, interrupt)
    return came


def _death(job: Any) -> str:
    """Why a job failed; nothing if it did not."""
    fault = job.exception()
    if fault is None:
        return ""
    trace = str(fault).split(RULE)  # around the traceback of a job that raised something
    how = f"failed: {_last_line(trace[1])}" if len(trace) > 2 else f"ended as {job.state}"
    return f"its job {job.job_id} {how} (see {job.paths.stderr})"


def _last_line(text: object) -> str:
    return (str(text).strip().splitlines() or [""])[-1]

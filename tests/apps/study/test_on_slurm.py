"""--on slurm: submitit's local executor does the jobs, and a made-up sbatch shows what Slurm is asked for."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from helpers.lab import Lab
from helpers.small_studies import LONG, SmallStudy, alive, until

from apps.study import on_slurm
from apps.study.on_slurm import SlurmSpec, run_on_slurm
from apps.study.plan import units_of
from runtime.errors import InputError
from runtime.stopping import StopRequest

SEEDS = (111, 222)


@pytest.fixture
def small(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> SmallStudy:
    """Two long runs, looked at often."""
    pytest.importorskip("submitit", reason="needs submitit: pip install -r requirements/dev.txt")
    monkeypatch.setattr(on_slurm, "TICK", 0.2)
    monkeypatch.setattr(on_slurm, "REST", 0.0)
    lab.medical("Brain")
    return SmallStudy(lab, "slurm", SEEDS, LONG)


def processes(small: SmallStudy) -> list[int]:
    """Those that do the jobs: children of the controllers, whose ids are the jobs'."""
    controllers = [path.name.partition("_")[0] for path in (small.folder / "slurm").glob("*_submitted.pkl")]
    children = [Path(f"/proc/{pid}/task/{pid}/children") for pid in controllers]
    return [int(pid) for path in children if path.exists() for pid in path.read_text().split()]


def run(small: SmallStudy, request: StopRequest, tick: object) -> list:
    units = units_of(small.study().left)
    return run_on_slurm(small.folder, units, SlurmSpec(cpus_per_task=1), request, tick, "local")


@pytest.mark.slow
def test_preempted_jobs_go_on_dead_ones_are_told_and_figures_are_the_same(small):
    signals = [signal.SIGUSR2, signal.SIGKILL]  # preempted, and out of memory

    def disturb() -> None:
        if signals and len(small.training()) == 2:
            for pid in processes(small):
                os.kill(pid, signals.pop())

    ((unit, reason),) = run(small, StopRequest(), disturb)
    assert not signals and re.fullmatch(r"its job \d+ ended as FINISHED \(see .*_log\.err\)", reason)
    made = small.study()
    assert made.left == list(unit) and made.those("finished") == small.went_on() != []
    assert run(small, StopRequest(), lambda: None) == []
    assert len(small.finished()) == len(set(small.finished())) == 2
    assert small.figures() == SmallStudy(small.lab, "here", SEEDS, LONG).done().figures()


@pytest.mark.slow
def test_a_stop_cancels_the_jobs(small):
    request, pids = StopRequest(), []

    def stop() -> None:
        if len(small.training()) == 2:
            pids.extend(processes(small))
            request.asked = True

    assert run(small, request, stop) == [] and len(pids) == 2
    until(lambda: not any(map(alive, pids)))
    assert small.states() == ["waiting"] * 2


def program(folder: Path, name: str, text: str) -> None:
    """A shell script on the PATH."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with made-up commands of Slurm, which keep what they are given."""
    pytest.importorskip("submitit", reason="needs submitit: pip install -r requirements/dev.txt")
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "sbatch", f'cp "$1" {folder}/script; env > {folder}/environment; echo Submitted batch job 7')
    program(folder, "srun", "")
    program(folder, "sacct", "echo 'JobID|State|NodeList'; echo '7_0|RUNNING|a'; echo '7_1|PENDING|'")
    program(folder, "scancel", f'echo "$@" >> {folder}/cancelled')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(on_slurm, "TICK", 0.01)
    return folder


def test_slurm_is_asked_for_an_array_and_told_to_cancel_it(slurm, tmp_path):
    request = StopRequest()
    spec = SlurmSpec.parse(["partition=gpu", "time=90", "gpus_per_node=1", "cpus_per_task=3", "array_parallelism=2"])
    assert run_on_slurm(tmp_path / "study", [["a"], ["b"], ["c"]], spec, request, request.note) == []
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", (slurm / "script").read_text()))
    wanted = {"array": "0-2%2", "partition": "gpu", "time": "90", "gpus-per-node": "1", "cpus-per-task": "3"}
    assert wanted.items() <= asked.items() and asked["signal"] == "USR2@90" and "mem" not in asked
    environment = (slurm / "environment").read_text().splitlines()
    assert {"OMP_NUM_THREADS=3", "MKL_NUM_THREADS=3"} <= set(environment)
    assert (slurm / "cancelled").read_text().split() == ["7_0", "7_1", "7_2"]


def test_what_slurm_refuses_is_one_line(slurm, tmp_path):
    program(slurm, "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    with pytest.raises(InputError, match=r"^--on slurm: the jobs were refused: .*invalid partition specified: x$"):
        run_on_slurm(tmp_path / "study", [["a"], ["b"]], SlurmSpec(partition="x"), StopRequest(), lambda: None)


def test_without_slurm_or_submitit_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on this machine"):
        run_on_slurm(tmp_path, [], SlurmSpec(), StopRequest(), lambda: None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"^--on slurm needs submitit: pip install -r requirements/ray\.txt$"):
        run_on_slurm(tmp_path, [], SlurmSpec(), StopRequest(), lambda: None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("partition", "--slurm partition is not NAME=VALUE"),
        ("nodes=2", "--slurm nodes=2 is not NAME=VALUE with a name of partition, account"),
        ("time=2", "time 2 is not from 5 to"),
        ("cpus_per_task=many", "cpus_per_task many is not a whole number"),
        ("gpus_per_node=2", "gpus_per_node 2 is not from 0 to 1"),
        ("partition=", "an empty text says nothing"),
    ],
)
def test_what_slurm_can_not_be_asked_for_is_one_line(given, says):
    with pytest.raises(InputError, match=re.escape(says)) as fault:
        SlurmSpec.parse([given])
    assert "\n" not in str(fault.value)

"""The local pool: a process that is killed, a stop, a study that is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch
from helpers.lab import ROOT, Lab
from helpers.small_studies import LONG, SmallStudy, alive, until

from apps.study import pool
from apps.study.plan import Column, units_of
from runtime.stopping import StopRequest


@pytest.fixture
def brain(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with an object, and a pool that looks often at what is done."""
    monkeypatch.setattr(pool, "TICK", 0.1)
    lab.medical("Brain")
    return lab


def run(small: SmallStudy, request: StopRequest, tick: object, jobs: int = 2) -> list:
    made = small.study()
    return pool.run_locally(small.folder, units_of(made.left), jobs, request, tick)


@pytest.mark.slow
def test_a_killed_process_loses_its_unit_alone(brain):
    small, killed = SmallStudy(brain, "killed", (111, 222, 333), LONG), []

    def tick() -> None:
        if not killed and small.training():
            killed.append(multiprocessing.active_children()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    ((unit, reason),) = run(small, StopRequest(), tick)
    assert reason == "its process was killed by SIGKILL, perhaps for want of memory"
    assert multiprocessing.active_children() == []
    made = small.study()
    assert made.left == list(unit) and len(unit) == 1 and len(made.those("finished")) == 2


@pytest.mark.slow
def test_processes_may_have_children_that_read_images(brain):
    columns = (Column("MADFF", {"num_workers": 1}),)
    assert SmallStudy(brain, "children", (111,), columns=columns).done().states() == ["finished"]


@pytest.mark.slow
def test_a_stop_saves_what_runs_and_the_next_one_goes_on_to_the_same_figures(brain):
    small, request, whole = (
        SmallStudy(brain, "stopped", (111,), LONG),
        StopRequest(),
        SmallStudy(brain, "whole", (111,), LONG),
    )

    def tick() -> None:
        request.asked = request.asked or bool(small.training())

    assert run(small, request, tick) == [] and request.asked
    assert multiprocessing.active_children() == []
    assert small.states() == ["waiting"] and len(small.saved()) == 1
    assert small.done().went_on() == small.study().runs
    assert small.figures() == whole.done().figures() and not small.saved()


@pytest.mark.slow
def test_what_breaks_the_study_off_saves_what_runs_too(brain):
    small = SmallStudy(brain, "broken", (111,), LONG)

    def tick() -> None:
        if small.training():
            raise KeyboardInterrupt  # as a second Ctrl-C does

    with pytest.raises(KeyboardInterrupt):
        run(small, StopRequest(), tick)
    assert multiprocessing.active_children() == []
    assert small.states() == ["waiting"] and len(small.saved()) == 1


STUDY = """
import multiprocessing, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from helpers.lab import Lab
from helpers.small_studies import LONG, SmallStudy, one_thread
from apps.study import pool

def backend(folder, units, request, tick):
    def told():
        if small.training():
            print(*(one.pid for one in multiprocessing.active_children()), flush=True)
    pool.TICK = 0.1
    return one_thread(folder, units, request, told)

if __name__ == "__main__":
    small = SmallStudy(Lab(*map(Path, sys.argv[3:])), "orphaned", (111,), LONG)
    small.done(backend)
"""


@pytest.mark.slow
def test_processes_of_a_killed_study_save_and_end(brain):
    script = brain.root / "a_study.py"
    script.write_text(STUDY)
    places = [ROOT, ROOT / "tests", brain.root, brain.config, brain.weights]
    study = subprocess.Popen([sys.executable, script, *map(str, places)], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in study.stdout.readline().split()]
    assert len(workers) == 1 and alive(workers[0])
    study.kill()
    study.communicate()
    until(lambda: not alive(workers[0]))
    small = SmallStudy(brain, "orphaned", (111,), LONG)
    assert small.states() == ["waiting"] and len(small.saved()) == 1


def test_processes_share_processors_and_gpus(monkeypatch):
    monkeypatch.setattr(pool, "processors", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = [one["OMP_NUM_THREADS"] for one in pool.places(0)]
    assert threads == ["8"] and [one["OMP_NUM_THREADS"] for one in pool.places(3)] == ["2"] * 3
    assert [one["LOCAL_WORLD_SIZE"] for one in pool.places(3)] == ["3"] * 3  # readers of images are shared out too
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in pool.places(0)] == ["4", "7"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in pool.places(3)] == ["4", "7", "4"]
    assert {one["MKL_NUM_THREADS"] for one in pool.places(0)} == {"4"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # whoever says it means it
    assert {one["MKL_NUM_THREADS"] for one in pool.places(0)} == {"3"}

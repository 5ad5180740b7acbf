"""Studies of short runs on a tiny CLIP, done by a backend and looked at afterwards."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.lab import SIZE, Lab

from apps.study.plan import Column, Plan, Run
from apps.study.pool import run_locally
from apps.study.study import Backend, Study
from engine.run_folder import RESULTS, UNFINISHED, about
from runtime.stopping import StopRequest

LONG = 60  # epochs that take some seconds, so that something can be done to a training
BOTH = (Column("MADFF"), Column("MVFA", {"adapter": "mvfa"}))


@dataclass(frozen=True)
class SmallStudy:
    """Seeds x columns on Brain in a lab; what it writes goes below `place`, so that several backends can do it."""

    lab: Lab
    place: str
    seeds: tuple[int, ...] = (111, 222)
    epochs: int = 1
    columns: tuple[Column, ...] = BOTH[:1]

    @property
    def results(self) -> Path:
        """The folder for --results_path."""
        return self.lab.root / self.place

    @property
    def folder(self) -> Path:
        """The study's own."""
        return self.results / "studies" / "small"

    def study(self) -> Study:
        """As study.py would have it, looked at now."""
        lab = self.lab
        settings = {
            "model_name": str(lab.config),
            "clip_path": lab.weights,
            "img_size": SIZE,
            "prompts": str(lab.words),
            "data_path": lab.data,
            "results_path": self.results,
            "save_path": self.results / "ckpt",
            "cache_path": lab.root / "cache",
            "device": "cpu",
            "iterate": -1,
            "epoch": self.epochs,
            "eval_every": 0,
            "batch_size": 11,
            "folds": 0,
        }
        plan = Plan("small", "small", self.columns, ("Brain",), (1,), self.seeds, settings)
        made = Study(plan, self.folder, "python study.py small", demo=False)
        made.look()
        return made

    def done(self, backend: Backend | None = None) -> "SmallStudy":
        """Have it done, by the pool of this machine with one thread a process if by nobody else."""
        self.study().run(backend or one_thread, retry=False)
        return self

    def states(self) -> list[str]:
        """How far each run is."""
        made = self.study()
        return [made.states[run].name for run in made.runs]

    def figures(self) -> list[str]:
        """results.csv and scores.csv of every run; all must be finished."""
        made = self.study()
        places = [made.states[run].folder for run in made.runs]
        return [(place / name).read_text() for place in places for name in ("results.csv", "scores.csv")]

    def finished(self) -> list[str]:
        """The keys of all run folders with results: one that was done twice is there twice."""
        return [about(path.parent)["key"] for path in self.results.glob(f"train_few/*/*/{RESULTS}")]

    def saved(self) -> list[Path]:
        """What unfinished trainings go on from."""
        return list(self.results.rglob(UNFINISHED))

    def training(self) -> list[Path]:
        """Folders of runs whose training has begun, which then have curves, and that are not finished."""
        begun = [path.parent for path in self.results.glob("train_few/*/*/curves")]
        return [folder for folder in begun if not (folder / RESULTS).exists()]

    def went_on(self) -> list[Run]:
        """Runs that went on with what was saved."""
        made = self.study()
        return [run for run in made.runs if _says(made.journal.output(run), "going on after")]


def _says(path: Path, words: str) -> bool:
    return path.exists() and words in path.read_text(encoding="utf-8")


def one_thread(
    folder: Path, units: Sequence[Sequence[Run]], request: StopRequest, tick: Callable[[], None]
) -> list[tuple[Sequence[Run], str]]:
    """The pool with as many processes as processors, or units."""
    return run_locally(folder, units, os.cpu_count() or 1, request, tick)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(happened: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)

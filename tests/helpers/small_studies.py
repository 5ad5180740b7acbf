"""Studies of a second or two a run on a tiny CLIP, done by a backend and looked at afterwards."""


from dataclasses import dataclass
from pathlib import Path

from helpers.lab import SIZE, Lab

from apps.study.journal import Journal, state_of
from apps.study.plan import Column, Plan, Run, cells_of, runs_of, units_of
from engine.run_folder import RESULTS, about

COLUMNS = (Column("MADFF"), Column("MVFA", {"adapter": "mvfa"}))


@dataclass(frozen=True)
class SmallStudy:
    """A plan in a lab; what it writes goes below `place`, so that several backends can do the same one."""

    lab: Lab
    place: str
    seeds: tuple[int, ...] = (111, 222)
    epochs: int = 1
    columns: tuple[Column, ...] = COLUMNS

    @property
    def results(self) -> Path:
        return self.lab.root / self.place

    @property
    def folder(self) -> Path:
        return self.results / "studies" / "small"

    @property
    def runs(self) -> list[Run]:
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
        }
        return runs_of(cells_of(Plan("small", "small", self.columns, ("Brain",), (1,), self.seeds, settings)))

    @property
    def units(self) -> list[list[Run]]:
        return units_of(self.runs)

    def states(self) -> list[str]:
        """How far each run is."""
        journal = Journal(self.folder)
        return [state_of(journal, run).name for run in self.runs]

    def figures(self) -> list[str]:
        """results.csv and scores.csv of every run, all of which must be finished."""
        journal = Journal(self.folder)
        places = [journal.finished(run) for run in self.runs]
        return [(place / name).read_text() for place in places for name in ("results.csv", "scores.csv")]

    def finished(self) -> list[str]:
        """The keys of all run folders with results; a run that was done twice is there twice."""
        return sorted(about(path.parent)["key"] for path in self.results.glob(f"*/*/*/{RESULTS}"))

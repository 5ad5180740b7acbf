"""One run on one object, the part that every script shares: what is seen of the test images, figures, the record."""

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from dataset import ObjectInfo, Sample
from engine import checkpoint, options
from engine.checkpoint import Checkpoint, Stage
from engine.objects import objects
from engine.score_images import truth
from engine.system import System
from report import html_report, tables
from report.gallery import Shown, page_rows, save_maps
from runtime.distributed import main_process
from runtime.environment import environment
from runtime.errors import InputError, naming
from scoring.calibration import Calibration
from scoring.evaluation import evaluate, selection
from scoring.predictions import Masks, Views

UNCALIBRATED = (
    "Scores are scaled over these very images, and no threshold is stored: the adapters came without a support."
)
AS_PUBLISHED = (
    "Labels and ground truth are the test set's own. The figures by branch above are of scores scaled over the test "
    "set, as published, so those of the fused branch may differ a little from the curves here."
)


@dataclass
class Run(ABC):
    """An object, its test images and its words, and the model that sees them."""

    args: argparse.Namespace
    info: ObjectInfo
    test: tuple[Sample, ...]
    system: System
    text: Tensor | None  # directions (D, 2); None: nothing is trained, the bank alone scores
    prompts_sha256: str

    @property
    @abstractmethod
    def name(self) -> str:
        """The run's name in file names."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The run's name for people."""

    @property
    @abstractmethod
    def calibration_note(self) -> str:
        """A sentence on what scales and thresholds are taken from."""

    @abstractmethod
    def see_test(self, again: bool = False) -> Views:
        """Views of the test images under the adapters as they are now; `again`: they will be seen again."""

    @abstractmethod
    def calibrate(self) -> Calibration | None:
        """Scales and thresholds of the adapters as they are now, never from the test images."""

    @abstractmethod
    def origin(self) -> dict:
        """What the record says of the data."""

    @property
    def masks(self) -> bool:
        """Whether the object has masks."""
        return bool(self.info.masks)

    @cached_property
    def truth(self) -> tuple[np.ndarray, Masks | None]:
        """Labels (N,) and masks bool (N, S, S), or None, of the test images."""
        return truth(self.test, self.system.size, self.masks)

    def selection(self, seen: Views) -> dict[str, float]:
        """The figures that choose the best epoch, on the test set as published."""
        return selection(seen, *self.truth, self.system.size)

    def put(self, stage: Stage, source: Path | None = None) -> Stage:
        """Load a stage's adapters (of the file `source`), calibrate them unless they are, and give the stage."""
        with naming(source or "the checkpoint"):
            self.system.decoder.load_adapters(stage.adapters)
        return stage if stage.calibration else replace(stage, calibration=self.calibrate())

    def outcome(self, stage: Stage, selected: str, seen: Views | None = None) -> tables.Outcome:
        """The figures of the stage that was put in last, or that `seen` are the test views of; with its pictures."""
        seen = self.see_test() if seen is None else seen
        figures = evaluate(seen, *self.truth, self.system.size, stage.calibration)
        if selected == "last" and self.args.save_images and main_process():
            save_maps(self.args.save_images / self.name, self.test, seen, stage.calibration, self.system.size)
        return tables.Outcome(self.info.name, stage.epoch, selected, figures)

    def record(self, script: str, started: float) -> dict:
        """How the figures of a script that began at `started` (seconds) came about, as plain data."""
        return {
            "script": f"{script}.py",
            "obj": self.info.name,
            "masks": self.masks,
            "options": options.plain(self.args),
            **self.origin(),
            "prompts_sha256": self.prompts_sha256,
            "weights_sha256": self.system.weights_sha256,
            "adapter": self.system.decoder.kind,
            "seconds": round(time.time() - started, 1),
            "device": str(self.system.device),
            "environment": environment(self.system.device),
        }

    def write_page(self, record: dict, outcome: tables.Outcome, seen: Views, calibration: Calibration | None) -> None:
        """Write report.html, of the stage whose figures `outcome` holds and whose test views are `seen`."""
        if not main_process():
            return
        size = self.system.size
        shown = Shown.of(seen, calibration, size)
        path = self.folder(record) / "report.html"
        html_report.write(
            path,
            html_report.Report(
                title=self.title,
                settings=record,
                rows=page_rows(self.test, seen, shown, size),
                scale=shown.colours,
                figures=outcome.branches,
                caption=tables.heading([outcome]),
                notes=[tables.DEMO_NOTE] * bool(self.args.demo),
                origin=f"{UNCALIBRATED if calibration is None else self.calibration_note} {AS_PUBLISHED}",
            ),
        )
        print(f"report: {path}")

    def folder(self, record: dict) -> Path:
        """Where the results of a script's record go."""
        return self.args.results_path / record["script"].removesuffix(".py") / self.name

    def write(self, record: dict, outcomes: Sequence[tables.Outcome]) -> None:
        """Write results.json and results.csv."""
        if not main_process():
            return
        folder = self.folder(record)
        tables.write_results(folder, record | {"outcomes": outcomes})
        print(f"results: {folder}")


def same_object(record: dict | None, obj: str, source: Path) -> None:
    """Raise InputError when a checkpoint's record says that it was trained for another object."""
    if record is not None and record["obj"] != obj:
        raise InputError(f"{source} was trained on {record['obj']}, not on {obj}")


def same_weights(run: Run, record: dict, source: Path) -> None:
    """Raise InputError when a checkpoint's record is of other CLIP weights."""
    if record["weights_sha256"] != run.system.weights_sha256:
        raise InputError(f"{source} was trained on other CLIP weights; name those with --pretrain or --clip_path")


def trained(
    args: argparse.Namespace, run_name: Callable[[str], str]
) -> Iterator[tuple[str, Path, Checkpoint, argparse.Namespace]]:
    """For every object that --obj or --ckpt names: its name, its checkpoint's path and content, the options to test by.

    `run_name` makes the file name of an object's checkpoint.
    """
    if args.ckpt is not None and "obj" not in args.given:
        args.obj = (checkpoint.read(args.ckpt).record or {}).get("obj", args.obj)
    for obj in objects(args):
        path = args.ckpt or args.save_path / f"{run_name(obj)}.pth"
        content = checkpoint.read(path)
        recalled = options.recall(checkpoint.fit_options(args, content), content.record, path, obj)
        objects(recalled)  # a checkpoint of the demo brings the demo's images with it
        yield obj, path, content, recalled


def test_stages(
    run: Run, script: str, content: Checkpoint, path: Path, calibrated: bool, started: float
) -> list[tables.Outcome]:
    """Evaluate the stages of a checkpoint, write the results and the last epoch's report page.

    not `calibrated`: its own thresholds do not hold.
    """
    outcomes, shown = [], None
    for selected, stage in (("last", content.last), ("best", content.best)):
        if stage is not None:
            stage = run.put(stage if calibrated else replace(stage, calibration=None), path)
            seen = run.see_test()
            outcomes.append(run.outcome(stage, selected, seen))
            shown = shown or (outcomes[0], seen, stage.calibration)
    record = run.record(script, started) | {"checkpoint": str(path)}
    run.write(record, outcomes)
    run.write_page(record, *shown)
    return outcomes


def sum_up(args: argparse.Namespace, script: str, name: str, outcomes: Sequence[tables.Outcome], shot: object) -> None:
    """Print the table; of several objects write their means too, in a folder called `name`."""
    if len({outcome.obj for outcome in outcomes}) > 1 and main_process():
        folder = args.results_path / script / name
        record = {"script": f"{script}.py", "options": options.plain(args), "outcomes": outcomes}
        tables.write_results(folder, record | {"environment": environment(), "each": "in the folders beside"})
        print(f"results: {folder}")
    print(tables.table(outcomes, shot, demo=args.demo))

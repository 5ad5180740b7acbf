"""One run on one object, what few-shot and zero-shot runs share: scoring the test set, figures, record, pages."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset import ObjectInfo, Sample
from engine.build import EncodedPrompts, taps_of
from engine.checkpoint import Snapshot
from engine.held_images import HeldImages
from engine.run_folder import RunFolder, finished, open_folder
from engine.score_images import ground_truth
from engine.series import Series
from engine.spec import SystemSpec
from engine.system import System
from report import html_report, tables
from report.gallery import Shown, page_rows, save_maps
from report.scores import write_scores
from report.tables import Result
from runtime import distributed, memory
from runtime.cache import key_of
from runtime.distributed import main_process
from runtime.environment import code_sha256, environment
from runtime.errors import InputError, naming
from scoring.evaluation import branch_figures, selection
from scoring.maps import Calibration
from scoring.raw_scores import Masks, RawScores, ScoreRule

UNCALIBRATED = (
    "Scores are scaled over these very images, and no threshold is stored: the adapters came without a support."
)
AS_PUBLISHED = (
    "Labels and ground truth are the test set's own. The figures by branch above are of scores scaled over the test "
    "set, as published; curves, threshold and verdicts are of the scores that the images show."
)
AS_CALIBRATED = "Labels and ground truth are the test set's own; figures are of scores as the support scales them."
REPORT, SCORES = "report.html", "scores.csv"
PLACES = {  # settings that say where and how a run works, and not what comes of it
    *("data_path", "clip_path", "results_path", "save_path", "save_images", "save_model", "log_dir", "ckpt"),
    *("cache_path", "cache_gb", "num_workers", "offline", "trust_weights", "save_every", "resume", "restart"),
}


@dataclass(frozen=True)
class Evaluated:
    """A snapshot's figures, with the raw scores and the calibration that they are of."""

    result: Result
    raw: RawScores
    calibration: Calibration | None


class Identity(NamedTuple):
    """Where runs like one lie, a key of all that decides its figures, and what that is."""

    parent: Path
    key: str
    about: dict[str, Any]


def identity(
    spec: SystemSpec,
    script: str,
    name: str,
    info: ObjectInfo,
    test: Sequence[Sample],
    files: Iterator[object],
    digests: Sequence[str],
) -> Identity:
    """Of a run called `name`, by its test images, by what tells its other images (`files`), and by the digests of its
    weights, its prompts and, where it has one, its checkpoint. Nothing of a model is needed."""
    options = {name: value for name, value in spec.plain().items() if name not in PLACES | {"obj"}}
    about = {"script": f"{script}.py", "obj": info.name, "options": options}
    deciding = {name: value for name, value in options.items() if name != "prompts"}  # their digest is, not their place
    known_by = (script, info.name, json.dumps(deciding, sort_keys=True), digests, _code())
    key = key_of(*known_by, [_known_by(one) for one in test], *files)
    return Identity(spec.results_path / script / name, key, about)


@dataclass
class Run(ABC):
    """An object, its test images and its prompts, and the model that scores them.

    prompts None: nothing is trained, the memory bank alone scores. series: the runs it is one of. checkpoint_sha256: of
    the file that its adapters are of, empty in training.
    """

    spec: SystemSpec
    info: ObjectInfo
    test: tuple[Sample, ...]
    system: System
    prompts: EncodedPrompts | None
    series: Series = field(default_factory=Series, kw_only=True)
    checkpoint_sha256: str = field(default="", kw_only=True)
    held: HeldImages = field(default_factory=HeldImages, kw_only=True)  # the test images, on a device

    @abstractmethod
    def files(self) -> Iterator[object]:
        """What tells its images from others of the same names: bytes, or names and sizes."""

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
    def rule(self) -> ScoreRule:
        """What makes maps and image scores."""

    @property
    @abstractmethod
    def calibration_note(self) -> str:
        """A sentence on what scales and thresholds are taken from."""

    @abstractmethod
    def score_test(self, again: bool = False) -> RawScores:
        """Raw scores of the test images under the adapters as they are now; `again`: they will be scored again."""

    @abstractmethod
    def calibrate(self, epoch: float | None = None) -> Calibration | None:
        """Scales and thresholds of the adapters as they are now, after so many epochs, never from the test images."""

    @abstractmethod
    def calibration_holds(self, record: dict | None, source: Path) -> bool:
        """Whether the calibration of a checkpoint (the file `source`) holds for this run; says why if it does not.

        Raises InputError when the checkpoint does not belong to this run at all.
        """

    @abstractmethod
    def origin(self) -> dict:
        """What the record says of the data."""

    @property
    def masks(self) -> bool:
        """Whether the object has masks."""
        return bool(self.info.masks)

    @property
    def trainable(self) -> bool:
        """Whether there are adapters; the bare trunk has none."""
        return self.system.decoder.kind != "none"

    @property
    def prompts_sha256(self) -> str:
        """Of the sentences; empty where there are none."""
        return self.prompts.sha256 if self.prompts else ""

    def _reading(self, again: bool) -> dict[str, Any]:
        """How `score_by` comes by the test images; `again`: they will be scored again."""
        held = self.held if self.system.device.type != "cpu" and (again or self.held.whole) else None
        together, workers = self.spec.scored_together, self.spec.num_workers
        return {"batch_size": together, "workers": workers, "keep": again or self.series.keep, "held": held}

    @cached_property
    def truth(self) -> tuple[np.ndarray, Masks | None]:
        """Labels (N,) and masks bool (N, S, S), or None, of the test images."""
        given = (self.test, self.system.size, self.masks)
        changed = tuple(sample.mask.stat().st_mtime_ns for sample in self.test if sample.mask is not None)
        return self.series.once("truth", (*given, changed), lambda: ground_truth(*given))

    def selection(self, raw: RawScores) -> dict[str, float]:
        """The figures that choose the best epoch, on the test set as published."""
        return selection(raw, *self.truth, self.system.size)

    def load_snapshot(self, snapshot: Snapshot, source: Path | None = None) -> Snapshot:
        """Load a snapshot's adapters (of the file `source`), calibrate them unless they are, and give the snapshot."""
        with naming(source or "the checkpoint"):
            self.system.decoder.load_adapters(snapshot.adapters)
        return snapshot if snapshot.calibration else replace(snapshot, calibration=self.calibrate(snapshot.epoch))

    def evaluated(self, snapshot: Snapshot, selected: str, raw: RawScores | None = None) -> Evaluated:
        """The figures of the snapshot that was loaded last, or that `raw` is of."""
        raw = self.score_test() if raw is None else raw
        if snapshot.calibration is not None:
            raw = raw.of_taps(snapshot.calibration.taps)
        figures = branch_figures(raw, *self.truth, self.system.size, snapshot.calibration)
        return Evaluated(Result(self.info.name, snapshot.epoch, selected, figures), raw, snapshot.calibration)

    def record(self, script: str, started: float) -> dict:
        """How the figures of a script that began at `started` (seconds) came about, as plain data."""
        taps = list(self.system.decoder.taps)
        return {
            "script": f"{script}.py",
            "obj": self.info.name,
            "masks": self.masks,
            "options": self.spec.plain() | {"features_list": taps},
            **self.origin(),
            "prompts_sha256": self.prompts_sha256,
            "weights_sha256": self.system.weights_sha256,
            "sentences": self.prompts.sentences if self.prompts else {},
            "adapter": self.system.decoder.kind,
            "seconds": round(time.time() - started, 1),
            "peak_memory_mb": memory.peak_mb(self.system.device),
            "device": str(self.system.device),
            "environment": environment(self.system.device),
        }

    def identity(self, script: str) -> Identity:
        """What this run's folder is found by."""
        digests = [self.system.weights_sha256, self.prompts_sha256, *filter(None, [self.checkpoint_sha256])]
        return identity(self.spec, script, self.name, self.info, self.test, self.files(), digests)

    def finished(self, script: str) -> list[Result]:
        """The results of a run like this one that was finished before; none if there is none."""
        parent, key, _ = self.identity(script)
        folder = finished(parent, key)
        return [] if folder is None else tables.read_results(folder)

    def open_folder(self, script: str, *, resume: bool = False, anew: bool = False) -> RunFolder:
        """This run's own folder, that of an unfinished run like it unless `anew`; see `run_folder.open_folder`."""
        (parent, key, about), own = self.identity(script), []

        def open_it() -> Path:
            own.append(open_folder(parent, key, about, resume=resume, anew=anew, copies=not self.series.keep))
            return own[0].path

        path = distributed.of_main(open_it)
        return own[0] if own else RunFolder(path, None)

    def write(self, folder: RunFolder, record: dict, evaluated: Sequence[Evaluated]) -> None:
        """Write results.json, results.csv, scores.csv and report.html, of the first snapshot."""
        if not main_process():
            return
        first, size = evaluated[0], self.system.size
        if self.spec.save_images:
            pictures = self.spec.save_images / self.name
            save_maps(pictures, self.test, first.raw, first.calibration, size)
        self._write_page(folder.path / REPORT, record, first)
        scores = [(one.result.selected, one.raw, one.calibration) for one in evaluated]
        write_scores(folder.path / SCORES, self.test, scores, self.spec.data_path, size)
        if self.series.written:
            self.series.written(folder.path, self, evaluated)
        tables.write_results(folder.path, record | {"results": [one.result for one in evaluated]})  # finished by this
        for name in (REPORT, SCORES, tables.CSV, tables.JSON):
            folder.publish(name)
        print(f"results: {folder.path}")

    def _write_page(self, path: Path, record: dict, one: Evaluated) -> None:
        size = self.system.size
        shown = Shown.of(one.raw, one.calibration, size)
        html_report.write(
            path,
            html_report.Report(
                title=f"{self.title}: images of the test split",
                settings=record,
                rows=page_rows(self.test, one.raw, shown, size, one.calibration),
                scale=shown.colours,
                figures=one.result.branches,
                caption=tables.heading([one.result]),
                notes=[*[tables.DEMO_NOTE] * bool(self.spec.demo), *self.spec.notes],
                beside=[SCORES],
                reliability=[] if one.calibration is None else one.calibration.sentences(shown.branch),
                origin=f"{UNCALIBRATED if one.calibration is None else self.calibration_note} {self._scaling(one.raw)}",
            ),
        )

    @staticmethod
    def _scaling(raw: RawScores) -> str:
        """What the figures by branch are scaled by."""
        return AS_CALIBRATED if raw.map_patches.recipe.support_scaled else AS_PUBLISHED


@cache
def _code() -> str:
    """Of the code as it is when this process first asks, which is what it runs, whatever is edited meanwhile."""
    return code_sha256()


def _known_by(sample: Sample) -> tuple[object, ...]:
    """What tells a test image from others: its label, name and size, and those of its mask."""
    files = [path for path in (sample.image, sample.mask) if path is not None]
    return sample.label, *((path.name, path.stat().st_size) for path in files)


def same_weights(run: Run, record: dict, source: Path) -> None:
    """Raise InputError when a checkpoint's record is of other CLIP weights."""
    if record["weights_sha256"] != run.system.weights_sha256:
        raise InputError(f"{source} was trained on other CLIP weights; name those with --pretrain or --clip_path")


def write_means(spec: SystemSpec, script: str, name: str, results: Sequence[Result]) -> None:
    """Of several objects write their means too, in a folder called `name`."""
    if len({result.obj for result in results}) > 1 and main_process():
        options = spec.plain() | {"features_list": list(taps_of(spec))}
        about = {"script": f"{script}.py", "obj": spec.obj, "options": options}
        record = about | {"environment": environment(), "each": "in the folders beside", "results": results}
        with open_folder(spec.results_path / script / name, key_of(json.dumps(about)), about, anew=True) as folder:
            tables.write_results(folder.path, record)
            for file in (tables.CSV, tables.JSON):
                folder.publish(file)
        print(f"results: {folder.path}")

"""What is known of a study's runs: the folders of finished ones are its journal; failures are noted beside."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from apps.study.plan import AGAIN, FEW, ZERO, Run
from engine import few_shot, zero_shot
from engine.checkpoint import read
from engine.options import recall
from engine.run import PLACES, Identity
from engine.run_folder import CHECKPOINT, RESULTS, finished
from engine.spec import FewShotSpec, FewShotTestSpec, TransferSpec
from runtime.cache import key_of
from runtime.errors import InputError
from runtime.files import atomic_write, sha256
from scoring.patch_scores import BRANCHES

DATA = ("obj", "data_path", "shot", "abnormal_shot", "iterate", "seed", "classname", "demo")  # what decides the images
ZERO_DATA = ("obj", "data_path", "classname", "demo", "epoch")  # those of transfer
CLAIMS = ".claims"  # folder below the results with a lock for every run that somebody does


class MissingData(InputError):
    """A run's images are not there, or are not what they should be."""


@dataclass(frozen=True)
class Known:
    """Where a run of a study will be found: its identity; `checkpoint` of the run that trained its adapters."""

    identity: Identity
    checkpoint: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Its folder, if it is finished."""
        return finished(self.identity.parent, self.identity.key)


class Journal:
    """The journal of a study: `folder` holds the notes of failures, and the runs' output as text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Run, Known] = {}

    def known(self, run: Run) -> Known | None:
        """What the run is found by; None while its checkpoint is not made. MissingData, or InputError for weights."""
        if run not in self._known:
            checkpoint = None
            if run.script == AGAIN:
                trained = self.finished(run.trained_by)
                if trained is None:
                    return None
                checkpoint = trained / CHECKPOINT
            self._known[run] = Known(_identity(run, checkpoint), checkpoint)
        return self._known[run]

    def finished(self, run: Run) -> Path | None:
        """The folder of a run that is finished."""
        known = self.known(run)
        return None if known is None else known.folder

    def failure(self, run: Run) -> str | None:
        """Why the run failed, None if it did not."""
        try:
            return str(json.loads(self._note(run).read_text(encoding="utf-8"))["reason"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def note_failure(self, run: Run, reason: str) -> None:
        """Write down why a run failed."""
        with atomic_write(self._note(run)) as draft:
            draft.write_text(json.dumps({"run": run.words, "reason": reason}, indent=1) + "\n", encoding="utf-8")

    def forget_failure(self, run: Run) -> None:
        """Let the run be tried again."""
        self._note(run).unlink(missing_ok=True)

    def output(self, run: Run) -> Path:
        """The file for what a run prints."""
        return self.folder / "output" / f"{_file_name(run)}.txt"

    def _note(self, run: Run) -> Path:
        return self.folder / "failed" / f"{_file_name(run)}.json"


def _file_name(run: Run) -> str:
    """The run in words and digits that a file may be called, the same whenever the same study is planned."""
    words = re.sub(r"[^\w.-]+", "_", run.words, flags=re.ASCII)[:120]
    settings = {name: value for name, value in run.spec.plain().items() if name not in PLACES}
    spec = json.dumps([run.script, settings, run.scored_with], sort_keys=True)
    return f"{words}_{key_of(spec)[:8]}"


def asked_again(run: Run, checkpoint: Path) -> dict[str, Any]:
    """The settings by which a checkpoint is scored under the prompts of the run."""
    spec = run.spec
    places = {name: getattr(spec, name) for name in ("data_path", "results_path", "cache_path", "cache_gb", "device")}
    found = {"ckpt": checkpoint, "obj": spec.obj, "prompts": run.scored_with, "num_workers": spec.num_workers}
    return places | found | {"offline": spec.offline, "trust_weights": spec.trust_weights, "precision": spec.precision}


def _identity(run: Run, checkpoint: Path | None) -> Identity:
    spec = run.spec
    if run.script == ZERO:
        return zero_shot.identity_of(spec, _transfer_data(tuple(getattr(spec, name) for name in ZERO_DATA)))
    _, data = _few_shot_data(tuple(getattr(spec, name) for name in DATA))
    if run.script == FEW:
        return few_shot.identity_of(few_shot.settled(spec, data), data)
    spec = recall(FewShotTestSpec, asked_again(run, checkpoint), read(checkpoint), checkpoint, spec.obj)
    return few_shot.identity_of(few_shot.settled(spec, data), data, AGAIN, sha256(checkpoint))


@lru_cache(maxsize=64)
def _few_shot_data(values: tuple) -> tuple[FewShotSpec, Any]:
    """The images behind the settings of `DATA`: those of many runs are the same."""
    with _silently():
        return few_shot.prepare(FewShotSpec(**dict(zip(DATA, values, strict=True))), values[0])


@lru_cache(maxsize=8)
def _transfer_data(values: tuple) -> zero_shot.TransferSet:
    """The images behind the settings of `ZERO_DATA`."""
    with _silently():
        return zero_shot.prepare(TransferSpec(**dict(zip(ZERO_DATA, values, strict=True))), values[0])


@contextmanager
def _silently() -> Iterator[None]:
    try:
        with redirect_stdout(StringIO()):
            yield
    except InputError as fault:
        raise MissingData(str(fault)) from fault


def is_changed(journal: Journal, run: Run) -> bool:
    """Whether the run's images or sentences, looked at anew, are other ones than the journal knows it by."""
    _few_shot_data.cache_clear()
    _transfer_data.cache_clear()
    try:
        known = Journal(journal.folder).known(run)
    except InputError:
        return True
    return known is not None and known.identity.key != journal.known(run).identity.key


@contextmanager
def claim(known: Known) -> Iterator[bool]:
    """Whether this process has the run to itself, as long as the block goes on; another that dies lets go of it."""
    parent, key = known.identity.parent, known.identity.key
    place = parent.parent.parent / CLAIMS
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{key[:32]}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def read_record(folder: Path) -> Mapping[str, Any]:
    """A finished run's results.json. InputError names one that is damaged."""
    path = folder / RESULTS
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not (record["results"] and all(map(_is_result, record["results"]))):
            raise ValueError("not results")
        if not all(_is_number(record.get(name)) for name in ("seconds", "peak_memory_mb")):
            raise ValueError("not numbers")
        if not all(value is None or isinstance(value, (str, int)) for value in record.get("environment", {}).values()):
            raise ValueError("not an environment")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as fault:
        raise InputError(f"{path} is damaged; remove {folder} and run the study again") from fault
    return record


def _is_result(result: Mapping[str, Any]) -> bool:
    """Whether it is a selection's figures, by branch."""
    branches = result["branches"]
    named = branches and branches.keys() <= set(BRANCHES) and isinstance(result["selected"], str)
    figures = [value for figures in branches.values() for value in figures.values()]
    epochs = _is_number(result["epoch"])  # transfer has fractions of one
    return bool(named) and epochs and all(_is_number(value, 1.0) for value in figures)


def _is_number(value: object, most: float = sys.float_info.max) -> bool:
    """Whether it is from 0 to `most`, or unknown."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most)


@dataclass(frozen=True)
class State:
    """A run now: "finished", "failed", "missing data" or "waiting"; its folder, or why not."""

    name: str
    folder: Path | None = None
    reason: str = ""

    @cached_property
    def left(self) -> bool:
        """Whether it is still to be done."""
        return self.name == "waiting"


def state_of(journal: Journal, run: Run) -> State:
    """How far a run is."""
    try:
        folder = journal.finished(run)
        if folder is not None:
            read_record(folder)
    except MissingData as fault:
        return State("missing data", reason=str(fault))
    except InputError as fault:
        return State("failed", reason=str(fault))
    if folder is not None:
        return State("finished", folder)
    reason = journal.failure(run)
    if reason is None and run.trained_by is not None and (state := state_of(journal, run.trained_by)).name == "failed":
        reason = f"its training failed: {state.reason}"
    return State("waiting") if reason is None else State("failed", reason=reason)

"""The folder that each run has for itself: made when it starts, found again when it was killed, never written twice.

results/train_few/Brain_4-shot/2026-11-26_11-10-42_1f0c77ab/ holds all that the run gives; copies of the newest run's
files lie one level up, under the names that do not change.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from runtime.errors import InputError
from runtime.files import LOCK, atomic_write, lock, remove_drafts, unlock

RUN, RESULTS, UNFINISHED, CHECKPOINT = "run.json", "results.json", "unfinished.pth", "checkpoint.pth"
FOLDS = "folds"
SHOWN = 8  # digits of a run's key in its folder's name
ABANDONED = 3600.0  # seconds after which a draft is nobody's any more
STAMP = "%Y-%m-%d_%H-%M-%S"


@dataclass(frozen=True)
class RunFolder:
    """A run's own folder, which no other process writes to as long as this one lives."""

    path: Path
    lock: FileLock | None  # None: another process of the same run holds it
    copies: bool = True  # whether `publish` makes any

    def curves(self, log_dir: Path | None) -> Path:
        """Where TensorBoard's files go: into the run's own folder, or one of its name in `log_dir`."""
        return self.path / "curves" if log_dir is None else log_dir / self.path.parent.name / self.path.name

    @property
    def state(self) -> Path:
        """Where an unfinished training is kept."""
        return self.path / UNFINISHED

    def fold(self, name: str) -> Path:
        """Where what a fold of the support found is kept until the run is finished."""
        return self.path / FOLDS / f"{name}.pth"

    def publish(self, name: str, place: Path | None = None) -> Path:
        """Copy a file of the run to `place`, or one level up, over that of the run before; gives its place."""
        if not self.copies:
            return self.path / name
        place = place or self.path.parent / name
        with atomic_write(place) as draft:  # no link: who later edits the copy must not change the run
            shutil.copyfile(self.path / name, draft)
        return place

    def release(self) -> None:
        """Let others have the folder. What a finished run went on from goes; of one that kept nothing, all goes."""
        if self.lock is None:
            return
        kept = {name for name in (RESULTS, CHECKPOINT, UNFINISHED, FOLDS) if (self.path / name).exists()}
        if RESULTS in kept:
            self.state.unlink(missing_ok=True)
            shutil.rmtree(self.path / FOLDS, ignore_errors=True)
        unlock(self.lock)
        if not kept:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *fault: object) -> None:
        self.release()


def open_folder(
    parent: Path,
    key: str,
    known_by: Mapping[str, Any],
    *,
    resume: bool = False,
    anew: bool = False,
    copies: bool = True,
) -> RunFolder:
    """The newest folder in `parent` of an unfinished run with this key, else a new one.

    known_by: what `run.json` says of the run beside its key. anew: a new folder in any case. Raises InputError with
    `resume` when there is nothing to go on with.
    """
    remove_drafts(parent, ABANDONED)
    if not anew:
        for path in sorted(parent.glob(f"*_{key[:SHOWN]}*"), reverse=True):
            if about(path).get("key") == key and not (path / RESULTS).exists() and (held := lock(path)):
                if (path / RESULTS).exists():  # it was finished just now
                    unlock(held)
                    continue
                remove_drafts(path)
                return RunFolder(path, held, copies)
    if resume:
        raise InputError(f"--resume: no unfinished run of these settings in {parent}; leave it out to begin one")
    stamp = f"{datetime.now():{STAMP}}_{key[:SHOWN]}"
    for number in range(1, 1000):  # several of one second
        path = parent / (stamp if number == 1 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            held = lock(path)
            note(path, {"key": key, **known_by})
            return RunFolder(path, held, copies)
    raise InputError(f"{parent} holds a thousand runs of this second; remove what is in it")


def finished(parent: Path, key: str) -> Path | None:
    """The newest folder in `parent` of a finished run with this key."""
    for path in sorted(parent.glob(f"*_{key[:SHOWN]}*"), reverse=True):
        if about(path).get("key") == key and (path / RESULTS).exists():
            return path
    return None


def running(path: Path) -> bool:
    """Whether a process is writing to a run's folder now."""
    if not (path / LOCK).exists():
        return False
    held = lock(path)
    if held:
        unlock(held)
    return held is None


def about(path: Path) -> dict[str, Any]:
    """What a folder's run.json says; nothing where it is missing or damaged."""
    try:
        found = json.loads((path / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def note(path: Path, known_by: Mapping[str, Any]) -> None:
    """Write a folder's run.json."""
    with atomic_write(path / RUN) as draft:
        draft.write_text(json.dumps(known_by, indent=1) + "\n", encoding="utf-8")

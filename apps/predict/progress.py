"""What a run has finished, noted file by file, so that a run that was cut short goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from apps.predict.inputs import Reader
from apps.predict.outputs import PROGRESS, TABLE, UNREADABLE, ScoredPicture
from apps.predict.segmentation import read_cell
from apps.predict.spec import PredictSpec
from runtime.errors import InputError
from runtime.files import atomic_write

PNG_END = b"IEND\xaeB`\x82"
NEUTRAL = ("output", "restart", "cache_path", "cache_gb", "offline", "trust_weights")  # no score depends on these
NAMING_FILES = ("ckpt", "clip_path", "model_name", "prompts", "normal", "abnormal")


def settings_of(spec: PredictSpec, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What scores and pictures depend on: the settings asked for, and the state of the files that they name."""
    plain = spec.plain()
    said = {name: plain[name] for name in sorted(asked) if name in plain and name not in NEUTRAL}
    return said | {f"{name}'s files": state(Path(said[name])) for name in NAMING_FILES if said.get(name)}


def state(*paths: Path) -> str:
    """A digest of where files lie, their sizes and times of change; a folder counts as all files in it."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    known = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def stamp(file: Path, name: str, reader: Reader) -> str:
    """What a file's rows hold for: its name in the output, its state, and that of its mask."""
    paths = [file]
    with suppress(InputError):  # without its mask it is not scored at all
        paths += [reader.masks.of(file)] if reader.masks else []
    return f"{name} {state(*paths)}"


class Progress:
    """progress.jsonl of an output folder: a line with the settings, then one with stamp and rows for every file done.

    Files with a fault are left out: the next run tries them again. Raises InputError where a run of other settings,
    or of unknown ones, wrote to the folder, unless it is to `restart`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], restart: bool) -> None:
        self.folder, self.path, self.settings = folder, folder / PROGRESS, settings
        self.lines: dict[str, dict] = {}  # by file
        self.model: str | None = None  # that scored them
        self.stamps: Mapping[Path, str] = {}
        if restart or not (self.path.exists() or (folder / TABLE).exists()):
            return
        before, *lines = _read(self.path) or [{}]
        self.model = before.pop("model", None)
        differing = [name for name in before | settings if before.get(name) != settings.get(name)]
        if differing:
            known = f"other settings ({', '.join(f'--{name}' for name in differing)})" if before else "unknown settings"
            raise self._other(known)
        self.lines = {line["file"]: line for line in lines}

    def _other(self, known: str) -> InputError:
        return InputError(
            f"--output {self.folder} holds a run with {known}: name another folder, or begin anew with --restart"
        )

    def check_model(self, model: str) -> None:
        """Raise InputError where another model than that of this hash scored what is there."""
        if model != self.model:
            raise self._other("other sentences, support images, weights or code")

    def rows(self, file: Path, stamp: str) -> list[ScoredPicture]:
        """A file's rows if it is finished and the same still, with all its pictures there and whole; else none."""
        line = self.lines.get(str(file), {})
        rows = line.get("rows", []) if line.get("stamp") == stamp else []
        there = all((self.folder / row.image).exists() for row in rows)
        made = (self.folder / path for row in rows for path in (row.map, row.overlay, row.mask))
        return rows if there and all(map(_whole, made)) else []

    def start(self, stamps: Mapping[Path, str], model: str) -> dict[Path, list[ScoredPicture]]:
        """Begin the file with what still holds, and give it: rows by file. stamps: of all files to score.

        model: a hash of what scores them. InputError where another one did.
        """
        self.stamps = stamps
        if self.lines:
            self.check_model(model)
        done = {file: rows for file, stamp in stamps.items() if (rows := self.rows(file, stamp))}
        with atomic_write(self.path) as draft:
            kept = [{**self.settings, "model": model}, *(self._line(file, rows) for file, rows in done.items())]
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        return done

    def add(self, file: Path, rows: list[ScoredPicture]) -> None:
        """Note that a file is finished, unless with a fault."""
        if not any(row.verdict == UNREADABLE for row in rows):
            with self.path.open("a", encoding="utf-8") as progress:
                progress.write(json.dumps(self._line(file, rows)) + "\n")

    def _line(self, file: Path, rows: list[ScoredPicture]) -> dict:
        return {"file": str(file), "stamp": self.stamps[file], "rows": [asdict(row) for row in rows]}


def _read(path: Path) -> list[dict]:
    """The settings, then a line for every file, up to one that was not written to its end.

    Raises InputError for a file that is damaged.
    """
    try:
        texts = path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    except ValueError as fault:
        raise InputError(f"{path} is damaged; begin anew with --restart") from fault
    found = []
    for number, text in enumerate(texts):
        try:
            line = json.loads(text)
            if number and not (isinstance(line["file"], str) and isinstance(line["stamp"], str)):
                raise TypeError
            found.append(line | {"rows": [_row(row) for row in line["rows"]]} if number else dict(line))
        except (ValueError, TypeError, KeyError, RecursionError) as fault:
            raise InputError(f"{path} is damaged in line {number + 1}; begin anew with --restart") from fault
    return found


def _row(plain: Mapping[str, Any]) -> ScoredPicture:
    """A row as it was; TypeError or ValueError for what none ever was."""
    row = ScoredPicture(**plain)
    pictures = (row.image, row.map, row.overlay, row.mask)
    texts = (row.file, row.verdict, row.note, *pictures, row.findings, row.shown, row.plane)
    numbers = [
        row.score,
        row.threshold,
        row.seconds,
        *(one for one in (row.confidence, row.p_value) if one is not None),
    ]
    if not all(isinstance(one, str) for one in texts) or type(row.uncertain) is not bool or not isfinite(sum(numbers)):
        raise ValueError(f"{plain} is no row")
    read_cell(row.findings)
    return row


def _whole(path: Path) -> bool:
    """Whether a PNG is there to its end."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(-len(PNG_END), os.SEEK_END)
        return file.read() == PNG_END
    return False

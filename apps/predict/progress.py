"""What a run has finished, noted file by file, so that a run that was cut short goes on where it stopped."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apps.predict.inputs import Reader
from apps.predict.outputs import PROGRESS, TABLE, UNREADABLE, ScoredPicture
from apps.predict.spec import PredictSpec
from runtime.errors import InputError
from runtime.files import atomic_write

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
        self.stamps: Mapping[Path, str] = {}
        if restart or not (self.path.exists() or (folder / TABLE).exists()):
            return
        before, *lines = _read(self.path) or [{}]
        differing = [name for name in before | settings if before.get(name) != settings.get(name)]
        if differing:
            what = f"other settings ({', '.join(f'--{name}' for name in differing)})" if before else "unknown settings"
            raise InputError(
                f"--output {folder} holds a run with {what}: name another folder, or begin anew with --restart"
            )
        self.lines = {line["file"]: line for line in lines}

    def rows(self, file: Path, stamp: str) -> list[ScoredPicture]:
        """A file's rows if it is finished and the same still, with all its pictures there; else none."""
        line = self.lines.get(str(file), {})
        rows = [ScoredPicture(**row) for row in line.get("rows", ()) if line["stamp"] == stamp]
        there = all(
            (self.folder / path).exists() for row in rows for path in (row.image, row.map, row.overlay, row.mask)
        )
        return rows if there else []

    def start(self, stamps: Mapping[Path, str]) -> dict[Path, list[ScoredPicture]]:
        """Begin the file with what still holds, and give it: rows by file. stamps: of all files to score."""
        self.stamps = stamps
        done = {file: rows for file, stamp in stamps.items() if (rows := self.rows(file, stamp))}
        with atomic_write(self.path) as draft:
            kept = [self.settings, *(self.lines[str(file)] for file in done)]
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        return done

    def add(self, file: Path, rows: list[ScoredPicture]) -> None:
        """Note that a file is finished, unless with a fault."""
        if not any(row.verdict == UNREADABLE for row in rows):
            line = {"file": str(file), "stamp": self.stamps[file], "rows": [asdict(row) for row in rows]}
            with self.path.open("a", encoding="utf-8") as progress:
                progress.write(json.dumps(line) + "\n")


def _read(path: Path) -> list[dict]:
    """The lines of the file, up to one that was not written to its end."""
    found = []
    with suppress(FileNotFoundError, ValueError):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            found.append(json.loads(line))
    return found

"""The runs that were made: list them, lay some side by side, name one, delete some.

python -m engine.runs                              every run below results/, with its AUROC, oldest first
python -m engine.runs compare RUN RUN ...          which settings differ, and what came of each
python -m engine.runs tag RUN "before the move"    a name of one's own; "" takes it away
python -m engine.runs delete RUN ...               their folders, unless they are tagged or being written to

RUN is a folder, or as much of its name as no other run's has: the hash at its end will do.
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.run_folder import RESULTS, RUN, about, note, running
from report.tables import COLUMNS
from runtime.errors import InputError, Parser, exit_code
from runtime.flags import path
from scoring.patch_scores import BRANCHES


@dataclass(frozen=True)
class KnownRun:
    """A run's folder and what its files say: `about` (run.json), and `results`, empty until it is finished."""

    path: Path
    about: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        """train_few/Brain_4-shot/2026-11-26_11-10-42_1f0c77ab."""
        return "/".join(self.path.parts[-3:])

    @property
    def state(self) -> str:
        """finished, running or unfinished."""
        if self.results:
            return "finished"
        return "running" if running(self.path) else "unfinished"

    @property
    def settings(self) -> dict[str, str]:
        """Every setting in words, by name."""
        options = self.about.get("options")
        return {name: _words(value) for name, value in options.items()} if isinstance(options, dict) else {}

    def figures(self, selected: str = "last") -> dict[str, float]:
        """In percent the figures of the last or best epoch, by the branch that stands for it."""
        for result in self.results:
            branches = result.get("branches")
            if result.get("selected") == selected and isinstance(branches, dict):
                branch = next((branches[one] for one in reversed(BRANCHES) if one in branches), {})
                return {name: 100 * branch[name] for name in COLUMNS if _number(branch.get(name))}
        return {}


def known_runs(results_path: Path) -> list[KnownRun]:
    """All runs below `results_path`, the oldest first."""
    found = [_read(path.parent) for path in results_path.glob(f"*/*/*/{RUN}")]
    return sorted(found, key=lambda run: (run.path.name, run.name))


def _read(path: Path) -> KnownRun:
    try:
        found = json.loads((path / RESULTS).read_text(encoding="utf-8"))
        results = [one for one in found.get("means") or found["results"] if isinstance(one, dict)]
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        results = []
    return KnownRun(path, about(path), results)


def find(runs: Sequence[KnownRun], name: str) -> KnownRun:
    """The one run that a folder, or a part of its name, stands for; InputError for none or several."""
    if (Path(name) / RUN).is_file():
        return _read(Path(name).resolve())
    found = [run for run in runs if name and name in run.name]
    if len(found) != 1:
        what = f"{len(found)} runs are" if found else "no run is"
        raise InputError(f"{what} called {name}; python -m engine.runs lists them")
    return found[0]


def list_runs(runs: Sequence[KnownRun]) -> list[str]:
    """A line a run."""
    if not runs:
        return ["no runs"]
    rows = [("run", "state", "seed", "method", "adapter", "prompts", "AUROC", "pixel", "tag")]
    for run in runs:
        figures, settings = run.figures(), run.settings
        cells = (settings.get(name, "") for name in ("seed", "method", "adapter", "prompts"))
        auroc = (_percent(figures.get(name)) for name in ("image_auroc", "pixel_auroc"))
        rows.append((run.name, run.state, *cells, *auroc, _words(run.about.get("tag", ""))))
    return _columns(rows)


def compare(runs: Sequence[KnownRun]) -> list[str]:
    """The settings in which runs differ and their figures, a column a run."""
    settings = [run.settings for run in runs]
    names = dict.fromkeys(name for one in settings for name in one)
    rows = [("", *(run.path.name for run in runs)), ("object", *(_words(run.about.get("obj", "")) for run in runs))]
    for name in names:
        values = [one.get(name, "") for one in settings]
        if len(set(values)) > 1:
            rows.append((f"--{name}", *values))
    for selected in ("last", "best"):
        figures = [run.figures(selected) for run in runs]
        for name in COLUMNS:
            if any(name in one for one in figures):
                rows.append((f"{selected} {name}", *(_percent(one.get(name)) for one in figures)))
    return _columns(rows)


def delete(runs: Sequence[KnownRun]) -> list[str]:
    """Remove the runs' folders, all or none."""
    for run in runs:
        if run.about.get("tag"):
            raise InputError(
                f'{run.path} is tagged {run.about["tag"]}; take the tag away first: tag {run.path.name} ""'
            )
        if running(run.path):
            raise InputError(f"{run.path} is being written to; stop that run first")
    for run in runs:
        shutil.rmtree(run.path)
    return [f"deleted: {run.path}" for run in runs]


def tag(run: KnownRun, words: str) -> list[str]:
    """Note a name of one's own in a run's folder."""
    note(run.path, {**run.about, "tag": words})
    return [f"{run.path}: {words or 'no tag'}"]


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says and print it."""
    help = {"help": "where the runs' folders lie (default: results)", "type": path, "metavar": "DIR"}
    parser = Parser(
        prog="python -m engine.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results_path", default=Path("results"), **help)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, wanted in (
        ("list", {}),
        ("compare", {"runs": "+"}),
        ("tag", {"run": None, "words": None}),
        ("delete", {"runs": "+"}),
    ):
        command = commands.add_parser(name)
        command.add_argument("--results_path", default=argparse.SUPPRESS, **help)
        for argument, count in wanted.items():
            command.add_argument(argument, nargs=count)
    args = parser.parse_args(argv)
    runs = known_runs(args.results_path)
    if args.command == "compare":
        if len(args.runs) < 2:
            raise InputError("compare takes two runs or more; python -m engine.runs lists them")
        lines = compare([find(runs, name) for name in args.runs])
    elif args.command == "tag":
        lines = tag(find(runs, args.run), args.words)
    elif args.command == "delete":
        lines = delete([find(runs, name) for name in args.runs])
    else:
        lines = list_runs(runs)
    print(*lines, sep="\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""How long the runs of a study that are left will take, and how much disk: reckoned from runs that were made here."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.study.journal import read_record
from apps.study.plan import Run
from engine.run_folder import RESULTS
from engine.runs import KnownRun, known_runs
from runtime.errors import InputError

LIKE = (
    "script",
    "obj",
    "model_name",
    "img_size",
    "adapter",
    "method",
    "epoch",
    "eval_every",
)  # the last ones matter least


@dataclass(frozen=True)
class Estimate:
    """Of the runs that are left: seconds and bytes, and of how many runs nothing is known."""

    seconds: float
    size: int
    unknown: int


def estimate(left: Sequence[Run], results_path: Path) -> Estimate:
    """The median of the most similar finished runs, for each run that is left."""
    made = [(_traits(of), *of_cost) for of in known_runs(results_path) if (of_cost := _cost(of))]
    found = [_nearest(_wanted(run), made) for run in left]
    known = [one for one in found if one]
    return Estimate(sum(seconds for seconds, _ in known), int(sum(size for _, size in known)), len(found) - len(known))


def _wanted(run: Run) -> dict[str, str]:
    values = {**run.spec.plain(), "script": run.script}
    return {name: str(values.get(name)) for name in LIKE}


def _traits(run: KnownRun) -> dict[str, str]:
    values = {**run.about.get("options", {}), "obj": run.about.get("obj"), "script": str(run.about.get("script"))[:-3]}
    return {name: str(values.get(name)) for name in LIKE}


def _cost(run: KnownRun) -> tuple[float, int] | None:
    """Seconds and bytes of a finished run."""
    if not (run.path / RESULTS).is_file():
        return None
    try:
        seconds = read_record(run.path).get("seconds")
    except InputError:
        return None
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    return (float(seconds), size) if isinstance(seconds, (int, float)) else None


def _nearest(
    wanted: Mapping[str, str], made: Iterable[tuple[Mapping[str, str], float, int]]
) -> tuple[float, float] | None:
    """Median seconds and bytes of those runs that share the most traits, the script and the model among them."""
    alike: dict[int, list[tuple[float, int]]] = {}
    for traits, seconds, size in made:
        if all(traits[name] == wanted[name] for name in ("script", "model_name", "img_size")):
            shared = sum(traits[name] == wanted[name] for name in LIKE)
            alike.setdefault(shared, []).append((seconds, size))
    if not alike:
        return None
    nearest = alike[max(alike)]
    return statistics.median(one for one, _ in nearest), statistics.median(one for _, one in nearest)

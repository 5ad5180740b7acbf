"""What a run found: the table at its end, with published numbers below, `results.json` and `results.csv`.

Metrics are fractions in [0, 1] under the names in COLUMNS, nan where one is not defined (printed n/a, null in
JSON, empty in CSV). Tables and published numbers are in percent.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dataset.registry import FAMILIES
from report.published import PATCHCORE, published
from runtime.errors import InputError
from runtime.files import atomic_write, no_formula
from scoring.patch_scores import BRANCHES

COLUMNS = {  # metric -> (group, heading)
    "image_auroc": ("image", "AUROC"),
    "image_ap": ("image", "AP"),
    "image_f1_max": ("image", "F1-max"),
    "pixel_auroc": ("pixel", "AUROC"),
    "pixel_ap": ("pixel", "AP"),
    "pixel_f1_max": ("pixel", "F1-max"),
    "pixel_aupro": ("pixel", "AUPRO"),
    "sensitivity": ("stored threshold", "sens."),
    "specificity": ("stored threshold", "spec."),
    "sensitivity_at_half": ("score > 0.5", "sens."),
    "specificity_at_half": ("score > 0.5", "spec."),
}
CSV, JSON = "results.csv", "results.json"
SETTINGS = (  # that tell runs apart, of those that a run's spec has
    *("method", "shot", "abnormal_shot", "iterate", "seed", "adapter", "madff", "madff_axis", "prompts", "protocol"),
    *("img_size", "bank_cap", "learning_rate", "batch_size", "precision"),
)
DEMO_NOTE = "demo data: generated pictures; says nothing about medical images"
PUBLISHED_NOTE = "published few-shot and zero-shot epochs were selected on the test set"
SIX_MEDICAL = tuple(PATCHCORE)  # the benchmark of the published averages
INDUSTRIAL_THREE = ("mvtec", "mpdd", "btad")


@dataclass(frozen=True)
class Result:
    """What one object's test images gave at one epoch.

    selected: "last" (the end of training, whatever the test set says) or "best" (chosen on the test set).
    branches: "zero", "few", "fused" (those that ran) -> metrics, named as in COLUMNS (others are stored).
    """

    obj: str
    # Epochs trained, a fraction inside one; None: of a mean whose objects differ, or of adapters that others published.
    epoch: float | None
    selected: Literal["last", "best"]
    branches: Mapping[str, Mapping[str, float]]


def group_of(objects: Sequence[str]) -> str:
    """The name of a mean over all of a set: "mvtec" and the like, "industrial" or "medical"; else "mean"."""
    groups = {"medical": SIX_MEDICAL, **FAMILIES}
    groups["industrial"] = [name for family in INDUSTRIAL_THREE for name in FAMILIES[family]]
    return next((group for group, members in groups.items() if set(members) == set(objects)), "mean")


def mean_of(results: Sequence[Result]) -> Result:
    """The mean over objects (all of one selection), each metric over the objects where it is defined."""
    epochs = {result.epoch for result in results}
    branches: dict[str, dict[str, float]] = {}
    for branch in _present(results):
        rows = [result.branches[branch] for result in results if branch in result.branches]
        metrics = dict.fromkeys(name for row in rows for name in row)
        branches[branch] = {name: _mean([row.get(name, math.nan) for row in rows]) for name in metrics}
    epoch = epochs.pop() if len(epochs) == 1 else None
    return Result(group_of([result.obj for result in results]), epoch, results[0].selected, branches)


def grep_lines(result: Result) -> list[str]:
    """`Brain pAUC : 0.973` and `Brain AUC : 0.9244`, of the run's result; no line for what is not defined."""
    metrics = result.branches[_present([result])[-1]]
    values = (("pAUC", metrics.get("pixel_auroc")), ("AUC", metrics.get("image_auroc")))
    return [f"{result.obj} {name} : {round(float(value), 4)}" for name, value in values if _known(value)]


def table(results: Sequence[Result], shot: int | Literal["zero", "normal"] | None = None, demo: bool = False) -> str:
    """The result table of a run: a block for the last epoch, then one for the best, for those that are there.

    Rows are branches, per object, with a mean if there are several. Published numbers stand below in the same
    columns (none if `shot` is None or for demo data). Each block ends with its `grep_lines`.
    """
    blocks = []
    for selected in ("last", "best"):
        chosen = [result for result in results if result.selected == selected]
        if chosen:
            blocks.append(_block(chosen, shot, demo))
    return "\n\n".join(blocks + [DEMO_NOTE] * demo)


def _block(results: Sequence[Result], shot: int | Literal["zero", "normal"] | None, demo: bool) -> str:
    several = len(results) > 1
    shown = [*results, mean_of(results)] if several else list(results)
    names = [result.obj for result in results] + ["mean"] * several
    rows = [
        (f"{branch:<7}{name}" if several else branch, _percent(result.branches[branch]))
        for branch in _present(results)
        for name, result in zip(names, shown, strict=True)
        if branch in result.branches
    ]
    known = [
        (f"{result.obj}: {source}" if several else source, figures)
        for result in ([] if demo or shot is None else shown)
        for source, figures in published(result.obj, shot).items()
    ]
    lines = [heading(results), *_aligned(rows, known)]
    lines += [f"({PUBLISHED_NOTE})"] * bool(known) + _left_out(results) * several
    return "\n".join(lines + [line for result in shown for line in grep_lines(result)])


def heading(results: Sequence[Result]) -> str:
    """Which object and epoch a block is of, and how the epoch was chosen."""
    epochs = {result.epoch for result in results}
    epoch = str(epochs.pop()) if len(epochs) == 1 else "of each object"
    name = results[0].obj if len(results) == 1 else f"{len(results)} objects"
    if epoch == "None":
        return f"{name}, published adapters: how their epoch was chosen is not known"
    if results[0].selected == "last":
        return f"{name}, last epoch: chosen before seeing the test set (epoch {epoch})"
    return f"{name}, best epoch {epoch}: SELECTED ON THE TEST SET, as published"


def _aligned(rows: list[tuple[str, dict]], known: list[tuple[str, dict]]) -> list[str]:
    """Two lines of headings, a line per row, a line per published source, in columns of one width each."""
    first = max(len(label) for label, _ in rows + [(f"  {label}", None) for label, _ in known])
    widths = {name: max(len(heading), 6) for name, (_, heading) in COLUMNS.items()}
    groups = {}
    for name, (group, _) in COLUMNS.items():
        groups.setdefault(group, []).append(name)
    for group, (*_, last) in groups.items():  # a group is as wide as its own heading
        widths[last] += max(0, len(group) - sum(widths[name] + 2 for name in groups[group]) + 2)

    def line(label: str, cells: Mapping[str, str]) -> str:
        parts = ["  ".join(f"{cells[name]:>{widths[name]}}" for name in names) for names in groups.values()]
        return " | ".join([label.ljust(first), *parts]).rstrip()

    above = [group.ljust(sum(widths[name] + 2 for name in names) - 2) for group, names in groups.items()]
    lines = [" | ".join([" " * first, *above]).rstrip()]
    lines.append(line("", {name: heading for name, (_, heading) in COLUMNS.items()}))
    lines += [line(label, {name: _cell(row.get(name), "n/a") for name in COLUMNS}) for label, row in rows]
    if known:
        lines.append("published")
    return lines + [line(f"  {label}", {name: _cell(row.get(name), "") for name in COLUMNS}) for label, row in known]


def _left_out(results: Sequence[Result]) -> list[str]:
    """A note where a mean is over fewer objects than there are."""
    last = _present(results)[-1]
    notes = []
    for name in ("image_auroc", "pixel_auroc"):
        count = sum(_known(result.branches.get(last, {}).get(name)) for result in results)
        if 0 < count < len(results):
            notes.append(f"({COLUMNS[name][0]} means: over the {count} of {len(results)} objects that have them)")
    return notes


def _present(results: Sequence[Result]) -> list[str]:
    return [branch for branch in BRANCHES if any(branch in result.branches for result in results)]


def _percent(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * metrics[name] for name in COLUMNS if _known(metrics.get(name))}


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _cell(value: float | None, missing: str) -> str:
    return missing if value is None else f"{value:.2f}"


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if _known(value)]
    return math.fsum(known) / len(known) if known else math.nan


def write_results(folder: str | Path, record: Mapping[str, Any]) -> None:
    """Write `results.json` (everything) and `results.csv` (a row per object, epoch and branch) into `folder`.

    record: "results", a sequence of Result, and whatever else makes the record (options, support, hashes,
    environment, seed, seconds, ...) in dicts, lists, tuples, sets, paths, numbers, dataclasses. "means" over
    several objects are added, and rows for them.
    """
    results = list(record["results"])
    chosen = [[result for result in results if result.selected == way] for way in ("last", "best")]
    means = [mean_of(several) for several in chosen if len(several) > 1]
    named = [(result.obj, result) for result in results] + [("mean", mean) for mean in means]
    options = record.get("options", {})
    settings = {name: _cell_of(options[name]) for name in SETTINGS if name in options}
    rows = [
        {
            "obj": no_formula(name),
            **settings,
            "selected": result.selected,
            "epoch": _words(result.epoch),
            "branch": branch,
        }
        | dict(metrics)
        for name, result in named
        for branch, metrics in result.branches.items()
    ]
    import pandas as pd  # 30 MB that are only needed here, at the end

    columns = dict.fromkeys(["obj", *settings, "selected", "epoch", "branch", *COLUMNS])
    columns |= dict.fromkeys(name for row in rows for name in row)
    frame = pd.DataFrame(rows, columns=list(columns))
    whole = json.dumps(_plain({**record, "results": results, "means": means}), indent=1, allow_nan=False)
    with atomic_write(Path(folder) / CSV) as draft:
        frame.to_csv(draft, index=False)
    with atomic_write(Path(folder) / JSON) as draft:
        draft.write_text(whole + "\n", encoding="utf-8")


def read_results(folder: Path) -> list[Result]:
    """The results in a run's folder. Raises InputError for a file that is damaged."""
    path = folder / JSON
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["results"]
        return [Result(**{**one, "branches": _with_nan(one["branches"])}) for one in found]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as fault:
        raise InputError(f"{path} is damaged; remove {folder} and train again") from fault


def _with_nan(branches: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    return {
        branch: {name: math.nan if value is None else float(value) for name, value in metrics.items()}
        for branch, metrics in branches.items()
    }


def _cell_of(value: Any) -> Any:
    return no_formula(" ".join(map(str, value)) if isinstance(value, (list, tuple)) else value)


def _words(epoch: float | None) -> str | None:
    return None if epoch is None else f"{epoch:g}"


def _plain(value: Any) -> Any:
    """What JSON can hold: nan and infinity become null, sets are sorted, paths and the like are words."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)

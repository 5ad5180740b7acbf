"""Checkpoints on the test split of their object: figures of each snapshot, results, the report page."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import few_shot, zero_shot
from engine.checkpoint import read
from engine.open_checkpoint import OpenedCheckpoint, opened_objects
from engine.run import write_means
from engine.series import Series
from engine.spec import FewShotTestSpec, SystemSpec, TransferTestSpec
from report.tables import Result
from runtime.files import check_writable


def evaluate(checkpoint: str | Path, **settings: Any) -> list[Result]:
    """Evaluate a checkpoint of ours on its object's test split: the last epoch, and the best one if it has it.

    settings: of `FewShotTestSpec` or `TransferTestSpec` by name, those that are to be other than the checkpoint's.
    Writes results.json, results.csv and report.html. Raises InputError for whatever is missing or does not fit.
    """
    transferred = "trained_on" in (read(checkpoint).record or {})
    (TransferTestSpec if transferred else FewShotTestSpec).refuse_unknown(settings)
    return (evaluate_transfer if transferred else evaluate_few_shot)({**settings, "ckpt": Path(checkpoint)})[1]


def evaluate_few_shot(asked: Mapping[str, Any], series: Series | None = None) -> tuple[SystemSpec, list[Result]]:
    """Evaluate each object's few-shot checkpoint on its test split, against a memory bank made anew of its support.

    asked: settings of `FewShotTestSpec` by name; what they leave out is the checkpoint's. Gives the last object's spec
    and the results, of the last epoch and of the best one if the checkpoint has it. Writes results.json, results.csv
    and report.html. Raises InputError for whatever is missing or does not fit.
    """
    shot = FewShotTestSpec.of(asked).shot
    opened = opened_objects(FewShotTestSpec, asked, lambda obj: few_shot.run_name(obj, shot), "few-shot test", series)
    return _evaluate_all(opened, "test_few", lambda obj: few_shot.run_name(obj, shot), asked)


def evaluate_transfer(asked: Mapping[str, Any]) -> tuple[SystemSpec, list[Result]]:
    """Evaluate each target's checkpoint of transfer; as `evaluate_few_shot`, with settings of `TransferTestSpec`."""
    opened = opened_objects(TransferTestSpec, asked, zero_shot.run_name, "transfer test")
    return _evaluate_all(opened, "test_zero", zero_shot.run_name, asked)


def _evaluate_all(
    opened: Iterator[OpenedCheckpoint], script: str, run_name: Callable[[str], str], asked: Mapping[str, Any]
) -> tuple[SystemSpec, list[Result]]:
    results, started = [], time.time()
    for one in opened:
        results += _evaluate(one, script, started)
        spec, started = one.spec, time.time()
        del one  # else its model would still be in memory while the next one is opened
    write_means(spec, script, run_name(spec.obj), results)
    return spec, results


def _evaluate(opened: OpenedCheckpoint, script: str, started: float) -> list[Result]:
    """The figures of a checkpoint's snapshots, written; and the last epoch's report page."""
    run, evaluated = opened.run, []
    for place in (run.spec.results_path, run.spec.save_images):
        if place is not None:
            check_writable(place)
    with run.open_folder(script) as folder:
        for selected in ("last", "best"):
            snapshot = opened.load(selected)
            if snapshot is not None:
                evaluated.append(run.evaluated(snapshot, selected))
        run.write(folder, run.record(script, started) | {"checkpoint": str(opened.path)}, evaluated)
    return [one.result for one in evaluated]

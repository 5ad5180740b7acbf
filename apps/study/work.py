"""The runs of a study done in this process, one after the other, with what they share made once."""

import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from math import isfinite
from pathlib import Path
from typing import Any

from apps.study.journal import Journal, asked_again, claim, state_of
from apps.study.outputs.maps import FILE as MAPS
from apps.study.outputs.maps import HALF, keep_maps
from apps.study.plan import AGAIN, ZERO, Run
from engine.few_shot import train_few_shot
from engine.run import Evaluated
from engine.series import Series
from engine.testing import evaluate_few_shot
from engine.zero_shot import train_transfer
from report.gallery import Shown, page_rows
from report.scores import image_name
from runtime.errors import InputError
from runtime.memory import forget_peak, trim_memory


class Worker:
    """Does runs, and notes those that fail. What runs share stays from one unit of them to the next."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.series = Journal(folder), Series(keep=True, written=_keep_maps)

    def do(self, unit: Sequence[Run]) -> None:
        """Every run of the unit that is not done, has not failed, and that no other process does."""
        for run in unit:
            if state_of(self.journal, run).name == "waiting" and (known := self.journal.known(run)):
                with claim(known) as mine:
                    if mine and known.folder is None:
                        self._do(run)

    def _do(self, run: Run) -> None:
        forget_peak()
        output = self.journal.output(run)
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
            try:
                self._start(run)
                reason = "" if self.journal.finished(run) else "its images, sentences or code changed while it ran"
            except InputError as fault:
                reason = str(fault)
            except Exception as fault:  # whatever it was, the other runs go on
                traceback.print_exc()
                reason = f"{type(fault).__name__}: {fault} (see {output.name})"
        if reason:
            self.journal.note_failure(run, reason)
            self.series = Series(keep=True, written=_keep_maps)  # what it left behind may be what is wrong
        trim_memory()

    def _start(self, run: Run) -> None:
        if run.script == AGAIN:
            evaluate_few_shot(asked_again(run, self.journal.known(run).checkpoint), self.series)
        elif run.script == ZERO:
            train_transfer(run.spec, self.series)
        else:
            train_few_shot(run.spec, self.series)


def _keep_maps(folder: Path, run: Any, evaluated: Sequence[Evaluated]) -> None:
    """The maps on which a run errs most and least, for the study's page."""
    last, size = evaluated[0], run.system.size
    shown = Shown.of(last.raw, last.calibration, size)
    rows = page_rows(run.test, last.raw, shown, size, last.calibration)
    threshold = shown.colours.score_threshold
    keep_maps(
        folder / MAPS,
        [image_name(sample.image, run.spec.data_path) for sample in run.test],
        [sample.label for sample in run.test],
        shown.scores,
        [row.image for row in rows],
        [row.map for row in rows],
        threshold if isfinite(threshold) else HALF,
    )

"""A study under way: its runs, how far they are, and what comes out."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import prompt
from apps.study import plans
from apps.study.estimate import estimate
from apps.study.journal import Journal, State, claim, is_changed, state_of
from apps.study.plan import Plan, Run, cells_of, runs_of, units_of
from apps.study.stored import compare_columns, info_of, write_study
from engine.build import resolve
from runtime.bars import Bar
from runtime.environment import code_sha256
from runtime.errors import InputError, Stopped
from runtime.stopping import StopRequest, heeding

WAIT = 2.0  # seconds between looks at how far runs are
CHANGED = "its images, sentences or code are no longer those that the study began with"
Backend = Callable[[Path, Sequence[Sequence[Run]], StopRequest, Callable[[], None]], list[tuple[Sequence[Run], str]]]


class Study:
    """A plan, its runs, and how far they are."""

    def __init__(self, plan: Plan, folder: Path, command: str, demo: bool) -> None:
        self.plan, self.folder, self.cells = plan, folder, cells_of(plan)
        self.info = info_of(plan, command, demo, self.cells)
        self.runs, self.journal = runs_of(self.cells), Journal(folder)
        self.states: dict[Run, State] = {}
        self._code = code_sha256()

    def look(self) -> None:
        """See how far every run is that was not finished at the last look."""
        for run in self.runs:
            if run not in self.states or self.states[run].left:
                self.states[run] = state_of(self.journal, run)

    @property
    def left(self) -> list[Run]:
        """Runs that are still to be done."""
        return [run for run in self.runs if self.states[run].left]

    def those(self, name: str) -> list[Run]:
        """Runs of a state."""
        return [run for run in self.runs if self.states[run].name == name]

    def check(self, strict: bool) -> None:
        """Look at weights and data before anything runs; say once which images are missing.

        Raises InputError for weights that are missing, for sentences that can't be read, and with `strict` for images.
        """
        self._check_weights_and_sentences()
        self.look()
        for line in self._missing():
            if strict:
                raise InputError(line)
            print(line)

    def _check_weights_and_sentences(self) -> None:
        specs = {(run.spec.model_name, run.spec.pretrain, run.spec.clip_path): run.spec for run in self.runs}
        for spec in specs.values():
            resolve(spec)
        for chosen in {run.scored_with or run.spec.prompts for run in self.runs}:
            prompt.sentences(self.runs[0].spec.obj, chosen)

    def _missing(self) -> list[str]:
        reasons = {run.spec.obj: self.states[run].reason for run in self.those("missing data")}
        return [f"{obj} is left out: {reason}" for obj, reason in reasons.items()]

    def described(self) -> list[str]:
        """What would run, what is done, and an estimate of the rest."""
        try:
            self._check_weights_and_sentences()
        except InputError as fault:
            return [
                *(f"to do        {run.words}" for run in self.runs),
                f"{len(self.runs)} runs; not known yet: {fault}",
            ]
        self.look()
        lines = [f"{self.states[run].name:<13}{run.words}" for run in self.runs]
        lines += self._missing() + self._failures()
        found = estimate(self.left, self.folder.parent.parent)
        lines.append(f"{len(self.runs)} runs: {self._counts()}")
        if found.unknown < len(self.left):
            lines.append(
                f"the {len(self.left) - found.unknown} runs that are like others made here may take "
                f"{_duration(found.seconds)} one after the other and {found.size / 1e6:,.0f} MB"
            )
        if found.unknown:
            lines.append(f"nothing here says how long {found.unknown} of them take: no run like them was made yet")
        return lines

    def _counts(self) -> str:
        names = ("finished", "waiting", "failed", "missing data")
        return ", ".join(f"{len(self.those(name))} {name}" for name in names if self.those(name))

    def run(self, backend: Backend, retry: bool) -> None:
        """Have every run done that is left. Raises Stopped when somebody asks this process to stop."""
        if retry:
            for run in self.those("failed"):
                self.journal.forget_failure(run)
                del self.states[run]
            self.look()
        self.folder.mkdir(parents=True, exist_ok=True)
        done = len(self.runs) - len(self.left)
        with heeding() as request, Bar(total=len(self.runs), initial=done, desc=self.plan.name, unit="run") as bar:
            tick = _Ticker(self, bar)
            while not request.asked and self._is_any_left():
                before = len(self.left)
                for unit, reason in backend(self.folder, units_of(self.left), request, tick):
                    self._note_death(unit, reason)
                tick.look()
                if len(self.left) == before and not request.asked:
                    self._note_changes()
                    time.sleep(WAIT)  # others are at them
        if request.asked:
            self.finish()
            done = len(self.runs) - len(self.left)
            raise Stopped(f"stopped after {done} of {len(self.runs)} runs; the same command goes on from there")

    def _is_any_left(self) -> bool:
        """Whether anything is to be done; before the end those that were finished are looked at once more."""
        if not self.left:
            self.states.clear()
            self.look()
        return bool(self.left)

    def _note_death(self, unit: Sequence[Run], reason: str) -> None:
        """Of a unit whose process died, the run that it was at has failed; the others are still to be done."""
        at = next((run for run in unit if state_of(self.journal, run).left), None)
        if at is not None:
            self.journal.note_failure(at, reason)

    def _note_changes(self) -> None:
        """Runs fail that are found by other keys now: those who do them will not make what is waited for here."""
        code = code_sha256() != self._code
        for run in self.left:
            known = self.journal.known(run)
            if known is not None:
                with claim(known) as mine:
                    if mine and known.folder is None and (code or is_changed(self.journal, run)):
                        self.journal.note_failure(run, CHANGED)

    def _failures(self) -> list[str]:
        return [f"failed: {run.words}: {self.states[run].reason}" for run in self.those("failed")]

    def finish(self) -> list[str]:
        """Write what comes out, and say where it is and what failed."""
        self.look()
        rows = write_study(self.folder, self.info, self.journal, self.cells)
        lines = self._failures()
        if lines:
            lines.append(f"what the runs printed is in {self.folder / 'output'}")
        if self.plan.name.startswith(plans.COMPARISON):
            lines += compare_columns(rows, self.info.methods)
        return [*lines, f"{len(self.runs)} runs: {self._counts()}", f"study: {self.folder / 'study.html'}"]


class _Ticker:
    """Looks at how far the runs are, not too often, and moves the bar."""

    def __init__(self, study: Study, bar: Bar) -> None:
        self.study, self.bar, self.looked = study, bar, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.looked >= WAIT:
            self.look()

    def look(self) -> None:
        """Now."""
        self.study.look()
        left = self.study.left
        now = [run.words for run in left if self.study.journal.output(run).exists()]
        self.bar.set_postfix_str("; ".join(now[:2]), refresh=False)
        self.bar.update(len(self.study.runs) - len(left) - self.bar.n)
        self.bar.refresh()
        self.looked = time.monotonic()


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.0f} minutes"

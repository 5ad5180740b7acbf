"""What a study is: columns, each a way to train or score; and the runs that its tables need."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from apps.study.outputs.rows import MAIN
from dataset import expand
from dataset.demo import OBJECTS as IN_THE_DEMO
from engine.spec import FewShotSpec, TransferSpec
from runtime.errors import InputError, naming

FEW, ZERO, AGAIN = "train_few", "train_zero", "test_few"  # scripts; the last scores a checkpoint under other prompts
KINDS = {FEW: FewShotSpec, ZERO: TransferSpec}
SEEDS = (111, 222, 333, 444, 555)


@dataclass(frozen=True)
class Column:
    """A column of a table: a method.

    label: what stands above it. settings: of the run's spec by name, which it has of its own. group: the table that it
    stands in. script: what trains it. scored_with: prompts that its checkpoint is scored with, None: those it was
    trained with. branch: which of the run's branches stands for it, None: the main one. objects, shots: if not the
    study's.
    """

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: str = MAIN
    script: str = FEW
    scored_with: str | None = None
    branch: str | None = None
    objects: tuple[str, ...] | None = None
    shots: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """All of a study: objects (rows) x columns x shots x seeds.

    settings: of all specs. reference: the label that others are compared with, in tables that have it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    objects: tuple[str, ...]
    shots: tuple[int, ...] = (4,)
    seeds: tuple[int, ...] = SEEDS
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = [(column.group, column.label) for column in self.columns]
        for group, label in labels:
            if labels.count((group, label)) > 1:
                raise InputError(f"{self.name}: two columns of the table {group} are called {label}; rename one")
        for what, values in (("objects", self.objects), ("seeds", self.seeds), ("shots", self.shots)):
            if not values or len(set(values)) < len(values):
                raise InputError(f"{self.name}: its {what} are {'none' if not values else 'not all different'}")


@dataclass(frozen=True)
class Run:
    """One run: its spec, and for a checkpoint that is scored anew the run that trains it, and with which prompts."""

    script: str
    spec: FewShotSpec | TransferSpec
    trained_by: "Run | None" = None
    scored_with: str | None = None

    @property
    def words(self) -> str:
        """Brain, 4-shot, seed 111, madff, all: for a line of progress."""
        spec, shot = self.spec, f"{self.spec.shot}-shot" if self.script != ZERO else "zero-shot"
        how = [getattr(spec, "method", ""), spec.adapter, *([" ".join(spec.madff)] if spec.adapter == "madff" else [])]
        return ", ".join([spec.obj, shot, f"seed {spec.seed}", *filter(None, how), self.scored_with or spec.prompts])


@dataclass(frozen=True)
class Cell:
    """A run's place in the tables."""

    column: Column
    run: Run


def cells_of(plan: Plan) -> list[Cell]:
    """Every run of a plan with its place, a seed after the other; several cells may share a run."""
    return [cell for seed in plan.seeds for column in plan.columns for cell in _column_cells(plan, column, seed)]


def _column_cells(plan: Plan, column: Column, seed: int) -> Iterator[Cell]:
    shots = (column.shots or plan.shots) if column.script == FEW else (None,)
    if "shot" in {**plan.settings, **column.settings}:
        shots = shots[:1]  # the setting says it
    for obj in column.objects or plan.objects:
        for shot in shots:
            yield Cell(column, _run(plan, column, obj, shot, seed))


def _run(plan: Plan, column: Column, obj: str, shot: int | None, seed: int) -> Run:
    asked = {**plan.settings, **column.settings, "obj": obj, "seed": seed}
    if shot is not None:
        asked.setdefault("shot", shot)
    kind = KINDS[column.script]
    with naming(f"{plan.name}, column {column.label}"):
        if column.script != FEW and column.scored_with is not None:
            raise InputError(f"scored_with is for {FEW}: {column.script} has no support to take a memory bank from")
        if column.script == FEW:  # what transfer lacks is passed over: a plan's settings are for both
            kind.refuse_unknown(asked)
        run = Run(column.script, kind.of(asked))
    if column.scored_with is None or column.scored_with == run.spec.prompts:
        return run
    return Run(AGAIN, run.spec, run, column.scored_with)


def runs_of(cells: Sequence[Cell]) -> list[Run]:
    """The runs behind the cells, each once, one that trains before those that score its checkpoint."""
    wanted = [one for cell in cells for one in (cell.run.trained_by, cell.run) if one is not None]
    return list(dict.fromkeys(wanted))


def units_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that share the most, together: of one object, one draw of the support, one trunk; in the order of the runs.

    A checkpoint and what scores it are always in one.
    """
    units: dict[tuple, list[Run]] = {}
    for run in runs:
        spec = run.spec
        draw = (spec.shot, spec.abnormal_shot, spec.iterate) if isinstance(spec, FewShotSpec) else ()
        key = (spec.obj, draw, spec.seed, spec.model_name, spec.pretrain, spec.clip_path, spec.img_size)
        units.setdefault(key, []).append(run)
    return list(units.values())


def restricted(plan: Plan, objects: Sequence[str] | None, demo: bool) -> Plan:
    """The plan for some objects alone (families are taken apart), and on the demo for those that it has."""
    if objects:
        named = tuple(dict.fromkeys(name for obj in objects for name in expand(obj)))
        strange = [obj for obj in objects if demo and not IN_THE_DEMO.keys() & expand(obj)]
        if strange:
            raise InputError(f"{strange[0]}: none of its objects is in the demo, which has: {', '.join(IN_THE_DEMO)}")
        columns = tuple(
            replace(column, objects=None if column.objects is None else tuple(o for o in column.objects if o in named))
            for column in plan.columns
        )
        plan = replace(plan, objects=named, columns=tuple(one for one in columns if one.objects != ()))
    if not demo:
        return plan
    there = tuple(obj for obj in plan.objects if obj in IN_THE_DEMO)
    if not there:
        raise InputError(f"{plan.name}: none of its objects is in the demo, which has: {', '.join(IN_THE_DEMO)}")
    return replace(plan, objects=there, settings={**plan.settings, "demo": True})

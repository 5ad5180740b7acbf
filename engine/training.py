"""What few-shot and zero-shot training share: steps, epochs, which snapshots are kept, and the end of a run."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from engine.checkpoint import Checkpoint, Snapshot, write
from engine.run import Run
from engine.spec import TrainSpec
from engine.system import System
from loss import adapter_loss
from report.tables import Result
from runtime import distributed
from runtime.errors import InputError
from runtime.files import check_writable
from scoring.raw_scores import RawScores

BETAS = (0.5, 0.999)  # of Adam
ROUNDING = 1e-9  # of fractions of an epoch


class Trainer:
    """Adam for the seg and for the det adapters, one step at a time.

    A step without masks trains the det adapters alone: their loss also reaches the seg adapters, through what those
    give to the trunk, but the published code leaves them as they are (the paper's "Few-shot training").
    """

    def __init__(self, system: System, learning_rate: float) -> None:
        self.system = system
        decoder = system.decoder
        self.adapters = {"seg": decoder.seg_adapters, "det": decoder.det_adapters}
        self.optimizers = {
            head: torch.optim.Adam(adapters.parameters(), lr=learning_rate, betas=BETAS)
            for head, adapters in self.adapters.items()
        }

    def step(self, prefixes: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor, share: float = 1.0) -> float:
        """One step on prefixes (B, L, C), labels (B,), masks (B, 1, S, S); gives the loss before it.

        masks None: of an object without masks. share: of the batch, that these images are; other processes have the
        rest (and may have all of it). Raises InputError when the loss is no longer a number.
        """
        heads = ("det",) if masks is None else ("seg", "det")
        for head, adapters in self.adapters.items():
            adapters.requires_grad_(head in heads)
            self.optimizers[head].zero_grad(set_to_none=True)
        value = self._backward(prefixes, labels, masks, text, share) if len(prefixes) else 0.0
        value = distributed.all_reduce([one for head in heads for one in self.adapters[head].parameters()], value)
        if not math.isfinite(value):
            raise InputError(f"the loss became {value}; train with a lower --learning_rate (nothing was saved)")
        for head in heads:
            self.optimizers[head].step()
        return value

    def _backward(self, prefixes: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor, share: float) -> float:
        """The loss, after its gradients were taken."""
        device = self.system.device
        heads = ("det",) if masks is None else ("seg", "det")
        decoded = self.system.decoder.decode(prefixes.to(device), heads, pooled=False)
        loss = share * adapter_loss(decoded, text, labels.to(device), None if masks is None else masks.to(device))
        loss.backward()
        return loss.item()


def check_outputs(spec: TrainSpec) -> None:
    """Write to every folder that results will go to, so that the system refuses before the training, not after it."""
    for folder in (spec.results_path, spec.log_dir, spec.save_path if spec.save_model else None, spec.save_images):
        if folder is not None:
            check_writable(folder)


def shuffled(count: int, batch_size: int, generator: torch.Generator) -> Iterable[Tensor]:
    """Row numbers 0 to count - 1 in a new random order, a batch at a time."""
    return torch.randperm(count, generator=generator).split(batch_size)


@dataclass(frozen=True)
class Evaluations:
    """When training scores the test set to choose `best`, as the published script of either protocol has it.

    every: epochs, or a fraction of one; 0: never.
    ahead: before the steps of each such part of training, the first time before any step; else after them.
    later: of equal scores the later one is kept; else the first.
    """

    every: float
    ahead: bool = False
    later: bool = False

    def plan(self, epochs: int, steps: int) -> dict[int, float]:
        """Steps done -> epochs done, of every evaluation of `epochs` epochs of `steps` steps each.

        Evaluations less than a step apart fall together, on the earliest of them.
        """
        if not self.every:
            return {}
        parts = math.ceil(epochs / self.every - ROUNDING) if self.ahead else math.floor(epochs / self.every + ROUNDING)
        times = [round((part + (not self.ahead)) * self.every, 6) for part in range(parts)]
        return {math.floor(time * steps + ROUNDING): time for time in reversed(times)}


@dataclass
class TrainingHistory:
    """What training has come to: the last epoch's snapshot, and the best one by the test set."""

    last: Snapshot
    last_scores: RawScores | None = None  # None: the last epoch was not evaluated
    best: Snapshot | None = None
    best_scores: RawScores | None = None
    best_value: float = -math.inf

    @staticmethod
    def untrained(run: Run) -> "TrainingHistory":
        """Where training begins, and ends if there is nothing to train."""
        return TrainingHistory(Snapshot(0, run.system.decoder.adapter_state(), None))

    def offer(self, snapshot: Snapshot, raw: RawScores, value: float, later: bool = False) -> None:
        """Keep the snapshot if it scores higher on the test set than all before it; `later`: also if as high."""
        if value > self.best_value or (later and value == self.best_value):
            self.best, self.best_scores, self.best_value = snapshot, raw, value


class Log:
    """TensorBoard scalars of one run."""

    def __init__(self, folder: Path) -> None:
        self.writer = SummaryWriter(str(folder)) if distributed.main_process() else None

    def add(self, step: int, **values: float) -> None:
        """Scalars as they were after so many steps."""
        for name, value in values.items() if self.writer else ():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self.writer:
            self.writer.close()


def train(
    run: Run, folder: str, steps: int, epoch_losses: Callable[[], Iterator[float]], evaluations: Evaluations
) -> TrainingHistory:
    """All epochs; the best snapshot is chosen among the `evaluations`. Scalars go to `folder` under --log_dir.

    epoch_losses takes the `steps` steps of one epoch, a step whenever it is asked for the next loss.
    """
    spec, decoder = run.spec, run.system.decoder
    history, log = TrainingHistory.untrained(run), Log(spec.log_dir / folder / run.name)
    due, done = evaluations.plan(spec.epoch, steps), 0

    def score_epoch(time: float) -> None:
        snapshot, raw = Snapshot(_whole(time), decoder.adapter_state(), None), run.score_test(again=True)
        figures = run.selection(raw)
        log.add(done, **{f"test/{name}": value for name, value in figures.items()})
        history.offer(snapshot, raw, sum(figures.values()), evaluations.later)
        history.last, history.last_scores = snapshot, raw

    if 0 in due:
        score_epoch(due[0])
    hidden = not (spec.epoch and distributed.main_process())
    for _ in tqdm(range(spec.epoch), desc="training", unit="epoch", disable=hidden):
        losses = []
        for loss in epoch_losses():
            losses.append(loss)
            done += 1
            if done in due:
                score_epoch(due[done])
        log.add(done, loss=sum(losses) / len(losses))
    if spec.epoch and history.last.epoch != spec.epoch:
        history.last, history.last_scores = Snapshot(spec.epoch, decoder.adapter_state(), None), None
    log.close()
    return history


def _whole(time: float) -> int | float:
    """Epochs as people write them: 2 rather than 2.0."""
    return int(time) if time == int(time) else time


def finish(run: Run, script: str, history: TrainingHistory, started: float) -> list[Result]:
    """Write the checkpoint, then evaluate the last and the best epoch and write the results."""
    apart = history.best is not None and history.best is not history.last
    best = run.load_snapshot(history.best) if apart else None
    last = run.load_snapshot(history.last)
    if history.best is history.last:
        best = last
    record = run.record(script, started)
    if run.spec.save_model and distributed.main_process():
        path = run.spec.save_path / f"{run.name}.pth"
        write(path, Checkpoint(last, best, record))
        print(f"checkpoint: {path}")
    results = [run.result(last, "last", history.last_scores)]
    if best is not None:
        results.append(run.result(best, "best", history.best_scores))
    run.write(run.record(script, started), results)
    return results

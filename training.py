"""The optimisation that few-shot and zero-shot training share, and the support images in all their variants."""

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import distributed
import report
from checkpoint import Checkpoint, Stage, write
from dataset import FewShotSet, Sample, load_image, load_mask
from errors import InputError
from evaluation import Views
from files import check_writable
from loss import adapter_loss
from run import Run
from system import System
from utils import VARIANTS, augment

BETAS = (0.5, 0.999)  # of Adam
ROUNDING = 1e-9  # of fractions of an epoch


@dataclass(frozen=True)
class Support:
    """Every variant of every support image: the abnormal ones first, all images of one variant together."""

    images: Tensor  # (V, 3, S, S) in [0, 1]
    masks: Tensor  # (V, 1, S, S) in {0, 1}
    labels: Tensor  # (V,) in {0, 1}
    source: Tensor  # (V,) which image a variant is of
    variant: Tensor  # (V,) which of the 11 it is

    @property
    def normal(self) -> Tensor:
        """Rows of the normal variants."""
        return (self.labels == 0).nonzero()[:, 0]


def load_support(data: FewShotSet, size: int) -> Support:
    """Read and augment the support (the paper's "Few-shot training")."""
    columns = [_variants(samples, size) for samples in (data.support_abnormal, data.support_normal) if samples]
    images, masks, labels, source, variant = (torch.cat(part) for part in zip(*columns, strict=True))
    source = source + len(data.support_abnormal) * (labels == 0)
    return Support(images, masks, labels, source, variant)


def _variants(samples: tuple[Sample, ...], size: int) -> tuple[Tensor, ...]:
    """Images, masks, labels, image numbers and variant numbers of samples of one label, variant by variant."""
    pairs = []
    for sample in samples:
        mask = torch.zeros(1, size, size) if sample.mask is None else load_mask(sample.mask, size)
        pairs.append(augment(load_image(sample.image, size), mask))
    images, masks = (torch.stack(part, dim=1).flatten(0, 1) for part in zip(*pairs, strict=True))
    labels = torch.full((len(images),), float(samples[0].label))
    source = torch.arange(len(samples)).repeat(VARIANTS)
    return images, masks, labels, source, torch.arange(VARIANTS).repeat_interleave(len(samples))


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

    def step(self, stems: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor, share: float = 1.0) -> float:
        """One step on stems (B, L, C), labels (B,), masks (B, 1, S, S); gives the loss before it.

        masks None: of an object without masks. share: of the batch, that these images are; other processes have the
        rest (and may have all of it). Raises InputError when the loss is no longer a number.
        """
        heads = ("det",) if masks is None else ("seg", "det")
        for head, adapters in self.adapters.items():
            adapters.requires_grad_(head in heads)
            self.optimizers[head].zero_grad(set_to_none=True)
        value = self._backward(stems, labels, masks, text, share) if len(stems) else 0.0
        value = distributed.add_up([one for head in heads for one in self.adapters[head].parameters()], value)
        if not math.isfinite(value):
            raise InputError(f"the loss became {value}; train with a lower --learning_rate (nothing was saved)")
        for head in heads:
            self.optimizers[head].step()
        return value

    def _backward(self, stems: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor, share: float) -> float:
        """The loss, after its gradients were taken."""
        device = self.system.device
        heads = ("det",) if masks is None else ("seg", "det")
        decoded = self.system.decoder.decode(stems.to(device), heads, pooled=False)
        loss = share * adapter_loss(decoded, text, labels.to(device), None if masks is None else masks.to(device))
        loss.backward()
        return loss.item()


def check_outputs(args: argparse.Namespace) -> None:
    """Write to every folder that results will go to, so that the system refuses before the training, not after it."""
    for folder in (args.results_path, args.log_dir, args.save_path if args.save_model else None, args.save_images):
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
class Course:
    """What training has come to: the last epoch's stage, and the best one by the test set."""

    last: Stage
    last_seen: Views | None = None  # None: the last epoch was not evaluated
    best: Stage | None = None
    best_seen: Views | None = None
    best_value: float = -math.inf

    @staticmethod
    def untrained(run: Run) -> "Course":
        """Where training begins, and ends if there is nothing to train."""
        return Course(Stage(0, run.system.decoder.adapter_state(), None))

    def offer(self, stage: Stage, seen: Views, value: float, later: bool = False) -> None:
        """Keep the stage if it scores higher on the test set than all before it; `later`: also if as high."""
        if value > self.best_value or (later and value == self.best_value):
            self.best, self.best_seen, self.best_value = stage, seen, value


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
) -> Course:
    """All epochs; the best stage is chosen among the `evaluations`. Scalars go to `folder` under --log_dir.

    epoch_losses takes the `steps` steps of one epoch, a step whenever it is asked for the next loss.
    """
    args, decoder = run.args, run.system.decoder
    course, log = Course.untrained(run), Log(args.log_dir / folder / run.name)
    due, done = evaluations.plan(args.epoch, steps), 0

    def evaluate(time: float) -> None:
        stage, seen = Stage(_whole(time), decoder.adapter_state(), None), run.see_test(again=True)
        figures = run.selection(seen)
        log.add(done, **{f"test/{name}": value for name, value in figures.items()})
        course.offer(stage, seen, sum(figures.values()), evaluations.later)
        course.last, course.last_seen = stage, seen

    if 0 in due:
        evaluate(due[0])
    hidden = not (args.epoch and distributed.main_process())
    for _ in tqdm(range(args.epoch), desc="training", unit="epoch", disable=hidden):
        losses = []
        for loss in epoch_losses():
            losses.append(loss)
            done += 1
            if done in due:
                evaluate(due[done])
        log.add(done, loss=sum(losses) / len(losses))
    if args.epoch and course.last.epoch != args.epoch:
        course.last, course.last_seen = Stage(args.epoch, decoder.adapter_state(), None), None
    log.close()
    return course


def _whole(time: float) -> int | float:
    """Epochs as people write them: 2 rather than 2.0."""
    return int(time) if time == int(time) else time


def finish(run: Run, script: str, course: Course, started: float) -> list[report.Outcome]:
    """Write the checkpoint, then evaluate the last and the best epoch and write the results."""
    apart = course.best is not None and course.best is not course.last
    best = run.put(course.best) if apart else None
    last = run.put(course.last)
    if course.best is course.last:
        best = last
    record = run.record(script, started)
    if run.args.save_model and distributed.main_process():
        path = run.args.save_path / f"{run.name}.pth"
        write(path, Checkpoint(last, best, record))
        print(f"checkpoint: {path}")
    outcomes = [run.outcome(last, "last", course.last_seen)]
    if best is not None:
        outcomes.append(run.outcome(best, "best", course.best_seen))
    run.write(run.record(script, started), outcomes)
    return outcomes

"""What few-shot and zero-shot training share: steps, epochs, which snapshots are kept, and the end of a run."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.utils.tensorboard import SummaryWriter

from engine import unfinished
from engine.checkpoint import Checkpoint, Snapshot, write
from engine.evaluations import Evaluations
from engine.run import Evaluated, Run
from engine.run_folder import ABANDONED, CHECKPOINT, RunFolder
from engine.system import System
from engine.unfinished import Progress, TrainingHistory
from engine.weight_average import WeightAverage
from loss import adapter_loss
from report import html_report
from report.gallery import Shown, overlays
from report.tables import Result
from runtime import distributed
from runtime.bars import Bar
from runtime.devices import to_device
from runtime.errors import InputError, Stopped
from runtime.files import check_room, check_writable, remove_drafts
from runtime.graphs import Recorded
from runtime.stopping import StopRequest, heeding
from scoring.raw_scores import main_branch

BETAS = (0.5, 0.999)  # of Adam
STATES = 14  # times the adapters: what an unfinished run is kept as, while it is written anew, and the checkpoint
SNAPSHOTS = 4  # times the adapters: a checkpoint, while one is replaced
PANEL = 8  # bytes a pixel of a test image: of its picture
MAPS = 4  # test images whose maps stand beside the curves


def finite(losses: Sequence[Tensor]) -> list[float]:
    """Losses () of one device as numbers, in one copy. Raises InputError when one is none any more."""
    values = torch.stack(list(losses)).tolist() if losses else []
    for value in values:
        if not math.isfinite(value):
            raise InputError(f"the loss became {value}; train with a lower --learning_rate (nothing was saved)")
    return values


class Trainer:
    """Adam for the seg and for the det adapters, one step at a time.

    A step without masks trains the det adapters alone: their loss also reaches the seg adapters, through what those
    give to the trunk, but the published code leaves them as they are (the paper's "Few-shot training").
    """

    def __init__(self, system: System, learning_rate: float) -> None:
        self.system = system
        decoder = system.decoder
        self.adapters = {"seg": decoder.seg_adapters, "det": decoder.det_adapters}
        self.recorded: dict[tuple, Recorded] | None = None  # steps on CUDA, by the shapes they are of
        if system.device.type == "cuda" and distributed.world_size() == 1:
            self.recorded, self.pool = {}, torch.cuda.graph_pool_handle()
        self.optimizers = {
            head: torch.optim.Adam(
                adapters.parameters(), learning_rate, BETAS, fused=True, capturable=self.recorded is not None
            )
            for head, adapters in self.adapters.items()
        }

    def step(self, prefixes: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor, share: float = 1.0) -> Tensor:
        """One step on prefixes (B, L, C), labels (B,), masks (B, 1, S, S); gives the loss () before it.

        masks None: of an object without masks. share: of the batch, that these images are; other processes have the
        rest (and may have all of it). On a CPU it raises InputError, before the step, when the loss is no longer a
        number. Elsewhere the loss stays where it is, for the host to go on: whoever keeps it calls `finite` in time.
        """
        given = [None if one is None else to_device(one, self.system.device) for one in (prefixes, labels, masks, text)]
        if self.recorded is None:
            return self._step(*given, share)
        key = (share, *(None if one is None else one.shape for one in given))
        if key not in self.recorded:
            self.recorded[key] = Recorded(self.system.device, self.pool)
        return self.recorded[key](partial(self._step, share=share), *given)

    def _step(self, prefixes: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor, share: float) -> Tensor:
        heads = ("det",) if masks is None else ("seg", "det")
        for head, adapters in self.adapters.items():
            adapters.requires_grad_(head in heads)
            self.optimizers[head].zero_grad(set_to_none=True)
        value = self._backward(prefixes, labels, masks, text, share) if len(prefixes) else text.new_zeros(())
        value = distributed.all_reduce([one for head in heads for one in self.adapters[head].parameters()], value)
        if value.device.type == "cpu":
            finite([value])
        for head in heads:
            self.optimizers[head].step()
            for one in self.adapters[head].parameters():
                increment_version(one)  # fused Adam does not, and scoring keeps packed weights by it
        return value

    def _backward(self, prefixes: Tensor, labels: Tensor, masks: Tensor | None, text: Tensor, share: float) -> Tensor:
        """The loss (), after its gradients were taken."""
        heads = ("det",) if masks is None else ("seg", "det")
        decoded = self.system.decoder.decode(prefixes, heads, pooled=False)
        loss = share * adapter_loss(decoded, text, labels, masks)
        loss.backward()
        return loss.detach()


def shuffled(count: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Row numbers 0 to count - 1 in a new random order, a batch at a time."""
    return torch.randperm(count, generator=generator).split(batch_size)


class Log:
    """TensorBoard scalars and pictures of one run; those of later steps than `first` are written anew."""

    def __init__(self, folder: Path, first: int = 0) -> None:
        later = first + 1 if first else None
        self.writer = SummaryWriter(str(folder), purge_step=later) if distributed.main_process() else None

    def add(self, step: int, **values: float) -> None:
        """Scalars as they were after so many steps."""
        for name, value in values.items() if self.writer else ():
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what there is."""
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.writer:
            self.writer.close()


class Training:
    """The epochs of one run: steps, evaluations, and saves that a killed one goes on from.

    epoch_losses takes the `steps` steps of one epoch, a step whenever it is asked for the next loss, and leaves out as
    many as it is told; it draws their order from `order`, and nothing else is drawn. started: when the run began, and
    as an attribute when it would have begun had it never been stopped. epochs: if not those of the spec.
    average_epochs: of what is kept of an epoch, over how many the weights are averaged.
    """

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        trainer: Trainer,
        order: torch.Generator,
        epoch_losses: Callable[[int], Iterator[Tensor]],
        steps: int,
        evaluations: Evaluations,
        started: float,
        epochs: int | None = None,
        average_epochs: int = 1,
    ) -> None:
        self.run, self.folder, self.trainer, self.order = run, folder, trainer, order
        self.epoch_losses, self.steps, self.evaluations = epoch_losses, steps, evaluations
        self.spec, self.decoder = run.spec, run.system.decoder
        self.epochs = self.spec.epoch if epochs is None else epochs
        self.due = evaluations.plan(self.epochs, steps)
        self.unseen: list[Tensor] = []  # losses of this epoch that nobody waited for yet
        self.progress = Progress(
            TrainingHistory.untrained(self.decoder), unfinished.random_states(order), WeightAverage(average_epochs)
        )
        if folder.state.exists():
            self.progress = unfinished.load(folder.state, self.decoder, trainer.optimizers, order)
            self.progress.average.count = average_epochs
            done = self.progress.steps
            if done > self.epochs * steps:
                raise InputError(f"{folder.state} is of a longer training; --restart begins anew")
            print(f"going on after {done / steps:.3g} of {self.epochs} epochs: {folder.path}")
        self.started = started - self.progress.seconds
        self.saved = time.monotonic()

    def train(self) -> TrainingHistory:
        """All epochs that are left; the best snapshot is chosen among the evaluations.

        Raises Stopped, once all is saved, when somebody asks this process to stop.
        """
        spec, now = self.spec, self.progress
        self.log = Log(self.folder.curves(spec.log_dir), now.steps)
        first = (now.steps - len(now.losses)) // self.steps
        hidden = first == self.epochs or not distributed.main_process()
        with heeding() as request:
            self._evaluate_if_due(request)
            for _ in Bar(
                range(first, self.epochs), "training", self.epochs, initial=first, unit="epoch", disable=hidden
            ):
                for loss in self.epoch_losses(len(now.losses)):
                    self.unseen.append(loss)
                    now.steps, now.evaluated = now.steps + 1, False
                    self._evaluate_if_due(request)
                    if len(now.losses) + len(self.unseen) < self.steps:
                        self._save_if_due(request)
                self._look()
                self.log.add(now.steps, loss=sum(now.losses) / len(now.losses))
                now.end_epoch(self.order, self.decoder)
                self._save_if_due(request)
        history = now.history
        if self.epochs and history.last.epoch != self.epochs:
            history.last, history.last_scores = Snapshot(self.epochs, self.decoder.adapter_state(), None), None
        if average := now.average.value():
            history.last, history.last_scores = Snapshot(self.epochs, average, None), None
        if self.epochs and spec.save_every:
            self._save()  # evaluating it all may take long
        self.log.close()
        return history

    def _look(self) -> None:
        """Wait for the losses so far. Raises InputError when one is no longer a number."""
        self.progress.losses += finite(self.unseen)
        self.unseen.clear()

    def _evaluate_if_due(self, request: StopRequest) -> None:
        now = self.progress
        if now.evaluated or now.steps not in self.due:
            return
        self._look()
        if distributed.anywhere(request.asked):
            self._stop()
        try:  # nothing is lost where it is broken off, alone: other processes would wait for this one
            with request.at_once() if distributed.world_size() == 1 else nullcontext():
                raw = self.run.score_test(again=True)
                figures = self.run.selection(raw)
        except KeyboardInterrupt:
            self._stop()
        snapshot = Snapshot(_whole(self.due[now.steps]), self.decoder.adapter_state(), None)
        self.log.add(now.steps, **{f"test/{name}": value for name, value in figures.items()})
        history = now.history
        history.offer(snapshot, raw, float(sum(figures.values())), self.evaluations.later)
        history.last, history.last_scores = snapshot, raw
        now.evaluated = True

    def _save_if_due(self, request: StopRequest) -> None:
        if distributed.anywhere(request.asked):
            self._stop()
        if self.spec.save_every and time.monotonic() - self.saved >= 60 * self.spec.save_every:
            self._save()

    def _save(self) -> None:
        self._look()
        weights = (one for adapters in self.trainer.adapters.values() for one in adapters.parameters())
        if not all(one.isfinite().all() for one in weights):
            raise InputError(
                "the adapters are not finite any more; train with a lower --learning_rate (nothing was saved)"
            )
        if distributed.main_process():
            self.log.flush()
            self.progress.seconds = time.time() - self.started
            unfinished.save(self.folder.state, self.progress, self.decoder, self.trainer.optimizers)
        self.saved = time.monotonic()

    def _stop(self) -> NoReturn:
        self._save()
        raise Stopped(
            f"stopped after {self.progress.steps / self.steps:.3g} of {self.epochs} epochs; the same command goes "
            f"on from there ({self.folder.path})"
        )


def _whole(time: float) -> int | float:
    """Epochs as people write them: 2 rather than 2.0."""
    return int(time) if time == int(time) else time


def open_outputs(run: Run, script: str, among: bool) -> RunFolder:
    """The run's own folder, once every place that results will go to was written to and has room on its disk.

    among: runs of other objects of the same command, of which only one can be the unfinished one.

    So the system refuses before the training, not after it.
    """
    spec = run.spec
    adapters = sum(one.nbytes for one in run.system.decoder.parameters() if one.requires_grad)
    pixels = len(run.test) * run.system.size**2
    needs = {spec.results_path: STATES * adapters + 2 * min(html_report.LIMIT, pixels)}
    if spec.save_model and not run.series.keep:
        needs[spec.save_path] = needs.get(spec.save_path, 0) + SNAPSHOTS * adapters
    if spec.log_dir:
        needs.setdefault(spec.log_dir, 0)
    if spec.save_images:
        needs[spec.save_images] = needs.get(spec.save_images, 0) + PANEL * pixels
    for place in needs:
        check_writable(place)
        remove_drafts(place, ABANDONED)
    check_room(needs)
    return run.open_folder(script, resume=spec.resume and not among, anew=spec.restart)


def finish(run: Run, script: str, folder: RunFolder, history: TrainingHistory, started: float) -> list[Result]:
    """Write the checkpoint, then evaluate the last and the best epoch and write the results."""
    apart = history.best is not None and history.best is not history.last
    best = run.load_snapshot(history.best) if apart else None
    last = run.load_snapshot(history.last)
    if history.best is history.last:
        best = last
    if run.spec.save_model and distributed.main_process():
        write(folder.path / CHECKPOINT, Checkpoint(last, best, run.record(script, started)))
        print(f"checkpoint: {folder.publish(CHECKPOINT, run.spec.save_path / f'{run.name}.pth')}")
    evaluated = [run.evaluated(last, "last", history.last_scores)]
    if last.calibration is not None:
        said = last.calibration.sentences(main_branch(evaluated[0].raw.map_patches))
        print(*said, sep="\n", end="\n" * bool(said))
    if best is not None:
        evaluated.append(run.evaluated(run.load_snapshot(best), "best", history.best_scores))
    if distributed.main_process():
        _show_maps(run, folder, evaluated[0])
    run.write(folder, run.record(script, started), evaluated)
    return [one.result for one in evaluated]


def _show_maps(run: Run, folder: RunFolder, one: Evaluated) -> None:
    """A few maps of the test set beside the curves."""
    shown = Shown.of(one.raw, one.calibration, run.system.size)
    with SummaryWriter(str(folder.curves(run.spec.log_dir))) as writer:
        for place, picture in enumerate(overlays(run.test, one.raw, shown, run.system.size, MAPS)):
            writer.add_image(f"highest scores/{place + 1}", picture, dataformats="HWC")

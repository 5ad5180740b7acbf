"""Training on folds: adapters for every part of the support that is left out, and which epoch they speak for."""

from collections.abc import Collection, Iterator

import torch

from engine.few_shot_run import FewShotRun
from engine.folds import Fold, Found, in_order, kept_or_made
from engine.run_folder import SHOWN, RunFolder
from engine.support import support_key
from engine.training import Trainer, finite, shuffled
from engine.weight_average import Adapters, WeightAverage
from runtime.bars import Bar
from runtime.cache import key_of
from runtime.devices import to_device
from runtime.errors import Stopped
from runtime.stopping import StopRequest, heeding
from scoring.evaluation import selection

FEW = 4  # epochs whose adapters are all kept, for runs of a series that ask for others of them


def out_of_fold(run: FewShotRun, folder: RunFolder, start: Adapters, epochs: Collection[int]) -> dict[int, Found]:
    """What adapters trained without an image find of it after so many epochs, of the rows of `calibration_rows`.

    start: the decoder's adapters before any step, where every fold begins. A fold that is done is kept in the run's
    folder. Raises Stopped when somebody asks this process to stop; folds that are done stay.
    """
    rows, parts = run.calibration_rows(), []
    with heeding() as request:
        for number, fold in enumerate(Bar(run.folds, "folds", unit="fold", leave=False)):
            file = folder.fold(f"{number}_{key_of(sorted(epochs))[:SHOWN]}")
            found = kept_or_made(file, lambda own=fold: _found(run, own, start, epochs, request))
            parts.append((fold.left_out, found))
    return {epoch: in_order([(left_out, found[epoch]) for left_out, found in parts], rows) for epoch in epochs}


def _found(
    run: FewShotRun, fold: Fold, start: Adapters, epochs: Collection[int], request: StopRequest
) -> dict[int, Found]:
    """What a fold's left-out rows get after each of the `epochs`; of runs that train alike one trains for all."""
    most = max(epochs)
    if len(epochs) == 1 or most <= FEW:  # the adapters of more would be many
        every = range(1, most + 1) if most <= FEW else epochs
        key = (*training_key(run), most, fold.owners, run.spec.folds)
        trained = run.series.once("trained", key, lambda: list(_trained(run, fold, start, every, request)))
    else:
        trained = _trained(run, fold, start, epochs, request)
    found = {}
    for epoch, adapters in trained:
        if epoch in epochs:
            before = run.system.decoder.adapter_state()
            run.system.decoder.load_adapters(adapters)
            found[epoch] = _score(run, fold)
            run.system.decoder.load_adapters(before)
    return found


def _trained(
    run: FewShotRun, fold: Fold, start: Adapters, epochs: Collection[int], request: StopRequest
) -> Iterator[tuple[int, Adapters]]:
    """Train on what a fold keeps; the adapters after each of the `epochs`."""
    decoder = run.system.decoder
    decoder.load_adapters(start)
    trainer, order = Trainer(run.system, run.spec.learning_rate), torch.Generator().manual_seed(run.spec.seed)
    average = WeightAverage(run.spec.average_epochs)
    for epoch in range(1, max(epochs) + 1):
        losses = []
        for loss in few_shot_steps(run, trainer, order, fold.kept):
            losses.append(loss)
            if request.asked:
                raise Stopped("stopped in a fold of the support; the same command goes on after those that are done")
        finite(losses)
        average.add(decoder.adapter_state())
        if epoch in epochs:
            yield epoch, average.value() or decoder.adapter_state()


def training_key(run: FewShotRun) -> tuple[object, ...]:
    """What decides the adapters that a run's training comes to, but for its epochs."""
    spec = run.spec
    settings = (spec.seed, spec.learning_rate, spec.batch_size, spec.synthetic, spec.average_epochs)
    decoder = run.system.decoder
    made_of = (decoder.kind, decoder.taps, decoder.wiring, decoder.ensemble, run.prompts_sha256)
    return (*settings, *made_of, run.system.key, *support_key(run.data, run.system.size))


def few_shot_steps(
    run: FewShotRun, trainer: Trainer, order: torch.Generator, rows: torch.Tensor, done: int = 0
) -> Iterator[torch.Tensor]:
    """The losses () of one epoch's steps on rows of the support, in an order drawn anew, the first `done` left out."""
    prefixes, (labels, masks), text = run.keep_prefixes(), run.targets, run.prompts.text_directions
    parts = shuffled(len(rows), run.spec.batch_size, order)
    drawn = to_device(rows[torch.cat(parts)], prefixes.device)  # the whole epoch's, so that no step waits for its rows
    for own in drawn.split(run.spec.batch_size)[done:]:
        yield trainer.step(prefixes[own], labels[own], None if masks is None else masks[own], text)


def _score(run: FewShotRun, fold: Fold) -> Found:
    """What the adapters as they are find of a fold's left-out rows, against a bank of what the fold keeps."""
    text, reader, banks = run.scored_text(), run.reader(fold), {}
    if run.spec.branches != "zero":
        rows = run.bank_rows()
        own = rows[torch.isin(rows, fold.kept)]
        banks = {head: run.bank_of(head, own) for head in run.rule.heads}
    prefixes = run.keep_prefixes()[fold.left_out]
    return run.system.score(prefixes, run.rule.heads, text, banks, reader)


def best_epoch(run: FewShotRun, found: dict[int, Found]) -> int:
    """The epoch whose out-of-fold scores separate the support best: the highest AUROC of the image scores, with masks
    plus that of pixels; of equal ones the last."""
    known, size = run.support_truth(), run.system.size
    values = {}
    for epoch, one in found.items():
        figures = selection(run.rule.raw_scores(one), known.labels, known.masks, size)
        values[epoch] = sum(figures.values())
    best = max(values.values())
    return max(epoch for epoch, value in values.items() if value >= best - 1e-9)

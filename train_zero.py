"""Zero-shot transfer: adapters from all other medical objects, evaluated on an object they have never seen.

python train_zero.py --obj Brain
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset
from tqdm import tqdm

import options
import report
from checkpoint import Checkpoint, Stage, write
from dataset import Batches, ImageSet
from errors import exit_code
from system import objects
from training import Course, Log, Trainer, check_outputs
from utils import seed_everything
from zeroshot import Source, TransferRun, batches, conclude, open_run, open_sources


def train(run: TransferRun, sources: list[Source], log: Log) -> Course:
    """All epochs (the paper's "Zero-shot transfer"); the best epoch is noted every --eval_every epochs."""
    args = run.args
    course = Course(Stage(0, run.system.decoder.adapter_state(), None))
    trainer, order = Trainer(run.system, args.learning_rate), torch.Generator().manual_seed(args.seed)
    for epoch in tqdm(range(1, args.epoch + 1), desc="training", unit="epoch"):
        losses = train_epoch(trainer, sources, batches(sources, args.batch_size, order), args)
        log.add(epoch, loss=sum(losses) / len(losses))
        if args.eval_every and epoch % args.eval_every == 0:
            seen = run.see_test()
            figures = run.selection(seen)
            log.add(epoch, **{f"test/{name}": value for name, value in figures.items()})
            course.offer(Stage(epoch, run.system.decoder.adapter_state(), None), seen, sum(figures.values()))
    course.last = Stage(args.epoch, run.system.decoder.adapter_state(), None)
    return course


def train_epoch(
    trainer: Trainer, sources: list[Source], plan: list[tuple[int, torch.Tensor]], args: argparse.Namespace
) -> list[float]:
    """One pass over the planned batches, each with its own object's text, masks only where it has them."""
    images = ConcatDataset([ImageSet(source.samples, args.img_size) for source in sources])
    first = [0, *images.cumulative_sizes]
    rows = [(part + first[number]).tolist() for number, part in plan]
    loader = Batches(images, batch_sampler=rows, num_workers=args.num_workers)
    losses = []
    for (number, _), batch in zip(plan, tqdm(loader, desc="epoch", unit="step", leave=False), strict=True):
        source = sources[number]
        masks = batch["mask"] if source.info.masks else None
        losses.append(trainer.step(batch["image"], batch["label"].float(), masks, source.text))
    return losses


def train_object(args: argparse.Namespace, obj: str) -> list[report.Outcome]:
    """Train for one target, evaluate and save."""
    started = time.time()
    seed_everything(args.seed)
    run = open_run(args, obj)
    sources = open_sources(run)
    check_outputs(args)
    log = Log(args.log_dir / "zero-shot" / run.name)
    course = train(run, sources, log)
    log.close()
    last, outcomes = conclude(run, course.last, "last", sources)
    best = None
    if course.best is not None:
        best, more = conclude(run, course.best, "best", sources, course.best_seen)
        outcomes += more
    record = run.record("train_zero.py", time.time() - started, [source.info.name for source in sources])
    if args.save_model:
        path = Path(args.save_path) / f"{run.name}.pth"
        write(path, Checkpoint(last, best, record))
        print(f"checkpoint: {path}")
    report.write_results(args.results_path / "train_zero" / run.name, record | {"outcomes": outcomes})
    return outcomes


def main() -> None:
    """Train for every object that --obj names."""
    args = options.train_zero()
    outcomes = [outcome for obj in objects(args, all_medical=True) for outcome in train_object(args, obj)]
    if len({outcome.obj for outcome in outcomes}) > 1:
        report.write_results(args.results_path / "train_zero" / args.obj, {"outcomes": outcomes})
    print(report.table(outcomes, "zero", demo=args.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""Zero-shot transfer: adapters from all other medical objects, evaluated on an object they have never seen.

python train_zero.py --obj Brain
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import argparse
import math
import sys
import time
from collections.abc import Iterator

import torch
from torch.utils.data import ConcatDataset
from tqdm import tqdm

from dataset import Batches, ImageSet
from engine import options
from engine.objects import objects
from engine.run import sum_up
from engine.training import Evaluations, Trainer, check_outputs, finish, train
from engine.zero_shot import Source, batches, open_run, run_name
from report import tables
from runtime import distributed
from utils import seed_everything

SCRIPT = "train_zero"


def train_epoch(
    trainer: Trainer, sources: list[Source], plan: list[tuple[int, torch.Tensor]], args: argparse.Namespace
) -> Iterator[float]:
    """One pass over the planned batches, each with its own object's text, masks only where it has them; the losses."""
    known = trainer.system.known_stems
    images = ConcatDataset([ImageSet(source.samples, args.img_size, known) for source in sources])
    first = [0, *images.cumulative_sizes]
    rows = [distributed.share((part + first[number]).tolist()) for number, part in plan]
    loader = iter(Batches(images, batch_sampler=[part for part in rows if part], num_workers=args.num_workers))
    bar = tqdm(plan, desc="epoch", unit="step", leave=False, disable=not distributed.main_process())
    for (number, whole), share in zip(bar, rows, strict=True):
        source, items = sources[number], next(loader) if share else []
        stems = trainer.system.stems(items, keep=True)
        labels = torch.tensor([float(item.label) for item in items])
        masks = torch.stack([item.mask for item in items]) if items else torch.empty(0)
        part = masks if source.info.masks else None
        yield trainer.step(stems, labels, part, source.text, len(items) / len(whole))


def train_object(args: argparse.Namespace, obj: str) -> list[tables.Outcome]:
    """Train for one target, evaluate and save (the paper's "Zero-shot transfer")."""
    started = time.time()
    seed_everything(args.seed)
    run = open_run(args, obj)
    check_outputs(args)
    if args.batch_size > 1:
        print(f"steps of {args.batch_size} images of one object: ours; the published ones are of 1")
    trainer, order = Trainer(run.system, args.learning_rate), torch.Generator().manual_seed(args.seed)

    def epoch_losses() -> Iterator[float]:
        return train_epoch(trainer, run.sources, batches(run.sources, args.batch_size, order), args)

    steps = sum(math.ceil(len(source.samples) / args.batch_size) for source in run.sources)
    as_published = Evaluations(args.eval_every, ahead=True, later=True)
    return finish(run, SCRIPT, train(run, "zero-shot", steps, epoch_losses, as_published), started)


def main() -> None:
    """Train for every object that --obj names."""
    args = options.train_zero()
    distributed.join()
    outcomes = [outcome for obj in objects(args, all_medical=True) for outcome in train_object(args, obj)]
    sum_up(args, SCRIPT, run_name(args.obj), outcomes, "zero")


if __name__ == "__main__":
    sys.exit(exit_code(main))

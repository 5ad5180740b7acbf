"""Few-shot training: adapters from k normal and k abnormal images of one object, evaluated on its test split.

python train_few.py --obj Brain --shot 4
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import argparse
import math
import sys
import time
from collections.abc import Iterator

import torch

from engine import options
from engine.few_shot import open_run, protocol, run_name
from engine.objects import objects
from engine.run import sum_up
from engine.training import Course, Evaluations, Trainer, check_outputs, finish, shuffled, train
from report import tables
from utils import seed_everything

SCRIPT = "train_few"


def train_object(args: argparse.Namespace, obj: str) -> list[tables.Outcome]:
    """Train, evaluate and save one object (the paper's "Few-shot training")."""
    started = time.time()
    seed_everything(args.seed)
    run = open_run(args, obj)
    check_outputs(args)
    if not run.trainable:
        return finish(run, SCRIPT, Course.untrained(run), started)
    support, order = run.support, torch.Generator().manual_seed(args.seed)
    masks = support.masks if run.masks else None
    trainer = Trainer(run.system, args.learning_rate)

    def epoch_losses() -> Iterator[float]:
        for rows in shuffled(len(support.images), args.batch_size, order):
            part = None if masks is None else masks[rows]
            yield trainer.step(run.stems[rows], support.labels[rows], part, run.text)

    steps = math.ceil(len(support.images) / args.batch_size)
    return finish(run, SCRIPT, train(run, "few-shot", steps, epoch_losses, Evaluations(args.eval_every)), started)


def main() -> None:
    """Train every object that --obj names."""
    args = options.train_few()
    outcomes = [outcome for obj in objects(args) for outcome in train_object(args, obj)]
    sum_up(args, SCRIPT, run_name(args.obj, args.shot), outcomes, protocol(args))


if __name__ == "__main__":
    sys.exit(exit_code(main))

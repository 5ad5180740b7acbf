"""Few-shot training: adapters from k normal and k abnormal images of one object, evaluated on its test split.

python train_few.py --obj Brain --shot 4
"""

import argparse
import sys
import time

import torch
from tqdm import tqdm

import options
import report
from checkpoint import Checkpoint, Stage, write
from errors import exit_code
from fewshot import FewShotRun, conclude, finish, open_run, run_name
from system import objects
from training import Course, Log, Trainer, check_outputs, shuffled
from utils import seed_everything


def train(run: FewShotRun, log: Log) -> Course:
    """All epochs (the paper's "Few-shot training"); the best epoch is noted every --eval_every epochs."""
    args, support = run.args, run.support
    course = Course(Stage(0, run.system.decoder.adapter_state(), None))
    if not run.trainable:
        return course
    trainer = Trainer(run.system, args.learning_rate)
    masks = support.masks if run.masks else None
    order = torch.Generator().manual_seed(args.seed)
    for epoch in tqdm(range(1, args.epoch + 1), desc="training", unit="epoch"):
        losses = []
        for rows in shuffled(len(support.images), args.batch_size, order):
            part = None if masks is None else masks[rows]
            losses.append(trainer.step(support.images[rows], support.labels[rows], part, run.text))
        log.add(epoch, loss=sum(losses) / len(losses))
        if args.eval_every and epoch % args.eval_every == 0:
            consider(run, course, epoch, log)
    course.last = Stage(args.epoch, run.system.decoder.adapter_state(), None)
    return course


def consider(run: FewShotRun, course: Course, epoch: int, log: Log) -> None:
    """Evaluate this epoch on the test set, and keep it if it is the best so far."""
    seen = run.see_test()
    figures = run.selection(seen)
    log.add(epoch, **{f"test/{name}": value for name, value in figures.items()})
    course.offer(Stage(epoch, run.system.decoder.adapter_state(), None), seen, sum(figures.values()))


def train_object(args: argparse.Namespace, obj: str) -> list[report.Outcome]:
    """Train, evaluate and save one object."""
    started = time.time()
    seed_everything(args.seed)
    run = open_run(args, obj)
    check_outputs(args)
    log = Log(args.log_dir / "few-shot" / run.name)
    course = train(run, log)
    log.close()
    last, outcomes = conclude(run, course.last, "last")
    best = None
    if course.best is not None:
        best, more = conclude(run, course.best, "best", course.best_seen)
        outcomes += more
    record = run.record("train_few.py", time.time() - started)
    if args.save_model:
        path = args.save_path / f"{run.name}.pth"
        write(path, Checkpoint(last, best, record))
        print(f"checkpoint: {path}")
    finish(run, record, outcomes)
    return outcomes


def main() -> None:
    """Train every object that --obj names."""
    args = options.train_few()
    outcomes = [outcome for obj in objects(args) for outcome in train_object(args, obj)]
    if len({outcome.obj for outcome in outcomes}) > 1:
        report.write_results(args.results_path / "train_few" / run_name(args.obj, args.shot), {"outcomes": outcomes})
    print(report.table(outcomes, args.shot, demo=args.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

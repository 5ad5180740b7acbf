"""The demo table of the readme: every demo object, without adapters, with MVFA, with MADFF, and zero-shot transfer.

    python -m benchmarks.demo_table

Few-shot rows are 4-shot over SEEDS (each seed draws other support images), the last epoch, mean and deviation;
zero-shot transfer is one seed. The pictures are generated and the CLIP is a toy: the table compares adapters with
each other on this toy, and says nothing about medical images.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

import options
import report
import train_few
import train_zero
from dataset import demo
from errors import InputError, exit_code
from files import writing

SEEDS = (111, 222, 333)
METHODS = {
    "memory bank, no adapters": ("--abnormal_shot", "0"),
    "MVFA": ("--adapter", "mvfa"),
    "MADFF": ("--adapter", "madff"),
}
TRANSFER = "zero-shot transfer"
OUT = Path(__file__).with_name("demo_table.md")


@dataclass(frozen=True)
class Job:
    """One training run."""

    obj: str
    method: str
    seed: int


def run(job: Job, threads: int, data_path: Path, epochs: int) -> dict[str, float]:
    """Train and evaluate in this process; the main branch's figures at the last epoch."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        argv = ["--demo", "--obj", job.obj, "--seed", str(job.seed), "--data_path", str(data_path)]
        argv += ["--epoch", str(epochs), "--eval_every", "0", "--save_model", "0"]
        argv += [
            "--results_path",
            f"{scratch}/results",
            "--log_dir",
            f"{scratch}/runs",
            "--cache_path",
            f"{scratch}/cache",
        ]
        if job.method == TRANSFER:
            outcome = train_zero.train_object(options.train_zero(argv), job.obj)[0]
        else:
            outcome = train_few.train_object(options.train_few([*argv, *METHODS[job.method]]), job.obj)[0]
    return outcome.branches[list(outcome.branches)[-1]]


def cell(found: list[float]) -> str:
    """Mean ± sample deviation in percent."""
    found = [100 * value for value in found]
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{spread}"


def table(figures: dict[Job, dict[str, float]], metric: str) -> list[str]:
    """Markdown rows of one metric: an object a row, a method a column, the mean over objects last."""
    methods = [*METHODS, TRANSFER]
    lines = [f"| object | {' | '.join(methods)} |", "|---" * (1 + len(methods)) + "|"]
    means = {method: [] for method in methods}
    for obj in demo.OBJECTS:
        cells = []
        for method in methods:
            runs = [row for job, row in figures.items() if (job.obj, job.method) == (obj, method)]
            found = [row[metric] for row in runs if metric in row]
            means[method] += [statistics.mean(found)] if found else []
            cells.append(cell(found) if found else "-")
        if set(cells) != {"-"}:  # objects without masks have no pixel figures
            lines.append(f"| {obj} | {' | '.join(cells)} |")
    last = [f"{100 * statistics.mean(found):.1f}" if found else "-" for found in means.values()]
    return [*lines, f"| mean | {' | '.join(last)} |"]


def write(figures: dict[Job, dict[str, float]], seconds: float, args: argparse.Namespace) -> None:
    """The two tables as Markdown, and every figure as JSON beside them."""
    place = report.environment()
    seeds = sorted({job.seed for job in figures if job.method != TRANSFER})
    head = [
        f"`python -m benchmarks.demo_table --jobs {args.jobs} --epoch {args.epoch}`: seeds {seeds} (transfer: "
        f"{SEEDS[0]}), {place['cpu']}, torch {place['torch']}, commit {place['commit']}, {seconds / 60:.0f} minutes.",
        "Generated pictures, a toy CLIP: these figures say nothing about medical images.",
    ]
    body = ["Image AUROC, %", "", *table(figures, "image_auroc"), "", "Pixel AUROC, %", ""]
    body += table(figures, "pixel_auroc")
    with writing(OUT) as draft:
        draft.write_text("\n".join([*head, "", *body]) + "\n", encoding="utf-8")
    rows = [vars(job) | {"figures": row} for job, row in figures.items()]
    with writing(OUT.with_suffix(".json")) as draft:
        content = {"environment": place, "epoch": args.epoch, "seconds": seconds, "runs": rows}
        draft.write_text(json.dumps(content, indent=1))


def finished(epochs: int) -> tuple[dict[Job, dict[str, float]], float]:
    """The figures of an earlier, interrupted call of as many epochs, and the seconds they took."""
    found = json.loads(OUT.with_suffix(".json").read_text(encoding="utf-8"))
    if found["epoch"] != epochs:
        raise InputError(f"{OUT.with_suffix('.json')} is of --epoch {found['epoch']}; give that, or leave --resume out")
    figures = {Job(row["obj"], row["method"], row["seed"]): row["figures"] for row in found["runs"]}
    return figures, found["seconds"]


def main() -> None:
    """Run every job, several at a time; the table is written anew after every one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--epoch", type=int, default=3)
    parser.add_argument("--data_path", type=Path, default=options.DEMO_DATA)
    parser.add_argument("--resume", action="store_true", help="keep the figures that demo_table.json has already")
    args = parser.parse_args()
    started = time.time()
    demo.ensure(args.data_path)
    rounds = [[Job(obj, method, seed) for method in METHODS for obj in demo.OBJECTS] for seed in SEEDS]
    rounds.insert(1, [Job(obj, TRANSFER, SEEDS[0]) for obj in demo.OBJECTS])
    threads = max(1, torch.get_num_threads() // args.jobs)
    figures, spent = finished(args.epoch) if args.resume else ({}, 0.0)
    jobs = [job for jobs in rounds for job in jobs if job not in figures]
    with ProcessPoolExecutor(args.jobs) as executor:
        runs = {executor.submit(run, job, threads, args.data_path, args.epoch): job for job in jobs}
        for done in as_completed(runs):
            figures[runs[done]] = done.result()
            write(figures, spent + time.time() - started, args)
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""What --precision changes: the same adapters scored in each, beside float32 (docs/speed.md).

    python -m benchmarks.precision                  (45 trainings; about an hour on two cores)
    python -m benchmarks.precision --device cuda

Nine generated objects, the demo CLIP, five draws of the support; every training is tested as it was trained and in each
other precision, its scales and thresholds being those of the training. Differences are of the same adapters, in points.
A training that is done is written at once: the same command goes on where it was stopped, --restart begins anew.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import product
from pathlib import Path

import torch

from dataset import demo
from engine import FewShotSpec, Result, evaluate, train_few_shot
from engine.spec import TESTED
from runtime.bars import Bar
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.files import atomic_write
from runtime.flags import positive

SEEDS = (111, 222, 333, 444, 555)
OTHERS = tuple(precision for precision in TESTED if precision != "fp32")
PLACE = ("device", "cpu", "products", "torch", "commit")
METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC"}


def differences(job: tuple[str, int], data_path: Path, device: str) -> dict[str, dict]:
    """Of an object and a seed, by precision and metric, the figure minus that in float32, in points; and on what."""
    obj, seed = job
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"data_path": data_path, "results_path": Path(scratch, "results"), "device": device}
        asked = {"obj": obj, "seed": seed, "demo": True, "shot": 4, "epoch": 2, "eval_every": 0, "cache_gb": 0.0}
        exact = figures(train_few_shot(FewShotSpec.of(asked | folders | {"save_path": Path(scratch, "ckpt")})))
        (path,) = Path(scratch, "ckpt").glob("*.pth")
        found = {precision: figures(evaluate(path, precision=precision, **folders)) for precision in OTHERS}
    place = environment(device)
    return {"environment": {name: place[name] for name in PLACE}} | {
        precision: {metric: 100 * (one[metric] - exact[metric]) for metric in METRICS if metric in one}
        for precision, one in found.items()
    }


def figures(results: Sequence[Result]) -> dict[str, float]:
    """Those of the main branch at the last epoch."""
    return list(results[0].branches.values())[-1]


def rows(found: Sequence[dict[str, dict]]) -> Iterator[str]:
    """Markdown rows: a precision a row, mean ± sample deviation and the largest difference of every metric."""
    yield f"| minus float32, in points | {' | '.join(METRICS.values())} |"
    yield "|---" * (1 + len(METRICS)) + "|"
    for precision in OTHERS:
        cells = []
        for metric in METRICS:
            changes = [run[precision][metric] for run in found if metric in run[precision]]
            spread = f" ± {statistics.stdev(changes):.3f}" if len(changes) > 1 else ""
            most = max(map(abs, changes))
            cells.append(f"{statistics.mean(changes):+.3f}{spread} (at most {most:.2f}, {len(changes)} runs)")
        yield f"| {precision} | {' | '.join(cells)} |"


def write(out: Path, device: str, found: dict[str, dict]) -> None:
    """The runs as JSON, and the table beside it."""
    place = {name: ", ".join(sorted({str(run["environment"][name]) for run in found.values()})) for name in PLACE}
    told = (
        f"`python -m benchmarks.precision --device {device}`: {len(found)} trainings on the demo in float32 (seeds "
        f"{', '.join(map(str, SEEDS))}, last epoch), tested in each precision; {place['device']}, {place['cpu']}, "
        f"threads a run: 1, {place['products']}, torch {place['torch']}, commit {place['commit']}."
    )
    with atomic_write(out.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    with atomic_write(out) as draft:
        draft.write_text("\n".join([told, "", *rows(list(found.values()))]) + "\n", encoding="utf-8")


def main() -> None:
    """Train, test in every precision, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--jobs", type=positive, default=2, help="runs at a time (default 2)")
    parser.add_argument("--data_path", type=Path, default=Path("data/demo"))
    parser.add_argument("--restart", action="store_true", help="make all runs anew")
    args = parser.parse_args()
    demo.ensure(args.data_path)
    out = Path(__file__).with_name(f"precision_{torch.device(args.device).type}.md")
    known = out.with_suffix(".json")
    found = json.loads(known.read_text(encoding="utf-8")) if known.is_file() and not args.restart else {}
    jobs = {f"{obj}, seed {seed}": (obj, seed) for obj, seed in product(demo.OBJECTS, SEEDS)}
    work = partial(differences, data_path=args.data_path, device=args.device)
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as executor:
        started = {executor.submit(work, job): name for name, job in jobs.items() if name not in found}
        for done in Bar(as_completed(started), "runs", len(started)):
            found[started[done]] = done.result()
            write(out, args.device, {name: found[name] for name in jobs if name in found})
    print(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(exit_code(main))

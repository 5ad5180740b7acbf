"""The tables of docs/results.md: mean ± sample deviation over five draws of the support, at the last epoch.

    python -m benchmarks.tables demo      # nine generated objects, the demo CLIP
    python -m benchmarks.tables solar     # real cells, the demo CLIP, which has never seen a photograph

Each run is one training with a seed of its own, which also draws the support (of transfer: the adapters' start and the
order). A run that is done is written at once: the same command goes on where it was stopped, --restart begins anew.
Nothing is chosen on a test set. Both tables compare adapters with each other and say nothing about medical images.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dataset import demo
from dataset.convert import elpv
from engine import FewShotSpec, Result, TransferSpec, train_few_shot, train_transfer
from engine.options import parse
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.files import atomic_write

SEEDS = (111, 222, 333, 444, 555)
HERE = Path(__file__).parent
BANK, MVFA, MADFF, TRANSFER = "memory bank, untrained", "MVFA", "MADFF", "zero-shot transfer"
FEW = {BANK: ("--abnormal_shot", "0"), MVFA: ("--adapter", "mvfa"), MADFF: ("--adapter", "madff")}
METRICS = {"image_auroc": "Image AUROC, %", "pixel_auroc": "Pixel AUROC, %"}


@dataclass(frozen=True)
class Table:
    """One table: its objects (rows), its methods (columns) with their flags, the flags of all runs, and a caveat."""

    name: str
    objects: tuple[str, ...]
    methods: dict[str, tuple[str, ...]]
    flags: tuple[str, ...]
    caveat: str


TABLES = {
    "demo": Table(
        "demo",
        tuple(demo.OBJECTS),
        FEW | {TRANSFER: ()},
        ("--demo", "--shot", "4", "--epoch", "2"),
        "Generated pictures, a toy CLIP: these figures say nothing about medical images.",
    ),
    "solar": Table(
        "solar",
        ("Solar",),
        {method: FEW[method] for method in (BANK, MADFF)},
        ("--model_name", "ViT-T-16-demo", "--pretrain", "demo", "--shot", "16", "--iterate", "-1", "--epoch", "2"),
        "Real electroluminescence images, a toy CLIP that has never seen a photograph.",
    ),
}


@dataclass(frozen=True)
class Job:
    """One training run, and all that decides its figures."""

    obj: str
    method: str
    seed: int
    flags: tuple[str, ...]
    threads: int


def jobs_of(table: Table, threads: int) -> list[Job]:
    """All runs of a table, a seed after the other."""
    return [
        Job(obj, method, seed, flags_of(table, method), threads)
        for seed in SEEDS
        for method in table.methods
        for obj in table.objects
    ]


def flags_of(table: Table, method: str) -> tuple[str, ...]:
    """What the method's script is called with, beside object, seed and folders."""
    flags = list(table.flags)
    if method == TRANSFER:
        at = flags.index("--shot")
        del flags[at : at + 2]
    return (*flags, "--eval_every", "0", *table.methods[method])


def run(job: Job, data_path: Path) -> dict:
    """Train and evaluate in this process: figures of the main branch at the last epoch, seconds, environment."""
    torch.set_num_threads(job.threads)
    started = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        asked = parse(TransferSpec if job.method == TRANSFER else FewShotSpec, job.flags)
        folders = {"data_path": data_path, "results_path": f"{scratch}/results"}
        asked |= folders | {
            "obj": job.obj,
            "seed": job.seed,
            "log_dir": f"{scratch}/runs",
            "save_path": f"{scratch}/ckpt",
        }
        if job.method == TRANSFER:
            found = {"figures": _main(train_transfer(TransferSpec.of(asked)))}
        else:
            found = {"figures": _main(train_few_shot(FewShotSpec.of(asked)))}
    return found | {"seconds": time.time() - started, "environment": environment()}


def _main(results: Sequence[Result]) -> dict[str, float]:
    """Figures of the fusion, or of the one branch there is, at the last epoch."""
    return list(results[0].branches.values())[-1]


def cell(found: Sequence[float]) -> str:
    """Mean ± sample deviation in percent."""
    found = [100 * value for value in found]
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else " (one run)"
    return f"{statistics.mean(found):.1f}{spread}"


def rows_of(table: Table, runs: dict[Job, dict], metric: str) -> Iterator[str]:
    """Markdown rows of one metric: an object a row, a method a column, and the mean over objects of every seed."""
    yield f"| object | {' | '.join(table.methods)} |"
    yield "|---" * (1 + len(table.methods)) + "|"
    named = {obj: (obj,) for obj in table.objects}
    if len(table.objects) > 1:
        named["mean"] = table.objects
    for name, objects in named.items():
        cells = []
        for method in table.methods:
            by_seed: dict[int, list[float]] = {}
            for job, found in runs.items():
                if job.obj in objects and job.method == method and metric in found["figures"]:
                    by_seed.setdefault(job.seed, []).append(found["figures"][metric])
            cells.append(cell([statistics.mean(values) for values in by_seed.values()]) if by_seed else "-")
        if set(cells) != {"-"}:  # objects without masks have no pixel figures
            yield f"| {name} | {' | '.join(cells)} |"


def heading(table: Table, runs: dict[Job, dict]) -> list[str]:
    """How the figures came about."""

    def all_of(name: str) -> str:
        return ", ".join(sorted({str(found["environment"][name]) for found in runs.values()}))

    seeds = ", ".join(map(str, sorted({job.seed for job in runs})))
    threads = ", ".join(sorted({str(job.threads) for job in runs}))
    minutes = sum(found["seconds"] for found in runs.values()) / 60
    return [
        f"`python -m benchmarks.tables {table.name}`: {' '.join(table.flags)}, seeds {seeds}, last epoch, mean ± "
        f"sample deviation; {all_of('cpu')}, threads a run: {threads}, {all_of('products')}, torch {all_of('torch')}, "
        f"commit {all_of('commit')}; {minutes:.0f} minutes of runs.",
        table.caveat,
    ]


def write(table: Table, runs: dict[Job, dict]) -> None:
    """The table as Markdown, and every run as JSON beside it."""
    lines = heading(table, runs)
    for metric, title in METRICS.items():
        if any(metric in found["figures"] for found in runs.values()):
            lines += ["", title, "", *rows_of(table, runs, metric)]
    with atomic_write(HERE / f"{table.name}_table.md") as draft:
        draft.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    rows = [asdict(job) | found for job, found in runs.items()]
    with atomic_write(HERE / f"{table.name}_table.json") as draft:
        draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def finished(table: Table, jobs: Sequence[Job]) -> dict[Job, dict]:
    """Those of the jobs that earlier calls have done."""
    path, runs = HERE / f"{table.name}_table.json", {}
    if path.is_file():
        for row in json.loads(path.read_text(encoding="utf-8")):
            job = Job(row.pop("obj"), row.pop("method"), row.pop("seed"), tuple(row.pop("flags")), row.pop("threads"))
            runs[job] = row
    return {job: runs[job] for job in jobs if job in runs}


def main() -> None:
    """Run every job that is not done yet, several at a time; the table is written anew after every one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="of each run, which decide last digits (default 1)")
    parser.add_argument("--data_path", type=Path, help="default: data/demo, or data")
    parser.add_argument("--restart", action="store_true", help="make all runs anew")
    args = parser.parse_args()
    table = TABLES[args.table]
    data_path = args.data_path or (Path("data/demo") if table.name == "demo" else Path("data"))
    demo.ensure(data_path) if table.name == "demo" else elpv.convert(data_path)
    jobs = jobs_of(table, args.threads)
    runs = {} if args.restart else finished(table, jobs)
    with ProcessPoolExecutor(args.jobs) as executor:
        started = {executor.submit(run, job, data_path): job for job in jobs if job not in runs}
        for done in as_completed(started):
            runs[started[done]] = done.result()
            write(table, {job: runs[job] for job in jobs if job in runs})
    write(table, runs)
    print((HERE / f"{table.name}_table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(exit_code(main))

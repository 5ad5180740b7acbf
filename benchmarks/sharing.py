"""What runs of a study save by sharing: the same runs by separate scripts and by study.py, on the demo.

    python -m benchmarks.sharing            # benchmarks/sharing.md

Both start with an empty cache and give the same figures; separate scripts share the cache's prefix tokens and sentences
among themselves, as they always do. Wall seconds and processor seconds; threads of each process as in the first column.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from apps.study import plans
from apps.study.plan import Run, cells_of, restricted, runs_of
from dataset import demo
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.files import atomic_write

ROOT, OUTPUT = Path(__file__).parents[1], Path(__file__).with_suffix(".md")
OBJECT, SEEDS = "Brain", (111, 222)


def flags_of(run: Run) -> list[str]:
    """The flags by which a script makes a run: settings that are not the demo's own."""
    plain, usual = run.spec.plain(), type(run.spec).of(demo=True, obj=run.spec.obj).plain()
    derived = {"abnormal_shot", "adapter"} if run.spec.method != "clipmpcad" else {"abnormal_shot"}
    changed = {name: value for name, value in plain.items() if value != usual[name] and name not in derived}
    return ["--demo", "--obj", run.spec.obj, *(word for name, value in changed.items() for word in _flag(name, value))]


def _flag(name: str, value: object) -> list[str]:
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


def timed(commands: Sequence[Sequence[str]], threads: int, folder: str, data: Path) -> tuple[float, float]:
    """Wall and processor seconds of commands, one after the other, with results and cache in a folder of their own."""
    places = ["--results_path", f"{folder}/results", "--data_path", str(data)]
    variables = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command, *places], env=os.environ | variables, cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used


def figures(folder: str) -> set[str]:
    """What every run found, in words, wherever it lies."""
    paths = Path(folder, "results").glob("train_few/*/*/results.json")
    return {json.dumps(json.loads(path.read_text(encoding="utf-8"))["results"], sort_keys=True) for path in paths}


def main() -> None:
    """Measure and write the table."""
    plan = restricted(plans.paper(demo=True), [OBJECT], demo=True)
    runs = [run for run in runs_of(cells_of(plan)) if run.spec.seed in SEEDS]
    scripts = [[str(ROOT / "train_few.py"), *flags_of(run), "--save_path", "ckpt"] for run in runs]
    seeds = [str(seed) for seed in SEEDS]
    study = [str(ROOT / "study.py"), "paper", "--demo", "--obj", OBJECT, "--seeds", *seeds, "--jobs"]
    cores, found = os.cpu_count() or 1, {}
    with tempfile.TemporaryDirectory() as data:
        demo.ensure(Path(data), names=[OBJECT])
        for name, commands, threads in (
            (f"separate scripts, {cores} threads", scripts, cores),
            (f"study.py --jobs 1, {cores} threads", [[*study, "1"]], cores),
            (f"study.py --jobs {cores}, 1 thread each", [[*study, str(cores)]], 1),
        ):
            with tempfile.TemporaryDirectory() as folder:
                found[name] = (*timed(commands, threads, folder, Path(data)), figures(folder))
                print(name, *(round(value, 1) for value in found[name][:2]), flush=True)
    _write(found, len(runs))


def _write(found: dict[str, tuple[float, float, set[str]]], count: int) -> None:
    first, second, _ = found.values()
    machine = environment()
    lines = [
        f"`python -m benchmarks.sharing`: {count} runs, `study.py paper --demo --obj {OBJECT} --seeds "
        f"{' '.join(map(str, SEEDS))}` and the same by train_few.py; {machine['cpu']}, {os.cpu_count()} cores, torch "
        f"{machine['torch']}, commit {machine['commit']}. Figures by the same threads "
        f"{'are equal' if first[2] == second[2] and len(first[2]) == count else 'DIFFER'}.",
        "",
        "| how | wall, s | processor, s | wall, share of the first |",
        "|---|---|---|---|",
        *(
            f"| {name} | {wall:.0f} | {used:.0f} | {100 * wall / first[0]:.0f} % |"
            for name, (wall, used, _) in found.items()
        ),
    ]
    with atomic_write(OUTPUT) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(exit_code(main))

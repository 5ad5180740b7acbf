"""Few-shot evaluation: a checkpoint of train_few.py, or published adapters, on the test split of their object.

python test_few.py --obj Brain --shot 4
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import checkpoint
import options
import report
from errors import InputError, exit_code, naming
from fewshot import conclude, finish, fits, open_run, run_name
from system import objects
from utils import seed_everything


def test_object(args: argparse.Namespace, obj: str, path: Path, trained: checkpoint.Checkpoint) -> list[report.Outcome]:
    """Rebuild the memory bank of one object's checkpoint and evaluate its stages."""
    started = time.time()
    seed_everything(args.seed)
    run = open_run(args, obj)
    calibrated = fits(run, trained.record, path)
    with naming(path):
        run.system.decoder.load_adapters(trained.last.adapters)
    outcomes = []
    for selected, stage in (("last", trained.last), ("best", trained.best)):
        if stage is not None:
            stage = stage if calibrated else replace(stage, calibration=None)
            outcomes += conclude(run, stage, selected)[1]
    finish(run, run.record("test_few.py", time.time() - started) | {"checkpoint": str(path)}, outcomes)
    return outcomes


def main() -> None:
    """Test every object that --obj names."""
    args = options.test_few()
    if args.ckpt is not None and "obj" not in args.given:
        args.obj = (checkpoint.read(args.ckpt).record or {}).get("obj", args.obj)
    outcomes = []
    for obj in objects(args):
        path = args.ckpt or args.save_path / f"{run_name(obj, args.shot)}.pth"
        trained = checkpoint.read(path)
        if trained.record is not None and trained.record["obj"] != obj:
            raise InputError(f"{path} was trained on {trained.record['obj']}, not on {obj}")
        recalled = options.recall(checkpoint.fit_options(args, trained), trained.record, path)
        objects(recalled)  # a checkpoint of the demo brings the demo's images with it
        outcomes += test_object(recalled, obj, path, trained)
    if len({outcome.obj for outcome in outcomes}) > 1:
        report.write_results(args.results_path / "test_few" / run_name(args.obj, args.shot), {"outcomes": outcomes})
    print(report.table(outcomes, recalled.shot, demo=recalled.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

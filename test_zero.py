"""Zero-shot evaluation: a checkpoint of train_zero.py, or published adapters, on the object they have never seen.

python test_zero.py --obj Brain
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
from system import objects
from utils import seed_everything
from zeroshot import conclude, fits, open_run, trained_on


def test_object(args: argparse.Namespace, obj: str, path: Path, trained: checkpoint.Checkpoint) -> list[report.Outcome]:
    """Evaluate the stages of one target's checkpoint."""
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
    record = run.record("test_zero.py", time.time() - started, trained_on(trained.record)) | {"checkpoint": str(path)}
    report.write_results(args.results_path / "test_zero" / run.name, record | {"outcomes": outcomes})
    return outcomes


def main() -> None:
    """Test every object that --obj names."""
    args = options.test_zero()
    if args.ckpt is not None and "obj" not in args.given:
        args.obj = (checkpoint.read(args.ckpt).record or {}).get("obj", args.obj)
    outcomes = []
    for obj in objects(args):
        path = args.ckpt or args.save_path / f"{obj.replace('/', '_')}.pth"
        trained = checkpoint.read(path)
        if obj in trained_on(trained.record):
            raise InputError(f"{path} was trained on {obj} itself, so this would be no zero-shot result")
        recalled = options.recall(checkpoint.fit_options(args, trained), trained.record, path)
        objects(recalled)  # a checkpoint of the demo brings the demo's images with it
        outcomes += test_object(recalled, obj, path, trained)
    if len({outcome.obj for outcome in outcomes}) > 1:
        report.write_results(args.results_path / "test_zero" / args.obj, {"outcomes": outcomes})
    print(report.table(outcomes, "zero", demo=recalled.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

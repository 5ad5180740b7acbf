"""Zero-shot evaluation: a checkpoint of train_zero.py, or published adapters, on the object they have never seen.

python test_zero.py --obj Brain
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import argparse
import sys
import time
from pathlib import Path

from engine import options
from engine.checkpoint import Checkpoint
from engine.run import sum_up, test_stages, trained
from engine.zero_shot import open_run, run_name, unseen
from report import tables
from runtime import distributed
from utils import seed_everything

SCRIPT = "test_zero"


def test_object(args: argparse.Namespace, obj: str, path: Path, content: Checkpoint) -> list[tables.Outcome]:
    """Evaluate the stages of one target's checkpoint."""
    started = time.time()
    seen = unseen(content.record, obj, path)
    seed_everything(args.seed)
    run = open_run(args, obj, seen)
    return test_stages(run, SCRIPT, content, path, run.calibration_holds(content.record, path), started)


def main() -> None:
    """Test every object that --obj names."""
    args = options.test_zero()
    distributed.join()
    outcomes = []
    for obj, path, content, recalled in trained(args, run_name):
        outcomes += test_object(recalled, obj, path, content)
    sum_up(recalled, SCRIPT, run_name(args.obj), outcomes, "zero")


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""Few-shot evaluation: a checkpoint of train_few.py, or published adapters, on the test split of their object.

python test_few.py --obj Brain --shot 4
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import argparse
import sys
import time
from pathlib import Path

from engine import options
from engine.checkpoint import Checkpoint
from engine.few_shot import open_run, protocol, run_name
from engine.run import same_object, sum_up, test_stages, trained
from report import tables
from runtime import distributed
from utils import seed_everything

SCRIPT = "test_few"


def test_object(args: argparse.Namespace, obj: str, path: Path, content: Checkpoint) -> list[tables.Outcome]:
    """Rebuild the memory bank of one object's checkpoint and evaluate its stages."""
    started = time.time()
    same_object(content.record, obj, path)
    seed_everything(args.seed)
    run = open_run(args, obj)
    return test_stages(run, SCRIPT, content, path, run.calibration_holds(content.record, path), started)


def main() -> None:
    """Test every object that --obj names."""
    args = options.test_few()
    distributed.join()
    outcomes = []
    for obj, path, content, recalled in trained(args, lambda obj: run_name(obj, args.shot)):
        outcomes += test_object(recalled, obj, path, content)
    sum_up(recalled, SCRIPT, run_name(args.obj, args.shot), outcomes, protocol(recalled))


if __name__ == "__main__":
    sys.exit(exit_code(main))

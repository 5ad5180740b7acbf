"""Zero-shot evaluation: a checkpoint of train_zero.py, or published adapters, on the object they have never seen.

python test_zero.py --obj Brain
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from engine.options import parse
from engine.spec import TransferTestSpec
from engine.testing import evaluate_transfer
from report.tables import table
from runtime import distributed


def main() -> None:
    """Test every object that --obj names."""
    asked = parse(TransferTestSpec)
    distributed.join()
    spec, results = evaluate_transfer(asked)
    print(table(results, "zero", demo=spec.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""Few-shot evaluation: a checkpoint of train_few.py, or published adapters, on the test split of their object.

python test_few.py --obj Brain --shot 4
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from engine.few_shot import protocol
from engine.options import parse
from engine.spec import FewShotTestSpec
from engine.testing import evaluate_few_shot
from report.tables import table
from runtime import distributed


def main() -> None:
    """Test every object that --obj names."""
    asked = parse(FewShotTestSpec)
    distributed.join()
    spec, results = evaluate_few_shot(asked)
    print(table(results, protocol(spec), demo=spec.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

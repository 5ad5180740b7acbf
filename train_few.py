"""Few-shot training: adapters from k normal and k abnormal images of one object, evaluated on its test split.

python train_few.py --obj Brain --shot 4
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from engine.few_shot import protocol, train_few_shot
from engine.options import parse
from engine.spec import FewShotSpec
from report.tables import table


def main() -> None:
    """Train every object that --obj names."""
    spec = FewShotSpec.of(parse(FewShotSpec))
    print(table(train_few_shot(spec), protocol(spec), demo=spec.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

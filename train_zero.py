"""Zero-shot transfer: adapters from all other medical objects, evaluated on an object they have never seen.

python train_zero.py --obj Brain
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from engine.options import parse
from engine.spec import TransferSpec
from engine.zero_shot import train_transfer
from report.tables import table
from runtime import distributed


def main() -> None:
    """Train for every object that --obj names."""
    spec = TransferSpec.of(parse(TransferSpec))
    distributed.join()
    print(table(train_transfer(spec), "zero", demo=spec.demo))


if __name__ == "__main__":
    sys.exit(exit_code(main))

"""Draw the demonstration benchmark.

python -m dataset.demo --out data/demo [--seed 0]
"""

import sys
from pathlib import Path

from dataset.demo import OBJECTS, generate
from runtime.errors import Parser, exit_code
from runtime.flags import number, path


def main() -> None:
    """Draw the whole benchmark into a folder."""
    parser = Parser(description="Draw the demonstration benchmark.")
    parser.add_argument("--out", type=path, default=Path("data/demo"), help="folder to draw into")
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0, help="another seed, other pictures")
    options = parser.parse_args()
    generate(options.out, options.seed)
    print(f"{len(OBJECTS)} objects in {options.out}")


if __name__ == "__main__":
    sys.exit(exit_code(main))

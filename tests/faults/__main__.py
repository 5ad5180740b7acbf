"""Try bad inputs and count how they were taken.

python -m tests.faults                    every tenth case
python -m tests.faults --all              all of them; the table of docs/reliability.md
python -m tests.faults --all --table flags --show
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

from faults.trying import KINDS, tables, take, trained_lab

EVERY = 10
HEADS = {"refused": "one line", "traceback": "traceback", "hang": "hang", "silent": "silent", "unclear": "unclear"}


def main() -> int:
    """Print the table; exit code 0 if every case was refused with one line that names its cause."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Bad inputs, and how they are taken.")
    parser.add_argument("--all", action="store_true", help=f"all cases; else every {EVERY}th")
    parser.add_argument("--table", help="one table alone")
    parser.add_argument("--match", default="", help="cases with this in their names")
    parser.add_argument("--show", action="store_true", help="what every case said, too")
    args = parser.parse_args()
    counted: dict[str, Counter] = {}
    with tempfile.TemporaryDirectory() as folder:
        lab = trained_lab(Path(folder))
        for table, cases in tables().items():
            if args.table in (None, table):
                counted[table] = Counter()
                for case in cases[:: 1 if args.all else EVERY]:
                    if args.match in case.name:
                        begun, taken = time.perf_counter(), take(case, lab)
                        took = time.perf_counter() - begun
                        counted[table][taken.kind] += 1
                        if args.show or taken.kind != "refused":
                            print(
                                f"[{taken.kind}] {table}: {case.name} ({took:.1f} s)\n    {_end(taken.said)}",
                                flush=True,
                            )
    total = sum(counted.values(), Counter())
    print(f"\n{'table':<14}{'cases':>8}" + "".join(f"{head:>12}" for head in HEADS.values()))
    for name, counts in [*counted.items(), ("total", total)]:
        print(f"{name:<14}{counts.total():>8}" + "".join(f"{counts[kind]:>12}" for kind in KINDS))
    return 0 if total["refused"] == total.total() else 1


def _end(said: str, lines: int = 3) -> str:
    """The last lines, of which a traceback's say most."""
    return "\n    ".join(line[:400] for line in said.encode("utf-8", "backslashreplace").decode().splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())

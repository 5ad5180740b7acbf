"""Kills and bad input, many of them: `python -m tests.faults` and `python -m tests.faults.kill`."""

import sys
from pathlib import Path

sys.path[:0] = [
    str(folder) for folder in Path(__file__).resolve().parents[1:3]
]  # as pytest has it: helpers, the product

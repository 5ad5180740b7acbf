"""Bad inputs, tables of them, each refused with one line; and kills.

A module here that has a function `cases` is a table: `python -m tests.faults --all` runs all of them and counts.
`python -m tests.faults.kill` stops trainings at random moments.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]  # helpers and the product, as pytest

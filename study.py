"""Whole tables: many objects, methods, shots and seeds in one command that goes on where it was stopped.

python study.py paper --demo
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from apps.study.command import main

if __name__ == "__main__":
    sys.exit(exit_code(main))

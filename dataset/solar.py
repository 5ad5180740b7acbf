"""The former name of `python -m dataset.convert elpv`."""

import sys

from dataset.convert.__main__ import main
from runtime.errors import exit_code

if __name__ == "__main__":
    sys.argv.insert(1, "elpv")
    sys.exit(exit_code(main))

"""A page on this machine: edit prompts and see what becomes of maps and scores; score an image of your own.

python app.py --demo
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from apps.promptlab.open_lab import LabSpec
from apps.promptlab.page import serve_until_stopped
from engine.options import parse


def main() -> None:
    """Serve the page until it is stopped."""
    serve_until_stopped(parse(LabSpec))


if __name__ == "__main__":
    sys.exit(exit_code(main))

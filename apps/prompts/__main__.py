"""The commands of prompt.py as a module: python -m apps.prompts show Brain, and so on."""

from runtime.errors import InputError  # noqa: F401  first: Ctrl-C during the other imports is one line too

# isort: split
from apps.prompts.command import run

if __name__ == "__main__":
    raise SystemExit(run())

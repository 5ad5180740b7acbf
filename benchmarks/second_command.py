"""How long predict.py takes when it is asked again: the same command, and the same images into another folder.

    python -m benchmarks.second_command               (a minute or two on one CPU core)

Demo CLIP, generated pictures of Brain: its `valid` images are known, its test images are scored. Processor seconds,
of whole processes with all that they import, so that a busy machine changes little.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dataset import demo
from runtime.errors import InputError, exit_code

LIMIT = 0.25  # of the first command's seconds
OBJ = "Brain"


def seconds(scratch: Path, output: str) -> float:
    """What one command takes, of user and system. Raises InputError where it fails."""
    valid, before = scratch / "demo" / f"{OBJ}_AD" / "valid", os.times()
    command = [sys.executable, "predict.py", "--demo_clip", "--normal", valid / "good", "--abnormal", valid / "Ungood"]
    command += ["--input", valid.parent / "test", "--output", scratch / output, "--cache_path", scratch / "cache"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"predict.py ended with {done.returncode}: {done.stderr.strip()}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure, print, say whether it is quick enough."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        demo.ensure(scratch / "demo", names=[OBJ])
        first, same, other = (seconds(scratch, output) for output in ("a", "a", "b"))
    for name, taken in (("the first command", first), ("the same again", same), ("another --output", other)):
        print(f"{name}: {taken:.1f} s, {taken / first:.0%}")
    print(f"{'within' if same <= LIMIT * first else 'NOT within'} {LIMIT:.0%}")


if __name__ == "__main__":
    sys.exit(exit_code(main))

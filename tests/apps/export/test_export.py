"""The tests of what is exported, a process of its own for each file: where OpenVINO was loaded, a process that forks
crashes, and readers of images are forked."""

import subprocess
import sys

import pytest
from helpers.lab import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("file", ["apps/export/on_export.py", "benchmarks/on_exported.py"])
def test_by_itself(file):
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/{file}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

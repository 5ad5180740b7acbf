"""Everything in tests/pretend/on_*.py, a process of its own for each: the pretend device is registered for good."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.lab import ROOT
from pretend.device import unavailable

FILES = sorted(path.name for path in Path(__file__).parent.glob("on_*.py"))


@pytest.mark.slow
@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
@pytest.mark.parametrize("name", FILES)
def test_on_the_pretend_device(name):
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/pretend/{name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_an_older_pytorch_is_told(monkeypatch):
    assert FILES and "on_scripts.py" in FILES
    monkeypatch.setattr("torch.__version__", "2.8.0")
    assert unavailable() == "PyTorch 2.8.0 has no Python backend for PrivateUse1"

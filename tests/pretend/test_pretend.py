"""Everything in tests/pretend/on_*.py, a process of its own for each: the pretend device is registered for good."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lab import ROOT
from pretend.device import unavailable
from pretend.running import alike

FILES = sorted(path.name for path in Path(__file__).parent.glob("on_*.py"))


@pytest.mark.slow
@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
@pytest.mark.parametrize("name", FILES)
def test_on_the_pretend_device(name):
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/pretend/{name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("kind", ["cuda", "privateuseone"])
def test_what_counts_as_the_same(kind):
    """On a real device all but rounding, whatever holds the numbers; on the pretend one every bit."""
    device, expected = torch.device(kind), {"a": [0.5, ("b 0.25 mm", 3)], "c": np.float32([1, 2])[0]}
    nearly = {"a": [0.50001, ("b 0.25001 mm", 3)], "c": np.float32([1, 2])[0]}
    assert alike(expected, expected, device) and alike(nearly, expected, device) == (kind == "cuda")
    for other in (
        {"a": [0.6, ("b 0.25 mm", 3)], "c": np.float32(1)},
        {"a": [0.5, ("b 0.35 mm", 3)], "c": np.float32(1)},
        {"a": [0.5, ("x 0.25 mm", 3)], "c": np.float32(1)},
        {"a": [0.5, ("b 0.25 mm", 4)], "c": np.float32(1)},
        {"a": [0.5], "c": np.float32(1)},
        {"a": [0.5, ("b 0.25 mm", 3)]},
    ):
        assert not alike(other, expected, device)


def test_an_older_pytorch_is_told(monkeypatch):
    assert FILES and "on_scripts.py" in FILES
    monkeypatch.setattr("torch.__version__", "2.8.0")
    assert unavailable() == "PyTorch 2.8.0 has no Python backend for PrivateUse1"

"""The pretend device, in the processes that `test_pretend.py` starts; or a real one, if CLIPMPCAD_DEVICE names it."""

import os

import pytest
import torch
from pretend import device as pretend


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The pretend one is registered once and for good: no other test may run in this process."""
    return torch.device(name, 0) if (name := os.environ.get("CLIPMPCAD_DEVICE")) else pretend.register()

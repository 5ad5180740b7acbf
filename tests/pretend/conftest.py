"""The pretend device, in the processes that `test_pretend.py` starts."""

import pytest
import torch
from pretend import device as pretend


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Registered once and for good: no other test may run in this process."""
    return pretend.register()

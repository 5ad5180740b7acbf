"""The golden numbers: arrays that an independent computation left in `golden/`, and how far two results differ."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIG, WEIGHTS = GOLDEN / "clip_small.json", GOLDEN / "clip_small.safetensors"
FORWARD = 1e-4  # relative agreement of forward passes


def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of `golden/NAME.npz`."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def relative(found: ArrayLike | Tensor, expected: ArrayLike | Tensor) -> float:
    """The largest difference, over the largest magnitude that is expected; shapes must be equal."""
    found, expected = (torch.as_tensor(part).detach().double() for part in (found, expected))
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert found.isfinite().all()
    return float((found - expected).abs().max() / expected.abs().max())

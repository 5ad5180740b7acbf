"""Seeds, the device, and the eleven variants of a support image."""

import math
import os
import random
import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.errors import InputError

ANGLES = (-math.pi / 8, -math.pi / 16, math.pi / 16, math.pi / 8)  # radians
SHIFTS = ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))  # of the half-width, (x, y)
CUBLAS = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"  # room of its own for every stream's products
VARIANTS = 1 + len(ANGLES) + len(SHIFTS) + 2


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, and ask for kernels that give the same bits every time."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries that draw from the global generator)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def pick_device(name: str = "auto", deterministic: bool = False) -> torch.device:
    """ "auto" takes CUDA, then Apple's MPS, then the CPU. Raises InputError for a device that is not there.

    deterministic: of CUDA's kernels those that give the same bits every time, as a CPU's do with as many threads; from
    then on the whole process keeps to them. InputError on MPS, which has no such promise.

    From then on numbers below 1.2e-38 count as 0 on the CPU, as they do on GPUs: gradients of a loss that saturates are
    full of them, and products of matrices of them take a hundred times as long.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, usable in there.items() if usable)
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", name):
        raise InputError(f"--device {name} is no device; use auto, cuda, cuda:N, mps or cpu")
    device = torch.device(name)
    missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if missing or not there.get(device.type, False):
        raise InputError(f"--device {name} is not available on this machine; use --device cpu")
    if deterministic and device.type == "mps":
        raise InputError("--deterministic is not to be had on MPS; leave it out, or use --device cpu")
    if deterministic and device.type == "cuda":
        os.environ.setdefault(*CUBLAS)  # read before the first product
        torch.utils.deterministic.fill_uninitialized_memory = False  # which would find faults in programs, and costs
        torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(True)  # of this thread and those that it starts, so before the first product
    return device


def augment(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The 11 variants of an image (3, H, W) and its mask (1, H, W), both in [0, 1] -> (11, 3, H, W), (11, 1, H, W).

    In order: itself, four rotations, four translations, horizontal flip, vertical flip (the paper's
    "Few-shot training"). Masks move with their image and come back as {0, 1}.
    """
    moves = [((math.cos(a), -math.sin(a), 0.0), (math.sin(a), math.cos(a), 0.0)) for a in ANGLES]
    moves += [((1.0, 0.0, x), (0.0, 1.0, y)) for x, y in SHIFTS]
    stack = torch.cat([image, mask]).unsqueeze(0)  # (1, 4, H, W)
    theta = torch.tensor(moves, dtype=stack.dtype, device=stack.device)  # (8, 2, 3)
    grid = F.affine_grid(theta, (len(moves), *stack.shape[1:]), align_corners=False)
    moved = F.grid_sample(
        stack.expand(len(moves), -1, -1, -1),
        grid,
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    stack = torch.cat([stack, moved, stack.flip(3), stack.flip(2)])  # (11, 4, H, W)
    return stack[:, :-1], (stack[:, -1:] > 0.5).to(mask.dtype)

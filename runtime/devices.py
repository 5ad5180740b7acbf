"""Between the CPU and a device: few copies, and no waiting where the host can go on."""

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; to CUDA by way of pinned memory, so that the host does not wait for the copy."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def stack_on(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """CPU tensors of one shape, stacked on a device by one copy."""
    if device.type != "cuda":
        return torch.stack(list(tensors)).to(device)
    shape = (len(tensors), *tensors[0].shape)
    pinned = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=True)
    return torch.stack(list(tensors), out=pinned).to(device, non_blocking=True)


def to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one type on the CPU: from a device in one copy, since for each the host waits until all is done."""
    if all(one.device.type == "cpu" for one in tensors):
        return list(tensors)
    whole = torch.cat([one.flatten() for one in tensors]).cpu()
    parts = whole.split([one.numel() for one in tensors])
    return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]

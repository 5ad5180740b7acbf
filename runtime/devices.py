"""Between the CPU and a device: few copies, and no waiting where the host can go on; seconds of calls."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; to CUDA by way of pinned memory, so that the host does not wait for the copy."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def stack_for(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """CPU tensors of one shape, stacked in the host's memory, for CUDA in pinned memory."""
    if device.type != "cuda":
        return torch.stack(list(tensors))
    shape = (len(tensors), *tensors[0].shape)
    pinned = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=True)
    return torch.stack(list(tensors), out=pinned)


def stack_on(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """CPU tensors of one shape, stacked on a device by one copy."""
    return to_device(stack_for(tensors, device), device)


def to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one type on the CPU: from a device in one copy, since for each the host waits until all is done."""
    if all(one.device.type == "cpu" for one in tensors):
        return list(tensors)
    whole = torch.cat([one.flatten() for one in tensors]).cpu()
    parts = whole.split([one.numel() for one in tensors])
    return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # another one may be the current one
    elif device.type != "cpu":
        torch.get_device_module(device).synchronize()


def timed(call: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Seconds of a call, by itself on the device: the least of so many."""
    seconds = []
    for _ in range(times):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)

"""Seconds of calls, on whatever device: the clock is read when the device is done."""

import statistics
from collections.abc import Callable

import torch

from runtime.devices import timed

REPEATS = 9
CPU = torch.device("cpu")


def in_turns(
    calls: dict[str, Callable[[], object]], repeats: int = REPEATS, device: torch.device = CPU
) -> dict[str, float]:
    """Median seconds of each call, all called in turns after one round to warm up.

    What PyTorch cannot do on a device other than the CPU is left out, and a line says why.
    """
    calls = {name: call for name, call in calls.items() if _works(name, call, device)}
    seconds = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(timed(call, device))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _works(name: str, call: Callable[[], object], device: torch.device) -> bool:
    try:
        timed(call, device)
    except (NotImplementedError, RuntimeError) as fault:
        if device.type == "cpu":
            raise
        print(f"{name}: left out, since it fails on {device}: {str(fault).splitlines()[0]}")
        return False
    return True

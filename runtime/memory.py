"""Memory: what a process has taken at most, what a device has left, and freed memory that goes back to the system."""

import ctypes
import re
import sys
from contextlib import suppress
from pathlib import Path

import torch

UNKNOWN = 4 << 30  # bytes that a device is taken to have left where PyTorch does not say
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def trim_memory() -> None:
    """Return what the C library keeps of freed memory, as of a model that went (glibc; elsewhere nothing happens)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """Let the peak be counted from now on, where the system can (Linux), and that of a GPU."""
    with suppress(OSError):
        FORGET.write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_mb(device: torch.device) -> float | None:
    """The most megabytes that this process has had at once: of a GPU's memory there, else resident; None if unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        return round(int(found[1]) * 1024 / 1e6, 1) if found else None
    return None


def free_bytes(device: torch.device) -> int:
    """Bytes of a device's memory that new tensors may take: what nobody has, and what PyTorch keeps at hand."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return UNKNOWN

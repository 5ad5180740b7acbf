"""Freed memory goes back to the system."""

import ctypes
import sys
from contextlib import suppress


def trim_memory() -> None:
    """Return what the C library keeps of freed memory, as of a model that went (glibc; elsewhere nothing happens)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)

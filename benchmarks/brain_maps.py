"""Seconds and peak GB of the pixel figures over maps of the size of Brain's test set; `benchmarks.speed` starts it.

python -m benchmarks.brain_maps
"""

import re
import resource
import time
from pathlib import Path

import numpy as np

import metrics

IMAGES, SIZE = 3715, 240


def peak() -> float:
    """Peak resident GB of this process so far (Linux; elsewhere also that of the process that started it)."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / (1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def main() -> None:
    """Random maps, brighter in the squares that are their masks."""
    rng = np.random.default_rng(0)
    maps, masks = np.empty((IMAGES, SIZE, SIZE), np.float32), np.zeros((IMAGES, SIZE, SIZE), bool)
    for one, mask in zip(maps, masks, strict=True):
        top, left = rng.integers(0, 190, 2)
        mask[top : top + 50, left : left + 50] = rng.random() < 0.8
        one[:] = rng.random((SIZE, SIZE), np.float32) + 0.5 * mask
    started = time.perf_counter()
    metrics.pixel_metrics(maps, masks)
    print(time.perf_counter() - started, peak())


if __name__ == "__main__":
    main()

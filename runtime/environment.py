"""What a run ran on."""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import cv2
import torch

from runtime import linear
from runtime.processor import output, processor

DECIDING = ("CLIP", "dataset", "engine", "runtime", "scoring", "decoder.py", "loss.py", "madff.py", "utils.py")
PACKED = ("16 bits by oneDNN",)
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "pillow", "ftfy", "regex", "safetensors")


def environment(device: str | torch.device = "cpu") -> dict[str, str | int | None]:
    """What a run ran on: package versions, Python, platform, processor, device, the code's commit if any.

    On a CPU also what decides a trained figure's last digits: threads, and whose matrix products at which vector width.
    kernels: "deterministic" where the same command gives the same bits again.
    """
    device = torch.device(device)
    chosen = device.type == "cuda" and torch.are_deterministic_algorithms_enabled()
    return {name: _version(name) for name in PACKAGES} | {
        "opencv": cv2.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "products": ", ".join([linear.library(), torch.backends.cpu.get_cpu_capability(), *PACKED * linear.packing()]),
        "kernels": "deterministic" if device.type == "cpu" or chosen else "not deterministic",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "commit": commit(Path(__file__).resolve().parents[1]),
    }


def code_sha256(root: Path = Path(__file__).parents[1]) -> str:
    """Of the source that decides a run's figures; sentences, pages and apps are not in it."""
    whole = hashlib.sha256()
    for place in DECIDING:
        for path in sorted((root / place).rglob("*.py")) if (root / place).is_dir() else [root / place]:
            whole.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


def commit(folder: Path) -> str | None:
    """The git commit that `folder` is a checkout of, " and changes" behind it if files differ; else None.

    What benchmarks write is no change of the code.
    """
    found = output("git", "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD")
    if found is None:
        return None
    top, head = found.splitlines()
    if Path(top).resolve() != folder.resolve():  # a copy inside somebody else's repository
        return None
    status = ("git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain", "-uno")
    changes = output(*status, "--", ".", *(f":(exclude)benchmarks/*.{kind}" for kind in ("md", "json", "png")))
    return f"{head} and changes" if changes else head


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

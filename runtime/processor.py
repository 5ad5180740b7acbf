"""Which processor this is."""

import platform
import subprocess
from functools import cache
from pathlib import Path


@cache
def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    if named:
        return named[0]
    return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def output(*command: str) -> str | None:
    """What a command prints, None if it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

"""The most memory that a piece of work takes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def restart_peak() -> None:
    """Forget the most memory that was in use so far; where the system can't, it stays."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_megabytes() -> float:
    """The most memory in use since :func:`restart_peak`, in MB of 10⁶ bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return kilobytes * 1024 / 1e6
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

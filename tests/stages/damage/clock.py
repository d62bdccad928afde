"""A clock that stands still while a process waits for a core: a busy machine makes nothing late."""

from __future__ import annotations

import time
from pathlib import Path


def seconds(process: int | str = "self") -> float:
    """Seconds in which a process computed, or waited for something else than a core."""
    _, delayed, _ = Path(f"/proc/{process}/schedstat").read_text().split()
    return time.monotonic() - int(delayed) / 1e9

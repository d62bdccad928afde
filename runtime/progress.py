"""How far long stages have come, and what took how long."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(
    iterable: Iterable[Any] | None = None,
    total: int | None = None,
    initial: int = 0,
    desc: str = "",
    disable: bool = False,
    unit: str = "it",
    leave: bool = True,
) -> tqdm:
    """A tqdm bar on stderr; redrawn every 15 s at most when stderr is a file.

    Args:
        iterable: what to iterate over, or none to call ``update`` by hand.
        total: number of items including those done before.
        initial: items done before this run started (after resuming).
        desc: label in front of the bar.
        disable: draw nothing (processes other than the main one).
        unit: what an item is called, e.g. "step".
        leave: keep the finished bar on the screen.
    """
    interval = 0.1 if sys.stderr.isatty() else 15.0
    return tqdm(
        iterable,
        total=total,
        initial=initial,
        desc=desc,
        disable=disable,
        unit=unit,
        leave=leave,
        mininterval=interval,
        dynamic_ncols=True,
    )


def counted(number: int, noun: str) -> str:
    """Return a count in words, e.g. "1 avatar" and "2 avatars"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Stopwatch:
    """Seconds between laps, by name.

    Attributes:
        laps: of those ended so far, rounded to milliseconds.
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> float:
        """End a lap; its seconds, never quite 0."""
        now = time.perf_counter()
        seconds, self._since = max(now - self._since, 1e-9), now
        self.laps[name] = round(seconds, 3)
        return seconds

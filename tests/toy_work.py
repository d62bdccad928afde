"""A stage's work in small, to be spread: a subject's file gets its name, in several steps."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.errors import UserError
from runtime.files import write_text
from runtime.spread import Job, Turns


@dataclass
class ToyConfig:
    """What goes wrong with whom."""

    folder: Path
    seconds: float = 0.0
    damaged: tuple[str, ...] = ()
    faulty: tuple[str, ...] = ()
    deadly: tuple[str, ...] = ()
    saves: bool = False
    """Whether a deadly subject gets a step further each time, and is done after six."""


class Toy:
    """Writes ``done/<name>`` and notes who did it in ``calls/``."""

    def __init__(self, config: ToyConfig):
        self.config = config

    def __call__(self, names: list[str], turns: Turns) -> None:
        config = self.config
        for name in names:
            calls = config.folder / "calls" / name
            calls.parent.mkdir(parents=True, exist_ok=True)
            with open(calls, "a") as file:
                file.write(f"{os.getpid()} {len(names)} {os.environ.get('OMP_NUM_THREADS')}\n")
            if name in config.damaged:
                raise UserError(f"the picture of {name} is damaged")
            if name in config.faulty:
                raise ZeroDivisionError("a fault of the program")
            if name in config.deadly:
                tried = len(calls.read_text().splitlines())
                if config.saves:
                    turns.saved()
                if not config.saves or tried < 7:
                    os.kill(os.getpid(), signal.SIGKILL)
            until = time.monotonic() + config.seconds
            while time.monotonic() < until:
                time.sleep(0.01)
                turns.saved()
            turns.within(1.0)
            write_text(config.folder / "done" / name, f"{name}\n")


def finished(folder: Path, name: str) -> bool:
    """Whether the subject's file is there."""
    return (folder / "done" / name).exists()


def toy_job(config: ToyConfig, **changes) -> Job:
    """The job of a toy."""
    folder = config.folder
    defaults = {"failures": folder / "failures", **changes}
    return Job("toy", Toy, config, partial(finished, folder), folder / "turns", **defaults)


def outcome(folder: Path) -> dict[str, str]:
    """Name → content of all finished subjects."""
    return {file.name: file.read_text() for file in (folder / "done").glob("[!.]*")}

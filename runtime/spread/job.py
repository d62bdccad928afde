"""A stage's work over subjects, and doing a part of it in this process."""

from __future__ import annotations

import os
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runtime.errors import UserError, is_disk_full, os_error_sentence
from runtime.spread.turns import Turn

DEATHS = 5
"""Processes that may die on a subject in a row, without having saved, before it is given up."""


@dataclass(frozen=True)
class Job:
    """A stage's work over subjects; it travels to the processes that do it.

    Attributes:
        stage: what the bar is called.
        begin: called with ``config`` once in every process; returns what is then called with the
            names to work on and their :class:`Turns`. A function or class of a module.
        config: the stage's settings.
        finished: whether a subject's result is there.
        folder: where turns lie while the work is going on, out of the results' way.
        failures: folder for a file on each failed subject; none without it.
        batch: most subjects of one call.
        uses_gpu: whether the processes want one, where there is one.
        unit: what a subject is called.
    """

    stage: str
    begin: Callable[[Any], Work]
    config: Any
    finished: Callable[[str], bool]
    folder: Path
    failures: Path | None = None
    batch: int = 1
    uses_gpu: bool = False
    unit: str = "subject"
    home: str = field(default_factory=os.getcwd)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Turns:
    """A job: what one call of the work holds, and how it says that it has got further."""

    turns: list[Turn]
    show: Callable[[float], None] | None = None

    def saved(self) -> None:
        """Call it when a state is saved: subjects that kill their process are told by it."""
        for turn in self.turns:
            turn.saved()

    def within(self, share: float) -> None:
        """Return how much of the call's work is done, 0 to 1."""
        if self.show is not None:
            self.show(share)


Work = Callable[[list[str], Turns], None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a subject: done, failed with a reason, or busy at another process."""

    name: str
    state: Literal["done", "failed", "busy"]
    reason: str = ""
    details: str = ""


Collected = tuple[list[str], list[Outcome] | None]
"""Names that were given to an engine, and what became of each; None when the process died."""


def attempt(
    job: Job, work: Work, names: list[str], show: Callable[[float], None] | None = None
) -> list[Outcome]:
    """Work on those of the names that nobody else works on and that aren't finished.

    Returns:
        What became of each; errors are among it, except a full disk, which is raised.
    """
    outcomes: list[Outcome] = []
    held: list[Turn] = []
    try:
        for name in names:
            turn = Turn(job.folder, name)
            if not turn.take():
                outcomes.append(Outcome(name, "busy"))
                continue
            held.append(turn)
        ready: list[Turn] = []
        for turn in held:
            if job.finished(turn.name):
                outcomes.append(Outcome(turn.name, "done"))
            elif turn.deaths >= DEATHS:
                reason = (
                    f"{turn.deaths} processes in a row died on {turn.name} without getting "
                    "further; look for lack of memory, then run the same command again"
                )
                outcomes.append(Outcome(turn.name, "failed", reason))
            else:
                ready.append(turn)
        return outcomes + (_work(job, work, ready, show) if ready else [])
    finally:
        for turn in held:
            turn.give_back()


def _work(
    job: Job, work: Work, turns: list[Turn], show: Callable[[float], None] | None
) -> list[Outcome]:
    names = [turn.name for turn in turns]
    try:
        work(names, Turns(turns, show))
        return [Outcome(name, "done") for name in names]
    except Exception as error:
        if is_disk_full(error):
            raise
        if len(turns) > 1:  # one by one, to find out whose fault it is
            done = [turn for turn in turns if job.finished(turn.name)]
            left = [turn for turn in turns if turn not in done]
            outcomes = [outcome for turn in left for outcome in _work(job, work, [turn], None)]
            return [Outcome(turn.name, "done") for turn in done] + outcomes
        if isinstance(error, UserError):
            return [Outcome(names[0], "failed", str(error))]
        if isinstance(error, OSError) and (sentence := os_error_sentence(error)) is not None:
            return [Outcome(names[0], "failed", sentence)]
        reason = f"{type(error).__name__}: {error}"
        return [Outcome(names[0], "failed", reason, traceback.format_exc())]


# What this process has begun: the job's key and its work.
_begun: dict[str, Work] = {}


def attempt_elsewhere(job: Job, names: list[str], threads: int) -> list[Outcome] | str:
    """:func:`attempt` in a process of an engine, which begins the job when it first sees it.

    Returns:
        The outcomes, or the sentence of an error that concerns all subjects.
    """
    import torch

    try:
        if job.key not in _begun:
            torch.set_num_threads(threads)
            os.chdir(job.home)
            _begun.clear()
            _begun[job.key] = job.begin(job.config)
        return attempt(job, _begun[job.key], names)
    except UserError as error:
        return str(error)
    except Exception as error:
        if is_disk_full(error):
            return "the disk is full; free some space and run the same command again."
        raise

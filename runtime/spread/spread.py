"""Gives subjects to an engine, follows what becomes of them and lists the failures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tqdm import tqdm

from runtime.errors import PartialFailure, UserError
from runtime.files import write_json
from runtime.launch import is_main_process
from runtime.progress import progress
from runtime.spread.engines import Engine, open_engine
from runtime.spread.job import DEATHS, Job, Outcome, Work
from runtime.spread.settings import SpreadSettings
from runtime.spread.turns import any_taken, remove_turns

HOPELESS = 10
"""Failures in a row, without a success, after which all is stopped: the cause is not theirs."""
LOOK_AGAIN = 1.0
"""Seconds between looks at subjects that other processes work on."""


@dataclass
class Report:
    """The outcome of all subjects.

    Attributes:
        job: the work.
        names: all subjects asked for.
        failures: why those that failed did.
    """

    job: Job
    names: list[str]
    failures: dict[str, str] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raise the list of subjects that failed, if any did.

        Raises:
            PartialFailure: some failed.
            UserError: all did.
        """
        failed, unit = len(self.failures), self.job.unit
        if not failed:
            return
        if len(self.names) == 1:
            raise UserError(next(iter(self.failures.values())))
        reasons = {name: self.failures[name] for name in self.names if name in self.failures}
        listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        if failed == len(self.names):
            raise UserError(f"all {failed} {unit}s failed:\n{listed}")
        raise PartialFailure(
            f"{failed} of {len(self.names)} {unit}s failed, the rest are done; the same command "
            f"tries them again:\n{listed}"
        )


def spread(
    job: Job,
    names: list[str],
    settings: SpreadSettings,
    each: Callable[[str, int], None] | None = None,
    begun: Work | None = None,
) -> Report:
    """Work on every subject of the list that is not finished.

    Args:
        job: the work.
        names: the subjects; the settings' shard is taken of them.
        settings: where it is done.
        each: called here with every subject that is newly done and how many then are.
        begun: the job's work where this process has begun it already and does it itself.

    Raises:
        UserError: the first subjects all failed.
    """
    names = settings.share(names)
    run = _Run(job, names, each)
    if run.waiting:
        engine = open_engine(job, settings, run.show, begun)
        try:
            run.all(engine)
        finally:
            run.bar.close()
            engine.close()
    run.bar.close()
    remove_turns(job.folder)
    return run.report


class _Run:
    """The bar, the failures and what is still to be tried."""

    def __init__(self, job: Job, names: list[str], each: Callable[[str, int], None] | None):
        self.job, self.each = job, each
        self.waiting = deque(name for name in names if not job.finished(name))
        self.done = len(names) - len(self.waiting)
        self.report = Report(job, names)
        self.bar = progress(
            total=len(names),
            initial=self.done,
            desc=job.stage,
            unit=job.unit,
            disable=not is_main_process(),
        )
        # The mean over this run: subjects come in bursts, one from each process.
        self.bar.smoothing = 0
        self._succeeded = False
        self._early_deaths = 0
        self._later: list[tuple[float, str]] = []

    def all(self, engine: Engine) -> None:
        """Work until every subject is done or has failed."""
        running, waiting = 0, self.waiting
        while waiting or running or self._later:
            now = time.monotonic()
            waiting += [name for due, name in self._later if due <= now]
            self._later = [(due, name) for due, name in self._later if due > now]
            while waiting and engine.room() > 0:
                engine.submit([waiting.popleft() for _ in range(min(self.job.batch, len(waiting)))])
                running += 1
            if not running:
                time.sleep(LOOK_AGAIN)
                continue
            for given, outcomes in engine.collect(LOOK_AGAIN):
                running -= 1
                if outcomes is None:
                    self._died(given)
                    waiting.extendleft(reversed(given))
                else:
                    for outcome in outcomes:
                        self._take(outcome)

    def show(self, share: float) -> None:
        """Return how much of the subjects at hand is done."""
        self.bar.n = round(self.done + len(self.report.failures) + share * self.job.batch, 2)
        self.bar.update(0)

    def _take(self, outcome: Outcome) -> None:
        name = outcome.name
        if outcome.state == "busy":
            self._later.append((time.monotonic() + LOOK_AGAIN, name))
        elif outcome.state == "done":
            self.done += 1
            self._succeeded = True
            if self.job.failures is not None:
                (self.job.failures / f"{name}.json").unlink(missing_ok=True)
            if self.each is not None:
                self.each(name, self.done)
        else:
            self._failed(outcome)
        self.bar.n = self.done + len(self.report.failures)
        if self.report.failures:
            self.bar.set_postfix(failed=len(self.report.failures), refresh=False)
        self.bar.update(0)

    def _failed(self, outcome: Outcome) -> None:
        self.report.failures[outcome.name] = outcome.reason
        tqdm.write(f"{outcome.name} failed: {outcome.reason}")
        if self.job.failures is not None:
            details = {"traceback": outcome.details} if outcome.details else {}
            write_json(
                self.job.failures / f"{outcome.name}.json", {"error": outcome.reason, **details}
            )
        elif outcome.details:
            tqdm.write(outcome.details)
        if len(self.report.failures) == HOPELESS and not self._succeeded:
            raise UserError(f"the first {HOPELESS} {self.job.unit}s all failed: {outcome.reason}")

    def _died(self, names: list[str]) -> None:
        tqdm.write(f"a process was killed at work on {', '.join(names)}; it is tried again")
        if any_taken(self.job.folder, names):
            return  # the turns count them
        self._early_deaths += 1
        if self._early_deaths > DEATHS:
            raise UserError(
                "processes are killed before they come to their first subject; the machine may "
                "lack memory for so many at once: lower subjects_at_once"
            )

"""Which subjects are still to be fitted, shared by any number of processes.

Every process is given the same list and works on what it can claim (:mod:`runtime.claims`), so
processes may be started, killed and added at any time, on any machine that sees the run folder.
Splitting the list beforehand would leave a killed process's share to a second run, and the
slowest process would decide when the first one ends. What is done shows in the folder alone::

    <run>/triplanes/<subject>.safetensors   written first
    <run>/quality/<subject>.json            its record; with it the subject is finished
    <run>/failures/<subject>.json           why it could not be fitted
    <run>/state/<subject>.pt                where to go on
    <run>/state/claims/                     who works on what
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from renderer.fitted_set import FittedSet
from runtime.claims import Claim, Claims
from runtime.errors import PartialFailure, UserError, is_disk_full
from runtime.files import read_json, write_json
from runtime.progress import progress
from runtime.runs import RunFolder

DEATHS = 5
"""Processes that may die on a subject in a row, without getting further, before it is given up."""
HOPELESS = 10
"""Failures in a row, without a success, after which a process stops: the cause is not theirs."""
LOOK_AGAIN = 1.0
"""Seconds between looks at what others hold, once nothing else is left to claim."""
COUNT_AGAIN = 20.0
"""Seconds between counts of what all processes have done."""


class SubjectJobs:
    """The list of subjects with what is known of each.

    Args:
        folder: the run folder.
        fitted: the triplanes in it.
        names: all subjects of the job.
        stale_after: see :class:`runtime.claims.Claims`.
    """

    def __init__(self, folder: RunFolder, fitted: FittedSet, names: list[str], stale_after: float):
        self.folder, self.fitted, self.names = folder, fitted, names
        self.claims = Claims(folder.state / "claims", stale_after)
        # Failures of earlier runs are tried again, once: until their record is a new one.
        self._earlier = {name: self._failure_time(name) for name in names}

    def record(self, name: str) -> Path:
        """The quality record of a subject; there when it is finished."""
        return self.folder.path / "quality" / f"{name}.json"

    def state(self, name: str) -> Path:
        """Where an unfinished subject's state is saved."""
        return self.folder.state / f"{name}.pt"

    def failure(self, name: str) -> Path:
        """Why a subject could not be fitted."""
        return self.folder.path / "failures" / f"{name}.json"

    def done(self) -> set[str]:
        """Finished subjects of the list."""
        recorded = _stems(self.folder.path / "quality", ".json")
        return recorded & _stems(self.fitted.folder / "triplanes", ".safetensors") & {*self.names}

    def failed(self) -> set[str]:
        """Subjects that failed since this process began."""
        listed = _stems(self.folder.path / "failures", ".json") & {*self.names}
        return {name for name in listed if self._failure_time(name) != self._earlier[name]}

    def _failure_time(self, name: str) -> int:
        try:
            return self.failure(name).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def run(self, fit: Fit, first: float, show: bool) -> None:
        """Fit subjects until all are finished, by whomever, or failed.

        Args:
            fit: fits one subject and writes its record; false when the claim was lost on the way.
                It tells the bar how much of the subject is done.
            first: where in the list to begin, 0 to 1; processes that begin apart meet late.
            show: draw a bar of the whole job.

        Raises:
            UserError: the first subjects all failed.
        """
        begin = int(first * len(self.names)) % len(self.names)
        order = self.names[begin:] + self.names[:begin]
        bar = JobBar(self, show)
        succeeded, failures = False, 0
        with bar:
            while True:
                bar.count()
                left = bar.left(order)
                if not left:
                    return
                worked = False
                for name, claim in self._claimed(left):
                    worked = True
                    outcome = self._one(name, claim, fit, bar)
                    succeeded |= outcome is True
                    failures = failures + 1 if outcome is False else 0
                    if failures == HOPELESS and not succeeded:
                        raise UserError(
                            f"the first {HOPELESS} subjects all failed; the reasons are in "
                            f"{self.folder.path / 'failures'}"
                        )
                    bar.count_if_due()
                if not worked:
                    time.sleep(LOOK_AGAIN)

    def _claimed(self, left: list[str]) -> Iterator[tuple[str, Claim]]:
        """Subjects that nobody holds; only when there are none, one that a dead process held.

        If a subject killed its process, it shall not kill those who could still fit others.
        """
        found = False
        for take_over in (False, True):
            for name in left:
                claim = self.claims.take(name, self._progress(name), take_over=take_over)
                if claim is not None:
                    found = True
                    yield name, claim
                    if take_over:
                        return
            if found:
                return

    def _progress(self, name: str) -> str:
        try:
            return str(self.state(name).stat().st_mtime_ns)
        except FileNotFoundError:
            return ""

    def _one(self, name: str, claim: Claim, fit: Fit, bar: JobBar) -> bool | None:
        """Whether a claimed subject was fitted; None when there was nothing to do."""
        try:
            if self.record(name).exists() and self.fitted.path(name).exists():
                return None
            if self._failure_time(name) != self._earlier[name]:
                return None
            if claim.deaths >= DEATHS:
                raise UserError(
                    f"{claim.deaths} processes in a row died on {name} without getting further; "
                    "look for lack of memory, then run the same command again"
                )
            if not fit(name, claim, bar):
                self.folder.log(f"{name} was taken over by another process")
                return None
            self.failure(name).unlink(missing_ok=True)
            return True
        except Exception as error:
            if is_disk_full(error):
                raise
            known = isinstance(error, UserError)
            sentence = str(error) if known else f"{type(error).__name__}: {error}"
            details = {} if known else {"traceback": traceback.format_exc()}
            write_json(self.failure(name), {"error": sentence} | details)
            self.folder.log(f"{name} failed: {sentence}")
            return False
        finally:
            claim.release()

    def finish(self) -> dict[str, dict]:
        """Tidy up once nothing is left; the records of all finished subjects."""
        self.claims.close()
        return {name: read_json(self.record(name)) for name in sorted(self.done())}

    def raise_failures(self) -> None:
        """Raise :class:`PartialFailure` with the list of subjects that failed, if any did."""
        done = self.done()
        reasons = {
            name: read_json(self.failure(name))["error"]
            for name in self.names
            if name not in done and self.failure(name).exists()
        }
        if reasons:
            listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
            raise PartialFailure(
                f"{len(reasons)} of {len(self.names)} subjects could not be fitted, the rest are "
                f"done; the same command tries them again:\n{listed}"
            )


class JobBar:
    """A bar over the subjects of the whole job, whoever works on them, with its time left."""

    def __init__(self, jobs: SubjectJobs, show: bool):
        self.jobs = jobs
        self._done, self._failed = jobs.done(), jobs.failed()
        self.bar = progress(
            total=len(jobs.names),
            initial=len(self._done),
            desc=jobs.folder.stage,
            unit="subject",
            disable=not show,
        )
        # The mean over this run: subjects come in bursts, one from each process.
        self.bar.smoothing = 0
        self._counted = time.monotonic()

    def __enter__(self) -> JobBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def count(self) -> None:
        """Look at what everybody has done."""
        self._done, self._failed = self.jobs.done(), self.jobs.failed()
        self.bar.n = len(self._done | self._failed)
        facts = {"at work": self.jobs.claims.holders(), "failed": len(self._failed)}
        self.bar.set_postfix({k: v for k, v in facts.items() if v}, refresh=False)
        self.bar.update(0)
        self._counted = time.monotonic()

    def within(self, share: float) -> None:
        """How much of the subject at hand is done, 0 to 1; counts again when the last is old."""
        self.count_if_due()
        self.bar.n = round(len(self._done | self._failed) + share, 2)
        self.bar.update(0)

    def count_if_due(self) -> None:
        """Count again when the last count is old."""
        if time.monotonic() - self._counted > COUNT_AGAIN:
            self.count()

    def left(self, order: list[str]) -> list[str]:
        """Subjects neither done nor failed at the last count."""
        return [name for name in order if name not in self._done | self._failed]


def _stems(folder: Path, suffix: str) -> set[str]:
    """Names of the files of one kind, without it; one listing, however many there are."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


Fit = Callable[[str, Claim, JobBar], bool]

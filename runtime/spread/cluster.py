"""A Ray cluster as the engine: Ray starts the processes, gives them GPUs and tries again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from runtime.errors import UserError
from runtime.spread.job import DEATHS, Collected, Job, attempt_elsewhere
from runtime.spread.settings import SpreadSettings

_PROJECT = Path(__file__).resolve().parents[2]
# Of the environment, what the work depends on.
_PASSED_ON = ("TRIAVATAR_", "GOMP_", "HF_")


class RayCluster:
    """Gives batches to Ray as tasks; machines may come and go meanwhile.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, job: Job, settings: SpreadSettings):
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError(
                "--engine ray needs the package ray; pip install 'triavatar[cluster]'"
            ) from None
        self.ray, self.job = ray, job
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(settings.engine_address)
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = min((int(node["CPU"]) for node in alive if node.get("CPU")), default=1)
        gpus = max((int(node.get("GPU", 0)) for node in alive), default=0) if job.uses_gpu else 0
        at_once = settings.subjects_at_once
        self.threads = settings.threads or max(1, cpus // (at_once * max(gpus, 1)))
        self._needs: dict[str, float] = {"CPU": min(self.threads, cpus)}
        if gpus:
            self._needs["GPU"] = 1 / at_once
        self._task = ray.remote(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs.get("GPU", 0),
            max_retries=DEATHS,
        )(attempt_elsewhere)
        self._job = ray.put(job)
        self._running: dict[Any, list[str]] = {}

    def _connect(self, address: str | None) -> None:
        variables = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        paths = [str(_PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            self.ray.init(
                # Without an address Ray would join whatever cluster it finds a trace of here.
                address=address or "local",
                runtime_env={"env_vars": {**variables, "PYTHONPATH": os.pathsep.join(paths)}},
                log_to_driver=False,
                logging_level="ERROR",
                **({} if address else {"include_dashboard": False}),
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"no Ray cluster answers at {address or 'this machine'} ({reason}); start one with "
                "`ray start --head` and give its --engine_address"
            ) from None

    def room(self) -> int:
        """Twice what the cluster can hold, so that nothing waits for this process."""
        there = self.ray.cluster_resources()
        slots = min(int(there.get(name, 0) / amount) for name, amount in self._needs.items())
        return 2 * max(slots, 1) - len(self._running)

    def submit(self, names: list[str]) -> None:
        self._running[self._task.remote(self._job, names, self.threads)] = names

    def collect(self, timeout: float) -> list[Collected]:
        done, _ = self.ray.wait(list(self._running), num_returns=1, timeout=timeout)
        collected: list[Collected] = []
        for reference in done:
            names = self._running.pop(reference)
            try:
                outcomes = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self.ray.exceptions.RayError:
                outcomes = None
            if isinstance(outcomes, str):
                raise UserError(outcomes)
            collected.append((names, outcomes))
        return collected

    def close(self) -> None:
        for reference in self._running:
            self.ray.cancel(reference, force=True)
        if self._ours:
            self.ray.shutdown()

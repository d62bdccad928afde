"""A process that runs damaged inputs one after the other, and is replaced when it dies or waits."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tests.conftest import PROJECT
from tests.stages.damage import clock
from tests.stages.damage.case import MOST_SECONDS, Outcome, run_case, whole_results
from tests.stages.damage.targets import TARGETS
from tests.stages.damage.world import World

PATIENCE = 6 * MOST_SECONDS


class Worker:
    """Runs cases in another process.

    Args:
        world: what is damaged, in copies; its own folder's parent takes them.
        log: file that takes what the process prints on stderr.
    """

    def __init__(self, world: World, log: Path):
        self.world, self.log = world, log
        self._process: subprocess.Popen | None = None

    def ask(self, number: int, seed: int) -> Outcome:
        """Run one case; "died" is the kind of one that takes its process with it."""
        process = self._running()
        assert process.stdin and process.stdout
        process.stdin.write(f"{number} {seed}\n".encode())
        process.stdin.flush()
        ready = self._answers(process)
        line = process.stdout.readline() if ready else b""
        if line:
            return Outcome(**json.loads(line))
        self.close()
        return Outcome(number, seed, "died" if ready else "hang", TARGETS[number].files, "")

    @staticmethod
    def _answers(process: subprocess.Popen) -> bool:
        """Whether the process says something before it has had time enough."""
        begun = clock.seconds(process.pid)
        while clock.seconds(process.pid) - begun < PATIENCE:
            if select.select([process.stdout], [], [], 5)[0]:
                return True
        return False

    def _running(self) -> subprocess.Popen:
        if self._process is None:
            begun, here = self.world.begun.root.parent, self.world.root.parent
            command = [sys.executable, "-m", "tests.stages.damage.worker", str(here), str(begun)]
            with open(self.log, "ab") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=PROJECT,
                    env={**os.environ, "PYTHONPATH": str(PROJECT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def load_world(base: Path, begun: Path) -> World:
    """Return the world in a folder that another process has filled."""
    first = World(begun / "set", begun / "out", begun / "configs", None)  # type: ignore[arg-type]
    return World(base / "set", base / "out", base / "configs", first)


def load_whole(world: World, number: int) -> dict[str, str]:
    """Results of undamaged files, found once for all processes."""
    kept = world.root.parent.parent / "whole" / f"{number}.json"
    if not kept.exists():
        found = whole_results(world, number)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def serve(base: Path, begun: Path) -> None:
    """Read cases from stdin, write outcomes to stdout."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    world = load_world(base, begun)
    for line in sys.stdin:
        number, seed = map(int, line.split())
        whole = load_whole(world, number)
        answers.write(json.dumps(asdict(run_case(world, number, seed, whole))) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))

"""Many damaged inputs, counted by what came of them.

``python -m tests.stages.damage.campaign FOLDER --first 0 --count 5000`` makes its world in FOLDER
once, notes every case as a line of ``cases.jsonl`` and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import yaml

from tests.stages.conftest import SETTINGS, Chain, write_balls
from tests.stages.damage.case import GOOD
from tests.stages.damage.foreign import add_foreign_files
from tests.stages.damage.targets import TARGETS
from tests.stages.damage.worker import Worker, load_world
from tests.stages.damage.world import World, own_world


def make_world(folder: Path) -> World:
    """Run the chain in a folder, unless that has been done."""
    begun, base = folder / "begun", folder / "cases" / "world"
    if not (folder / "ready").exists():
        chain = Chain(begun / "set", begun / "out", begun / "configs")
        write_balls(chain.root)
        chain.configs.mkdir()
        for stage, values in SETTINGS.items():
            (chain.configs / f"{stage}.yaml").write_text(yaml.safe_dump(values))
        for stage in SETTINGS:
            assert chain.run(stage, chain.out / stage) == 0, stage
        base.parent.mkdir()
        add_foreign_files(own_world(chain, base, ""))
        (folder / "ready").touch()
    return load_world(base, begun)


def run(folder: Path, first: int, count: int) -> Counter[str]:
    """Run the cases of a range of seeds, target after target; how many came to what."""
    folder.mkdir(parents=True, exist_ok=True)
    worker = Worker(make_world(folder), folder / "worker.log")
    notes = folder / "cases.jsonl"
    known = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    done = {entry["seed"]: entry for entry in known}
    kinds: Counter[str] = Counter()
    with open(notes, "a") as file:
        for seed in range(first, first + count):
            if seed not in done:
                done[seed] = asdict(worker.ask(seed % len(TARGETS), seed))
                file.write(json.dumps(done[seed]) + "\n")
                file.flush()
                if done[seed]["kind"] not in GOOD:
                    print(json.dumps(done[seed]), flush=True)
            kinds[done[seed]["kind"]] += 1
    worker.close()
    return kinds


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    for kind, number in run(given.folder, given.first, given.count).most_common():
        print(f"{number:6} {kind}")

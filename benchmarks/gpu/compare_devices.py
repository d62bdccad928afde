"""Run each trainer's first steps on two devices and compare their losses.

    PYTHONPATH=. python benchmarks/gpu/compare_devices.py --devices cpu cuda --work DIR --json FILE

Each stage reads what the one before made on the first device, so a difference does not add up.
Exits with status 1 where a stage fails or its losses differ by more than ``--tolerance`` of their
size.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

SCALE = "configs/debug"


def stages(root: str, work: Path, steps: int) -> dict[str, list[str]]:
    """Command lines of the trainers, without device and output folder."""
    vae = f"{work}/train-vae"
    short = ["--log_every", "1", "--save_every", str(steps), "--sample_every", "0"]
    short += ["--warmup_steps", "1", "--steps", str(steps)]
    made = ["--triplanes", f"{work}/fit-triplanes", "--features", f"{work}/encode-features"]
    return {
        "train-vae": ["--config", f"{SCALE}/vae.yaml", "--root", root, *short],
        "encode-features": [
            *("--config", f"{SCALE}/features.yaml", "--root", root),
            *("--vae", f"{vae}/snapshots/model"),
        ],
        "fit-decoder": [
            *("--config", f"{SCALE}/fit_decoder.yaml", "--root", root, "--log_every", "1"),
            *("--inner_steps", str(steps), "--end_idx", "2", "--subjects_per_step", "2"),
        ],
        "fit-triplanes": [
            *("--config", f"{SCALE}/fit_triplanes.yaml", "--root", root, "--log_every", "1"),
            *("--decoder", f"{work}/fit-decoder", "--iterations", str(steps)),
        ],
        "train-base": ["--config", f"{SCALE}/base.yaml", "--root", root, *made, *short],
        "train-upsampler": ["--config", f"{SCALE}/upsampler.yaml", "--root", root, *made, *short],
    }


def losses(folder: Path) -> list[float]:
    """What the run logged as its loss, line by line."""
    path = folder / "stats.jsonl"
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [
        next((row[key] for key in ("loss", "mse", "psnr") if key in row), None) for row in rows
    ]
    return [value for value in found if value is not None]


def compare(first: list[float], second: list[float]) -> float:
    """Largest difference of two runs' losses, over their size; infinite where one is missing."""
    if len(first) != len(second):
        return math.inf
    if not all(map(math.isfinite, [*first, *second])):
        return math.inf
    size = max(map(abs, first), default=1.0)
    return max((abs(a - b) / size for a, b in zip(first, second, strict=True)), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", nargs=2, default=["cpu", "cuda"])
    parser.add_argument("--root", default="data/example")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--json", required=True)
    arguments = parser.parse_args()
    report, failed = {}, False
    inputs = arguments.work / "first"
    for stage, command in stages(arguments.root, inputs, arguments.steps).items():
        entry: dict[str, object] = {}
        for name, device in zip(("first", "second"), arguments.devices, strict=True):
            output = arguments.work / name / stage
            began = time.time()
            run = subprocess.run(
                [sys.executable, "-m", "triavatar", stage, *command]
                + ["--device", device, "--output_dir", str(output)],
                capture_output=True,
                text=True,
            )
            entry[name] = {"device": device, "seconds": round(time.time() - began, 1)}
            if run.returncode:
                entry["error"] = f"on {device}: {run.stderr.strip()[-600:]}"
                break
        else:
            runs = [losses(arguments.work / name / stage) for name in ("first", "second")]
            difference = compare(*runs)
            entry |= {"losses": runs, "difference": difference}
            if difference > arguments.tolerance:
                entry["error"] = f"losses differ by {difference:.2%}"
        failed |= "error" in entry
        report[stage] = entry
        print(f"{stage:18s}{entry.get('error') or 'agrees'}", flush=True)
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()

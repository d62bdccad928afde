"""Collects what the benchmarks measure; JSON and Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from runtime.files import write_json, write_text
from studies.bench.timing import interleaved, machine, markdown, peak_memory

OURS = "ours"
REFERENCE = "plain reference"
DENSE = "dense sampling"


class Report:
    """Collects rows and writes them as JSON and as a table."""

    def __init__(self, config: Any, device: torch.device, limits: dict[str, float], ours: str):
        self.config, self.device, self.limits = config, device, limits
        self.rows: list[dict[str, Any]] = []
        self.notes = [f"ours: impl={ours}"]

    def add(
        self,
        case: str,
        sides: dict[str, Callable[[], Any]],
        work: int,
        unit: str,
        flops: float | None = None,
        repeats: int | None = None,
    ) -> dict[str, float]:
        """Measure the sides of a case, slowest first by custom.

        Args:
            work: things done by one call, for the rate.
            flops: of our side's matrix products in one call, folded, without recomputation.

        Returns:
            Median seconds of each side.
        """
        seconds = interleaved(sides, self.device, repeats or self.config.repeats)
        slowest = max(seconds.values())
        peak = self.limits.get("matmul_float16_tflops", self.limits["matmul_float32_tflops"])
        for side, call in sides.items():
            share = flops / seconds[side] / peak / 1e12 if flops and side == OURS else None
            self.rows.append(
                {
                    "case": case,
                    "side": side,
                    "seconds": seconds[side],
                    "rate": work / seconds[side],
                    "unit": unit,
                    "speedup": slowest / seconds[side],
                    "peak_mib": peak_memory(call, self.device),
                    "limit_share": share,
                }
            )
            print(f"{case}, {side}: {1000 * seconds[side]:.1f} ms", flush=True)
        return seconds

    def finish(self) -> None:
        """Print the table and write the files asked for."""
        content = {
            "machine": machine(self.device),
            "limits": self.limits,
            "settings": {k: _plain(v) for k, v in vars(self.config).items()},
            "rows": self.rows,
            "notes": self.notes,
        }
        table = markdown(content)
        print("\n" + table)
        if self.config.json is not None:
            write_json(self.config.json, content)
        if self.config.table is not None:
            write_text(self.config.table, table)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value) if isinstance(value, Path) else value

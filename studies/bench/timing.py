"""Timing, memory and limits of a device, for the benchmarks."""

from __future__ import annotations

import gc
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from runtime.version import VERSION


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    sides: dict[str, Callable[[], Any]], device: torch.device, repeats: int
) -> dict[str, float]:
    """Median seconds of each side, measured in turns so that all see the same machine.

    The first call of each side is not counted: it compiles and allocates.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, call in sides.items():
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(call: Callable[[], Any], device: torch.device) -> float | None:
    """Most MiB that ``call`` adds to what is held now; None where it cannot be measured."""
    gc.collect()
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # resets the high-water mark of resident memory
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    return max(0.0, (_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    """A line of this process's status, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key + ":")).split()[1])


def device_limits(device: torch.device, repeats: int = 5) -> dict[str, float]:
    """Measured rates: matrix products in TFLOP/s (fp32, and fp16 on a GPU), copies in GB/s.

    On the CPU the product is the decoder's kind: many rows that fit the cache, 128 columns.
    """
    cpu = device.type == "cpu"
    rows, side = (1024, 128) if cpu else (8192, 8192)
    limits = {}
    for dtype in [torch.float32] if cpu else [torch.float32, torch.float16]:
        a = torch.randn(rows, side, device=device, dtype=dtype)
        b = torch.randn(side, side, device=device, dtype=dtype)
        out = torch.empty(rows, side, device=device, dtype=dtype)
        count = 200 if cpu else 10
        rate = _product_rate(a, b, out, count, repeats, device)
        limits[f"matmul_{str(dtype).split('.')[1]}_tflops"] = rate
    source = torch.empty(2**25 if cpu else 2**28, device=device)
    target = torch.empty_like(source)
    seconds = interleaved({"copy": lambda: target.copy_(source)}, device, repeats)["copy"]
    limits["copy_gb_per_s"] = 2 * source.numel() * 4 / seconds / 1e9
    return limits


def _product_rate(a, b, out, count: int, repeats: int, device: torch.device) -> float:
    """TFLOP/s of ``count`` products by all cores, each on its own, or by the GPU."""
    flops = 2 * a.shape[0] * a.shape[1] * b.shape[1] * count
    if device.type == "cuda":

        def products() -> None:
            for _ in range(count):
                torch.mm(a, b, out=out)

        return flops / interleaved({"mm": products}, device, repeats)["mm"] / 1e12
    from renderer.cpu.threads import run_workers, worker_count

    workers = worker_count()
    outputs = [torch.empty_like(out) for _ in range(workers)]

    def share(index: int) -> None:
        for _ in range(count):
            torch.mm(a, b, out=outputs[index])

    seconds = interleaved({"mm": lambda: run_workers(share, workers)}, device, repeats)["mm"]
    return workers * flops / seconds / 1e12


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a reader needs to judge a figure: device, versions, threads and command."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    versions = {
        "triavatar": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    try:
        import numba

        versions["numba"] = numba.__version__
    except ImportError:
        versions["numba"] = "not installed"
    return {
        "device": f"{name}, {torch.get_num_threads()} threads" if device.type == "cpu" else name,
        "versions": versions,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }


def markdown(report: dict[str, Any]) -> str:
    """The report's rows as a table, with device, versions and command above it."""
    about, limits = report["machine"], report["limits"]
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    measured = ", ".join(f"{k} {v:.3g}" for k, v in limits.items())
    lines = [
        f"{about['device']} · {versions} · {about['date']}",
        "",
        f"`{about['command']}` · limits measured in the same run: {measured}",
        "",
        "| case | side | ms | rate | × slowest | peak MiB | of product limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        memory = "" if row.get("peak_mib") is None else f"{row['peak_mib']:.0f}"
        share = "" if row.get("limit_share") is None else f"{100 * row['limit_share']:.0f} %"
        cells = [
            row["case"],
            row["side"],
            f"{1000 * row['seconds']:.1f}",
            f"{row['rate']:.4g} {row['unit']}",
            f"{row['speedup']:.1f}",
            memory,
            share,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {note}" for note in report.get("notes", []))]
    return "\n".join(lines) + "\n"

"""Time each CUDA kernel and a whole fitting step, against the plain renderer on the same GPU.

Run from the source folder:  PYTHONPATH=. python benchmarks/cuda_kernels.py --json kernels.json

The scene is a shell of dense matter in a 512² triplane: rays meet some 30 samples each, as in a
fitted avatar. Every figure is the median of repeated runs, measured with CUDA events.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fitting.losses import total_variation
from fitting.plane_adam import PlaneAdam, channel_last
from renderer.cuda.availability import capability_of
from renderer.cuda.compositing import composite_packed
from renderer.cuda.field.evaluate import along_rays, evaluate_density, evaluate_field
from renderer.cuda.field.layout import DecoderShape, candidate_layouts
from renderer.cuda.field.selection import fastest
from renderer.cuda.field.trial import Trial
from renderer.cuda.marching import march_packed, pack_occupancy
from renderer.decoder import TriplaneDecoder
from renderer.occupancy import OccupancyGrid
from renderer.render import RenderSettings, render_rays
from renderer.triplane import sample_planes

DEVICE = "cuda"
MOST_REPEATS = 20
CELLS = 128
HIDDEN = 128
# Multiply-adds of the folded decoder for one sample.
SAMPLE_FLOP = 2 * 53_760


def milliseconds(run: Callable[[], object], repeats: int = 20) -> float:
    """Median time of a call."""
    repeats = min(repeats, MOST_REPEATS)
    for _ in range(min(3, repeats)):
        run()
    times = []
    for _ in range(repeats):
        if DEVICE == "cpu":  # a rehearsal
            began = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - began))
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def limits() -> dict[str, float]:
    """Return what the device reaches in this run: half-precision products and copies."""
    side, size = (8192, 2**30) if DEVICE == "cuda" else (64, 2**16)
    a = torch.randn(side, side, device=DEVICE, dtype=torch.float16)
    product = milliseconds(lambda: a @ a)
    block = torch.empty(size, device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(block)
    copy = milliseconds(lambda: target.copy_(block))
    return {
        "matrix_product_tflops": 2 * side**3 / product / 1e9,
        "copy_gb_per_s": 2 * size / copy / 1e6,
    }


def shell_grid() -> OccupancyGrid:
    cells = CELLS
    grid = OccupancyGrid(cells, DEVICE)
    axis = (torch.arange(cells, device=DEVICE) + 0.5) * (2 / cells) - 1
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt()
    grid.occupied = (radius > 0.57) & (radius < 0.62)
    return grid


def scene(rays: int, size: int = 512):
    """Planes of ``size``², decoder, grid and rays from one side."""
    generator = torch.Generator().manual_seed(0)
    planes = (torch.randn(3, 32, size, size, generator=generator) * 0.2).clamp(-1, 1).to(DEVICE)
    torch.manual_seed(0)
    decoder = TriplaneDecoder(hidden=HIDDEN).to(DEVICE)
    # As in fitting, where a step's rays are drawn from all over the pictures.
    side = torch.rand(rays, 2, generator=generator) * 1.3 - 0.65
    origins = torch.cat([side, torch.full((rays, 1), 3.0)], dim=1).to(DEVICE)
    directions = torch.tensor([0.0, 0.0, -1.0], device=DEVICE).expand(rays, 3).contiguous()
    return planes, decoder, shell_grid(), origins, directions


def kernel_times(rays: int, size: int) -> dict[str, float]:
    """Milliseconds of each part, and the samples they concern."""
    planes, decoder, grid, origins, directions = scene(rays, size)
    decoder.requires_grad_(False)
    bits = pack_occupancy(grid.occupied)
    background = torch.ones(3, device=DEVICE)
    samples = march_packed(origins, directions, bits, CELLS)
    given = along_rays(samples, origins, directions, None)
    density, color = evaluate_field(planes, decoder, given)
    out = {"samples": len(samples)}
    out["march"] = milliseconds(lambda: march_packed(origins, directions, bits, CELLS))
    out["density"] = milliseconds(lambda: evaluate_density(planes, decoder, given))
    out["forward"] = milliseconds(lambda: evaluate_field(planes, decoder, given))
    out["composite"] = milliseconds(lambda: composite_packed(density, color, samples, background))
    out["refresh"] = milliseconds(lambda: grid.refresh(planes, decoder, impl="cuda"))
    variable = planes.requires_grad_()
    cotangents = [torch.rand_like(density), torch.rand_like(color)]
    for frozen in (True, False):
        decoder.requires_grad_(not frozen)
        wanted = [variable] if frozen else [variable, *decoder.parameters()]

        def both(wanted=wanted):
            result = evaluate_field(variable, decoder, given)
            return torch.autograd.grad(result, wanted, cotangents)

        out["forward+backward " + ("frozen" if frozen else "trained")] = milliseconds(both)
    chunk = max(1, min(len(samples), 2**20))  # plain PyTorch keeps every activation
    points = (origins[samples.ray.long()] + samples.t[:, None] * directions[0])[:chunk]
    ray = torch.zeros(chunk, dtype=torch.long, device=DEVICE)

    def plain():
        result = decoder(sample_planes(variable, points), directions[ray])
        return torch.autograd.grad(result, wanted, [c[:chunk] for c in cotangents])

    out["plain forward+backward trained, scaled"] = milliseconds(plain) * len(samples) / chunk
    return out


def cut_times(hidden: int) -> list[dict[str, Any]]:
    """Milliseconds of the field forward and backward for every cut that fits the card."""
    device = torch.device(DEVICE)
    shape = DecoderShape(32, 24, hidden, 2)
    capability = capability_of(device) if DEVICE == "cuda" else 90
    rows: list[dict[str, Any]] = []
    for backward in (False, True):
        cuts = candidate_layouts(shape, capability, backward=backward)
        trial = Trial(shape, device, backward=backward)
        # Elsewhere, for a rehearsal, one that keeps its weights.
        chosen, found = fastest(cuts if DEVICE == "cuda" else cuts[-1:], trial, backward)
        rows += [{"backward": backward, "chosen": str(chosen)} | row for row in found]
    return rows


def fitting_step(impl: str, rays: int, size: int) -> dict[str, float]:
    """One step of fitting a triplane and the decoder; milliseconds and peak memory."""
    planes, decoder, grid, origins, directions = scene(rays, size)
    target = torch.rand(rays, 3, device=DEVICE)
    settings = RenderSettings(grid=CELLS)
    weights = {"tv_weight": 1e-2, "l1_weight": 1e-6}
    if impl == "cuda":
        planes = channel_last(planes).requires_grad_()
        optimizer = PlaneAdam(planes, 1e-3, **weights, impl=impl)
    else:
        planes = planes.requires_grad_()
        optimizer = torch.optim.Adam([planes], 1e-3, (0.9, 0.99), fused=True)
    for_decoder = torch.optim.Adam(decoder.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad()
        for_decoder.zero_grad()
        out = render_rays(planes, decoder, grid, origins, directions, 1.0, settings, impl=impl)
        loss = (out.color - target).square().mean()
        if impl != "cuda":
            loss = loss + weights["tv_weight"] * total_variation(planes)
            loss = loss + weights["l1_weight"] * planes.abs().mean()
        loss.backward()
        optimizer.step()
        for_decoder.step()
        if impl != "cuda":
            with torch.no_grad():
                planes.clamp_(-1, 1)

    if DEVICE == "cpu":
        return {"milliseconds": milliseconds(step), "peak_gb": 0.0}
    torch.cuda.reset_peak_memory_stats()
    return {
        "milliseconds": milliseconds(step),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def image_rate(size: int) -> float:
    """Frames per second at size², all rays in one call, one triplane of as many texels."""
    planes, decoder, grid, _, _ = scene(1, size)
    decoder.requires_grad_(False)
    axis = torch.linspace(-1, 1, size, device=DEVICE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    origins = torch.stack([x, y, torch.full_like(x, 3.0)], dim=-1).reshape(-1, 3)
    directions = torch.tensor([0.0, 0.0, -1.0], device=DEVICE).expand(size**2, 3).contiguous()
    settings = RenderSettings(grid=CELLS)
    with torch.no_grad():
        return 1000 / milliseconds(
            lambda: render_rays(
                planes, decoder, grid, origins, directions, 1.0, settings, impl="cuda"
            )
        )


def prepare(device: str, repeats: int, hidden: int) -> None:
    """Set the device; on the CPU, for a rehearsal, kernels run on the tests' host shim."""
    global DEVICE, MOST_REPEATS, CELLS, HIDDEN
    DEVICE, MOST_REPEATS, HIDDEN = device, repeats, hidden
    if device == "cpu":
        CELLS = 16
        from renderer.cuda import modules
        from tests.renderer.cuda.host_module import loader

        modules.LOADERS["cpu"] = loader(Path(tempfile.mkdtemp(prefix="triavatar-host-")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rays", type=int, default=2**18, help="rays of the kernels' timing")
    parser.add_argument("--step_rays", type=int, default=8192, help="rays of a fitting step")
    parser.add_argument("--plane_size", type=int, default=512, help="texels a side, and pixels")
    parser.add_argument("--repeats", type=int, default=20, help="of which the median counts")
    parser.add_argument("--hidden", type=int, default=128, help="width of the decoder")
    parser.add_argument("--layouts", action="store_true", help="time every cut of the kernels")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--json", help="write the results here")
    arguments = parser.parse_args()
    size = arguments.plane_size
    prepare(arguments.device, arguments.repeats, arguments.hidden)
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "rehearsal on the host"
    print(f"{device}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    reached = limits()
    for name, value in reached.items():
        print(f"{name:45s}{value:10.1f}")
    times = kernel_times(arguments.rays, size)
    count = times.pop("samples")
    print(f"{arguments.rays} rays, {count} samples")
    for name, value in times.items():
        print(f"{name:45s}{value:10.3f} ms {count / value / 1e3:10.1f} M samples/s")
    rate = count / times["forward"] * 1e3
    fraction = rate * SAMPLE_FLOP / reached["matrix_product_tflops"] / 1e12
    print(f"forward reaches {fraction:.1%} of the matrix product rate")
    rays = min(arguments.step_rays, arguments.rays)
    steps = {impl: fitting_step(impl, rays, size) for impl in ("cuda", "reference")}
    for impl, value in steps.items():
        print(
            f"fitting step, {impl:31s}{value['milliseconds']:10.3f} ms {value['peak_gb']:8.2f} GB"
        )
    frames = image_rate(size)
    print(f"images of {size}²: {frames:.1f} per second")
    layouts = cut_times(arguments.hidden) if arguments.layouts else []
    for row in layouts:
        print(*(f"{name} {value}" for name, value in row.items()), sep=", ")
    if arguments.json:
        record = {
            "device": device,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
            "limits": reached,
            "rays": arguments.rays,
            "samples": count,
            "milliseconds": times,
            "forward_fraction_of_matrix_rate": fraction,
            "fitting_step": steps,
            "images_per_second": frames,
            "layouts": layouts,
        }
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()

"""Stage 2 by two recipes on one subject: rays, samples and seconds to the same held-out quality.

Run from the source folder, on what ``triavatar fit-decoder`` left and the set it was given:
  PYTHONPATH=. python benchmarks/fit_recipe.py --root data/set --decoder runs/stage1 \\
      --subject subject_000018 --baseline "--config configs/paper/fit_triplanes.yaml" \\
      --ours "--config benchmarks/quality_triplanes.yaml"

Both sides take the flags of ``triavatar fit-triplanes``, start from the same decoder, frozen, and
run one after the other in this process. The baseline runs to its end; ours until the held-out views
are as good as the baseline ever was. Seconds are the process's CPU time on a CPU, wall time on a
GPU, without the looks at the held-out views. Samples are those in occupied space: what density is
computed for, had no ray an early stop.
"""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from captures.multiview import MultiViewSet
from fitting.ray_pool import RayPool
from fitting.subject_fit import SubjectFit, new_planes
from fitting.triplane_config import FitTriplanesConfig
from renderer.fitted_set import FittedSet
from renderer.marching import march
from renderer.metrics import psnr
from renderer.triplane import resize_planes
from runtime.arguments import parse
from runtime.devices import select_device
from runtime.files import write_json
from runtime.seeds import generator
from studies.bench.timing import machine, synchronize
from studies.forgetting import HeldOutRays


@dataclass
class Point:
    """A look at the held-out views: what was spent until then, and what they were like."""

    step: int
    rays: int
    samples: int
    seconds: float
    psnr: float


class Side:
    """One recipe on the subject.

    Args:
        flags: of fit-triplanes, but for root, decoder and output folder.
        given: the benchmark's own arguments.
    """

    def __init__(self, flags: str, given: argparse.Namespace):
        fixed = ["--root", given.root, "--decoder", given.decoder, "--output_dir", "unused"]
        arguments = [*shlex.split(flags), *map(str, fixed)]
        self.config = config = parse(FitTriplanesConfig, arguments, "fit-triplanes")
        self.device = select_device(config.device)
        data, stage1 = MultiViewSet(given.root), FittedSet.open(given.decoder)
        name = given.subject
        views = data.load(name, data.split_views("train", name), config.image_size)
        held_out = data.load(name, data.split_views("test", name), config.image_size)
        self.held_out = HeldOutRays(held_out, given.eval_size, self.device)
        decoder = stage1.decoder()
        torch.nn.Module.to(decoder, self.device)
        _, channels, size, _ = stage1.shape
        self.size = config.plane_size or size
        size = config.coarse_size or self.size
        self.mean = mean = None
        if config.init != "random":
            self.mean = resize_planes(stage1.mean(without=name)[None], self.size)[0]
            mean = resize_planes(self.mean[None], size)[0]
        std = config.fit.init_std if mean is None else 0.0
        start = new_planes(name, config.seed, channels, size, std, mean)
        pool = RayPool(views, self.device)
        begun = self._now()
        self.fit = SubjectFit(
            name,
            pool,
            start,
            decoder,
            config.fit,
            seed=config.seed,
            total=config.iterations,
            reference=mean,
        )
        self.seconds = self._now() - begun
        self.curve: list[Point] = []

    def run(self, looks: int, target: float | None = None) -> None:
        """Fit to the end, or until a look finds ``target`` dB; looks are evenly spaced."""
        total = self.config.iterations
        samples, rays, since = 0.0, self.config.fit.rays, 0
        for step in range(1, total + 1):
            begun = self._now()
            if self.config.coarse_steps and step - 1 == self.config.coarse_steps:
                self.fit.resize(self.size, self.mean)
            self.fit.step()
            self.seconds += self._now() - begun
            if step * looks // total == (step - 1) * looks // total:
                continue
            samples += (step - since) * self._samples()
            since = step
            planes, settings = self.fit.planes.detach(), self.config.fit.render_settings()
            shown = self.held_out.render(planes, self.fit.decoder, settings)
            quality = float(psnr(shown, self.held_out.truth).mean())
            self.curve.append(Point(step, step * rays, round(samples), self.seconds, quality))
            print(
                f"  step {step}: {step * rays / 1e6:.3f} M rays, {samples / 1e6:.1f} M samples, "
                f"{self.seconds:.1f} s, {quality:.2f} dB",
                flush=True,
            )
            if target is not None and quality >= target:
                return

    def _samples(self) -> int:
        """Samples of one step, as space is occupied now."""
        s, fit = self.config.fit, self.fit
        batch = fit.rays.draw(s.rays, s.near_fraction, generator(0, "count", fit.step_index))
        rays = (batch.origins, batch.directions)
        return len(march(*rays, fit.grid, steps=s.steps, near=s.near).t)

    def _now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        synchronize(self.device)
        return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="multi-view set")
    parser.add_argument("--decoder", type=Path, required=True, help="folder of a stage-1 run")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--baseline", required=True, help="flags of fit-triplanes")
    parser.add_argument("--ours", required=True, help="flags of fit-triplanes")
    parser.add_argument("--looks", type=int, default=40, help="looks at the held-out views")
    parser.add_argument(
        "--eval_size", type=int, default=64, help="pixels a side of each, looked at"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    # The first steps of a process compile kernels.
    Side(given.ours + " --iterations 2", given).run(1)
    print("baseline", flush=True)
    baseline = Side(given.baseline, given)
    baseline.run(given.looks)
    best = max(baseline.curve, key=lambda point: point.psnr)
    print("ours", flush=True)
    ours = Side(given.ours, given)
    ours.run(given.looks, best.psnr)
    last = ours.curve[-1]
    ratios = {
        key: getattr(best, key) / getattr(last, key) for key in ("rays", "samples", "seconds")
    }
    reached = last.psnr >= best.psnr
    verb = "reached" if reached else "not reached"
    print(
        f"baseline's best, {best.psnr:.2f} dB, {verb} with {ratios['rays']:.1f} × fewer rays, "
        f"{ratios['samples']:.1f} × fewer samples, in {ratios['seconds']:.1f} × less time"
    )
    if given.json:
        result: dict[str, Any] = {
            "machine": machine(baseline.device),
            "baseline": {"flags": given.baseline, "curve": [asdict(p) for p in baseline.curve]},
            "ours": {"flags": given.ours, "curve": [asdict(p) for p in ours.curve]},
            "baseline_best_psnr": best.psnr,
            "reached": reached,
            "fewer": ratios,
        }
        write_json(given.json, result)


if __name__ == "__main__":
    main()

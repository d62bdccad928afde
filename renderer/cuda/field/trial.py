"""What the cuts of the field's kernels are timed and compared on.

Legend: S samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from renderer.cuda.field import launch
from renderer.cuda.field.launch import FieldCall, FieldSamples
from renderer.cuda.field.layout import DecoderShape, FieldLayout


@dataclass(frozen=True)
class Size:
    """How much work a trial is.

    Attributes:
        rays: rays, with 32 samples each.
        planes: texels along a side.
        repeats: runs, of which the fastest counts.
    """

    rays: int
    planes: int
    repeats: int


# A fitting step of several subjects; elsewhere kernels only run in tests.
SIZES = {"cuda": Size(rays=16384, planes=256, repeats=7), "cpu": Size(3, 8, 1)}


class Trial:
    """Random planes, decoder and rays of one shape.

    Args:
        shape: the decoder's.
        device: where.
        backward: time the way back, with a trained decoder and with a frozen one; else density and
            colour forward.
    """

    def __init__(self, shape: DecoderShape, device: torch.device, *, backward: bool):
        self.shape, self.device, self.backward = shape, device, backward
        self.size = SIZES[device.type]
        random = torch.Generator().manual_seed(0)
        rays, side = self.size.rays, self.size.planes
        texels = (1, 3, side, side, shape.channels)
        self.half = (torch.randn(texels, generator=random) * 0.3).half().to(device)
        weights = torch.randn(shape.weights, generator=random) * shape.hidden**-0.5
        self.weights = weights.half().to(device)
        self.bias = torch.zeros(1, device=device)
        # Samples lie close together along a ray, as behind a surface.
        places = torch.rand(rays, 3, generator=random) * 1.6 - 0.8
        directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=random), dim=1)
        steps = torch.arange(32) / 256
        self.samples = FieldSamples(
            32 * rays,
            origins=places.to(device),
            directions=directions.to(device),
            ray=torch.arange(rays, dtype=torch.int32).repeat_interleave(32).to(device),
            t=steps.repeat(rays).to(device),
        )
        cotangents = torch.randn(4, 32 * rays, generator=random).to(device)
        self.cotangents = cotangents[0].contiguous(), cotangents[1:].T.contiguous()

    def run(self, layout: FieldLayout) -> list[Tensor]:
        """Run the kernels, cut so; what they give."""
        call = FieldCall(layout, self.samples, self.half, self.weights)
        if not self.backward:
            density = torch.empty(self.samples.count, device=self.device)
            launch.density(call, self.bias, -1.0, density)
            return [density, *launch.forward(call, self.bias)]
        # Outputs need not be those of this decoder: the way back takes them as they are.
        density, color = (value.sigmoid() for value in self.cotangents)
        gradients, largest = launch.head_gradients(call, density, color, *self.cotangents)
        for_planes = torch.zeros(self.half.shape, device=self.device)
        for_packed = torch.zeros(self.shape.weights, device=self.device)
        launch.backward(call, gradients, largest, for_planes, for_packed)
        launch.backward(call, gradients, largest, for_planes, None)
        return [for_planes, for_packed]

    def milliseconds(self, layout: FieldLayout) -> float:
        """The fastest of some runs."""
        return min(self._once(lambda: self.run(layout)) for _ in range(self.size.repeats))

    def _once(self, work: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            began = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - began)
        with torch.cuda.device(self.device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
        return start.elapsed_time(end)

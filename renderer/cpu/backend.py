"""The backend "numba": compiled kernels for fp32 on the CPU.

Legend: B triplanes, R rays of each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.march_settings import RenderSettings
from renderer.samples import Rendered, Samples, step_length


@functools.cache
def numba_obstacle() -> str | None:
    """Return why numba cannot be used; None if it can."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        return f"numba cannot be imported ({error}); pip install numba"
    return None


class NumbaBackend:
    """Its operations import their kernels when they are called: that takes numba a second."""

    name = "numba"
    differentiates_rays = False

    def obstacle(self, *tensors: Tensor, decoder: object = None) -> str | None:
        """See :class:`renderer.backend.Backend`."""
        for tensor in tensors:
            if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
                return f"it takes fp32 on the CPU, not {tensor.dtype} on {tensor.device}"
        if decoder is not None:
            # Another decoder has no matrices to fold.
            if not isinstance(decoder, TriplaneDecoder):
                return f"it takes a TriplaneDecoder, not a {type(decoder).__name__}"
            weight = decoder.color_out.weight
            if weight.device.type != "cpu" or weight.dtype != torch.float32:
                return f"the decoder is {weight.dtype} on {weight.device}, not fp32 on the CPU"
        return numba_obstacle()

    def march(
        self,
        origins: Tensor,
        directions: Tensor,
        occupied: Tensor,
        *,
        steps: int,
        near: float,
        jitter: Tensor | None,
    ) -> Samples:
        """See :func:`renderer.marching.march`; ``occupied`` is bool [G, G, G]."""
        from renderer.cpu.samples import march_cpu, march_of

        march = march_of(origins, directions, occupied[None], steps, near, jitter)
        return Samples(*march_cpu(march), step_length(steps))

    def query_field(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        points: Tensor,
        directions: Tensor,
        ray: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See :func:`renderer.field.query_field`."""
        from renderer.cpu.field import query_field_cpu

        return query_field_cpu(planes, decoder, points, directions, ray)

    def query_density(self, planes: Tensor, decoder: TriplaneDecoder, points: Tensor) -> Tensor:
        """See :func:`renderer.field.query_density`."""
        from renderer.cpu.field import query_density_cpu

        return query_density_cpu(planes, decoder, points)

    def refresh_density(
        self,
        density: Tensor,
        planes: Tensor,
        decoder: TriplaneDecoder,
        coordinates: list[Tensor],
        decay: float,
        within: Tensor | None = None,
    ) -> None:
        """See :meth:`renderer.plain.ReferenceBackend.refresh_density`; cells not ``within`` are
        left as they are."""
        from renderer.cpu.lattice import refresh_density_cpu

        refresh_density_cpu(density, planes, decoder, coordinates, decay, within)

    def render_rays(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        occupied: Tensor,
        origins: Tensor,
        directions: Tensor,
        background: Tensor,
        settings: RenderSettings,
        jitter: Tensor | None,
    ) -> Rendered:
        """All triplanes in one packed call; see :func:`renderer.render.render_rays`."""
        from renderer.cpu.render_rays import render_rays_cpu

        shape = origins.shape[:2]
        total, opacity, distance = render_rays_cpu(
            planes,
            decoder,
            origins.reshape(-1, 3),
            directions.reshape(-1, 3),
            occupied,
            settings,
            None if jitter is None else jitter.reshape(-1),
        )
        color = total.view(*shape, 3) + (1 - opacity.view(shape))[..., None] * background
        depth = distance / opacity.clamp(min=1e-8)
        return Rendered(color, opacity.view(shape), depth.view(shape))

    def plane_step(self, planes: Tensor) -> Callable[..., Any]:
        """See :func:`renderer.cpu.plane_step.step_planes`."""
        from renderer.cpu.plane_step import step_planes

        return step_planes

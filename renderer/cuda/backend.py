"""The backend "cuda": the CUDA kernels.

Legend: B triplanes, R rays of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from renderer.cuda import ops
from renderer.cuda.availability import MIN_CAPABILITY, capability_of
from renderer.cuda.field.layout import DecoderShape, choose_layout
from renderer.cuda.modules import loading_obstacle
from renderer.cuda.plane_step import step_planes
from renderer.decoder import TriplaneDecoder
from renderer.march_settings import RenderSettings
from renderer.plain import uses_mean_color
from renderer.samples import Rendered
from runtime.errors import UserError


class CudaBackend:
    """The operations of :mod:`renderer.cuda.ops` under the protocol's names."""

    name = "cuda"
    differentiates_rays = False

    def obstacle(self, *tensors: Tensor, decoder: object = None) -> str | None:
        """See :class:`renderer.backend.Backend`."""
        devices = {tensor.device for tensor in tensors}
        if len(devices) > 1:
            return f"tensors are on several devices: {', '.join(sorted(map(str, devices)))}"
        reason = loading_obstacle(tensors[0].device)
        if reason is not None or decoder is None:
            return reason
        if not isinstance(decoder, TriplaneDecoder):
            return f"the CUDA kernels need a TriplaneDecoder, not a {type(decoder).__name__}"
        try:
            device = tensors[0].device
            capability = capability_of(device) if device.type == "cuda" else MIN_CAPABILITY
            choose_layout(DecoderShape.of(decoder), capability, backward=True)
        except UserError as error:
            return str(error)
        return None

    march = staticmethod(ops.march)
    query_field = staticmethod(ops.query_field)
    query_density = staticmethod(ops.query_density)

    def refresh_density(
        self,
        density: Tensor,
        planes: Tensor,
        decoder: TriplaneDecoder,
        coordinates: list[Tensor],
        decay: float,
        within: Tensor | None = None,
    ) -> None:
        """See :meth:`renderer.plain.ReferenceBackend.refresh_density`; ``within`` saves nothing."""
        ops.refresh_density(density, planes, decoder, coordinates, decay)

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
        faint = settings.color_threshold if uses_mean_color(settings, planes, decoder) else 0.0
        rendered = ops.render_rays(
            planes,
            decoder,
            occupied,
            origins.reshape(-1, 3),
            directions.reshape(-1, 3),
            background.reshape(-1, 3),
            steps=settings.steps,
            near=settings.near,
            stop=settings.stop,
            jitter=None if jitter is None else jitter.reshape(-1),
            color_threshold=faint,
        )
        return rendered.reshape(*origins.shape[:2])

    def plane_step(self, planes: Tensor) -> Callable[..., Any] | None:
        """See :func:`renderer.cuda.plane_step.step_planes`; kernels take channels by fours."""
        return step_planes if planes.shape[1] % 4 == 0 else None

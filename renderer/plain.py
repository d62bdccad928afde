"""The backends in plain PyTorch: "reference", the definition of what is right, and "torch".

Legend: B triplanes, G cells along one side of the box, R rays, S samples, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderer.compositing import composite, composite_mean_color, composite_weights
from renderer.decoder import TriplaneDecoder
from renderer.march_settings import RenderSettings
from renderer.samples import Rendered, Samples, step_length
from renderer.triplane import PLANE_AXES, check_planes, sample_planes


class ReferenceBackend:
    """Every operation as its equation says, on any device and in any dtype."""

    name = "reference"
    differentiates_rays = True

    def obstacle(self, *tensors: Tensor, decoder: object = None) -> str | None:
        """None: plain PyTorch serves whatever there is."""
        return None

    @torch.no_grad()
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
        step = step_length(steps)
        entry, leave = intersect_box(origins, directions, near)
        offset = 0.5 if jitter is None else jitter
        first = entry + offset * step
        lattice = torch.arange(steps, device=origins.device, dtype=origins.dtype) * step
        rays, distances = [], []
        chunk = max(1, 2**21 // steps)
        count = origins.shape[0]
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            t = first[part, None] + lattice
            ray, index = torch.nonzero(t < leave[part, None], as_tuple=True)
            t = t[ray, index]
            points = origins[part][ray] + t[:, None] * directions[part][ray]
            kept = occupied.view(-1)[cell_index(points, occupied.shape[-1])]
            rays.append(ray[kept] + start)
            distances.append(t[kept])
        ray = torch.cat(rays) if rays else torch.zeros(0, dtype=torch.long, device=origins.device)
        t = torch.cat(distances) if distances else origins.new_zeros(0)
        offsets = torch.zeros(count + 1, dtype=torch.long, device=origins.device)
        offsets[1:] = torch.bincount(ray, minlength=count).cumsum(0)
        return Samples(ray, t, offsets, step)

    def query_field(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        points: Tensor,
        directions: Tensor,
        ray: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See :func:`renderer.field.query_field`."""
        return decoder(sample_planes(planes, points), directions[ray])

    def query_density(self, planes: Tensor, decoder: TriplaneDecoder, points: Tensor) -> Tensor:
        """See :func:`renderer.field.query_density`."""
        return decoder.density(sample_planes(planes, points))

    @torch.no_grad()
    def refresh_density(
        self,
        density: Tensor,
        planes: Tensor,
        decoder: TriplaneDecoder,
        coordinates: list[Tensor],
        decay: float,
        within: Tensor | None = None,
    ) -> None:
        """``density ← max(decay · density, σ)`` on a lattice, in place; ``within`` saves nothing.

        Args:
            density: [G, G, G] fp32.
            coordinates: of the lattice along x, y and z, [G] each.
        """
        cells = density.shape[0]
        # About 2¹⁸ probes at a time: large enough for full speed, small enough for any memory.
        slab = max(1, 2**18 // cells**2)
        for start in range(0, cells, slab):
            stop = start + slab
            features = lattice_features(
                planes, coordinates[0][start:stop], coordinates[1], coordinates[2]
            )
            fresh = decoder.density(features.reshape(-1, features.shape[-1]))
            fresh = fresh.reshape(features.shape[:3]).float()
            density[start:stop] = torch.maximum(density[start:stop] * decay, fresh)

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
        """See :func:`renderer.render.render_rays`, always with a leading B; grids as bool
        [B, G, G, G]."""
        parts = [
            self._render_one(
                planes[b],
                decoder,
                self.march(
                    origins[b],
                    directions[b],
                    occupied[b],
                    steps=settings.steps,
                    near=settings.near,
                    jitter=None if jitter is None else jitter[b],
                ),
                origins[b],
                directions[b],
                background[b],
                settings,
            )
            for b in range(len(planes))
        ]
        return Rendered(
            torch.stack([p.color for p in parts]),
            torch.stack([p.opacity for p in parts]),
            torch.stack([p.depth for p in parts]),
        )

    def plane_step(self, planes: Tensor) -> None:
        """None: :mod:`fitting.plane_adam` takes the step operation by operation."""
        return None

    def _render_one(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        samples: Samples,
        origins: Tensor,
        directions: Tensor,
        background: Tensor,
        settings: RenderSettings,
    ) -> Rendered:
        """Density and colour of every sample."""
        points = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
        density, color = self.query_field(planes, decoder, points, directions, samples.ray)
        if uses_mean_color(settings, planes, decoder):
            weights = composite_weights(density, samples, settings.stop)
            kept = torch.nonzero(weights > settings.color_threshold)[:, 0]
            return composite_mean_color(weights, kept, color[kept], samples, background)
        return composite(density, color, samples, background, settings.stop)


class TorchBackend(ReferenceBackend):
    """Plain PyTorch on fewer samples: colour and gradients only where light arrives."""

    name = "torch"

    def _render_one(
        self,
        planes: Tensor,
        decoder: TriplaneDecoder,
        samples: Samples,
        origins: Tensor,
        directions: Tensor,
        background: Tensor,
        settings: RenderSettings,
    ) -> Rendered:
        with torch.no_grad():
            points = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
            density = self.query_density(planes, decoder, points)
            weights = composite_weights(density, samples, settings.stop)
        if uses_mean_color(settings, planes, decoder):
            kept = torch.nonzero(weights > settings.color_threshold)[:, 0]
            ray = samples.ray[kept]
            _, color = self.query_field(planes, decoder, points[kept], directions, ray)
            return composite_mean_color(weights, kept, color, samples, background)
        shown = torch.nonzero(weights)[:, 0]
        ray, t = samples.ray[shown], samples.t[shown]
        offsets = torch.searchsorted(ray, torch.arange(len(samples.offsets)).to(shown))
        samples = Samples(ray, t, offsets, samples.step)
        points = origins[ray] + t[:, None] * directions[ray]
        density, color = self.query_field(planes, decoder, points, directions, ray)
        # What shows was decided above; rounding here must not stop a ray earlier.
        return composite(density, color, samples, background, stop=0.0)


def uses_mean_color(settings: RenderSettings, planes: Tensor, decoder: TriplaneDecoder) -> bool:
    """Whether ``settings.color_threshold`` applies: it does where no gradient is recorded."""
    return settings.color_threshold > 0 and not records(planes, decoder)


def records(planes: Tensor, decoder: TriplaneDecoder) -> bool:
    """Return whether autograd follows what is computed from these."""
    return torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (planes, *decoder.parameters())
    )


def cell_index(points: Tensor, cells: int) -> Tensor:
    """Flat index of the cell of points [S, 3] in [-1, 1] among ``cells``³, [S] int64."""
    index = ((points + 1) * (cells / 2)).long().clamp_(0, cells - 1)
    return (index[:, 0] * cells + index[:, 1]) * cells + index[:, 2]


def intersect_box(origins: Tensor, directions: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Entry and exit distance of rays through [-1, 1]³, [R] each; exit < entry for a miss.

    Args:
        origins, directions: [R, 3].
        near: smallest distance allowed for the entry, world units.
    """
    # A zero component would give 0 · inf; a tiny one gives a huge, harmless distance.
    tiny = torch.finfo(directions.dtype).tiny ** 0.5
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    a, b = (-1 - origins) / safe, (1 - origins) / safe
    entry = torch.minimum(a, b).amax(dim=-1).clamp(min=near)
    return entry, torch.maximum(a, b).amin(dim=-1)


def lattice_features(planes: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Features on the lattice x × y × z, [X, Y, Z, C].

    Equal to sampling every lattice point, at the cost of three small plane look-ups: on a
    lattice each plane contributes a 2D table that broadcasts along the axis it lacks.

    Args:
        planes: one triplane [3, C, H, W].
        x, y, z: coordinates in [-1, 1], [X], [Y], [Z].
    """
    check_planes(planes, batched=False)
    axes = (x, y, z)
    total: Tensor | None = None
    for plane, (along_w, along_h) in zip(planes, PLANE_AXES, strict=True):
        first, second = axes[along_w], axes[along_h]
        grid = torch.stack(torch.meshgrid(first, second, indexing="ij"), dim=-1)[None]
        table = F.grid_sample(
            plane[None], grid, mode="bilinear", padding_mode="border", align_corners=True
        )[0]  # [C, first, second]
        missing = ({0, 1, 2} - {along_w, along_h}).pop()
        table = table.permute(1, 2, 0).unsqueeze(missing)
        total = table if total is None else total + table
    assert total is not None
    return total / 3

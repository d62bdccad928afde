"""The radiance field: density and colour at points of a triplane.

Legend: R rays, S samples.
"""

from __future__ import annotations

from torch import Tensor

from renderer.decoder import TriplaneDecoder
from renderer.triplane import sample_planes


def query_field(
    planes: Tensor, decoder: TriplaneDecoder, points: Tensor, directions: Tensor, ray: Tensor
) -> tuple[Tensor, Tensor]:
    """Density and colour at samples along rays.

    Args:
        planes: one triplane [3, C, H, W] in [-1, 1].
        points: [S, 3] in [-1, 1].
        directions: unit direction of each ray, [R, 3].
        ray: ray of each sample, [S] int64.

    Returns:
        Density [S] per world unit and colour [S, 3] in (0, 1). Differentiable to planes and
        decoder.
    """
    return decoder(sample_planes(planes, points), directions[ray])


def query_density(planes: Tensor, decoder: TriplaneDecoder, points: Tensor) -> Tensor:
    """Density alone at points [S, 3], [S]; differentiable to planes and decoder."""
    return decoder.density(sample_planes(planes, points))

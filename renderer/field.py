"""The radiance field: density and colour at points of a triplane.

Legend: R rays, S samples.
"""

from __future__ import annotations

from torch import Tensor

from renderer.backend import resolve
from renderer.decoder import TriplaneDecoder
from renderer.triplane import check_planes


def query_field(
    planes: Tensor,
    decoder: TriplaneDecoder,
    points: Tensor,
    directions: Tensor,
    ray: Tensor,
    *,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Density and colour at samples along rays.

    Args:
        planes: one triplane [3, C, H, W] in [-1, 1].
        points: [S, 3] in [-1, 1].
        directions: unit direction of each ray, [R, 3].
        ray: ray of each sample, [S] int64.
        impl: see :mod:`renderer.backend`. Only "reference" and "torch" differentiate to points and
            directions; the others refuse.

    Returns:
        Density [S] per world unit and colour [S, 3] in (0, 1). Differentiable to planes and
        decoder.
    """
    check_planes(planes, batched=False)
    rays = (points, directions)
    backend = resolve(impl, planes, *rays, decoder=decoder, rays=rays)
    return backend.query_field(planes, decoder, points, directions, ray)


def query_density(
    planes: Tensor, decoder: TriplaneDecoder, points: Tensor, *, impl: str = "auto"
) -> Tensor:
    """Density alone at points [S, 3], [S]; differentiable to planes and decoder."""
    check_planes(planes, batched=False)
    backend = resolve(impl, planes, points, decoder=decoder, rays=(points,))
    return backend.query_density(planes, decoder, points)

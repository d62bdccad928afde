"""The radiance field: density and colour at points of a triplane.

Legend: R rays, S samples.
"""

from __future__ import annotations

from torch import Tensor

from renderer.backend import choose, uses_cpu_kernels
from renderer.decoder import TriplaneDecoder
from renderer.triplane import check_planes, sample_planes


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
        impl: see :mod:`renderer.backend`. Only "reference" differentiates to points and
            directions.

    Returns:
        Density [S] per world unit and colour [S, 3] in (0, 1). Differentiable to planes and
        decoder.
    """
    check_planes(planes, batched=False)
    chosen = _implementation(impl, planes, decoder, points, directions)
    if chosen == "cuda":
        from renderer.cuda import ops

        return ops.query_field(planes, decoder, points, directions, ray)
    if chosen == "torch" and uses_cpu_kernels(planes, points, directions, decoder=decoder):
        from renderer.cpu.field import query_field_cpu

        return query_field_cpu(planes, decoder, points, directions, ray)
    return decoder(sample_planes(planes, points), directions[ray])


def query_density(
    planes: Tensor, decoder: TriplaneDecoder, points: Tensor, *, impl: str = "auto"
) -> Tensor:
    """Density alone at points [S, 3], [S]; differentiable to planes and decoder."""
    check_planes(planes, batched=False)
    chosen = _implementation(impl, planes, decoder, points)
    if chosen == "cuda":
        from renderer.cuda import ops

        return ops.query_density(planes, decoder, points)
    if chosen == "torch" and uses_cpu_kernels(planes, points, decoder=decoder):
        from renderer.cpu.field import query_density_cpu

        return query_density_cpu(planes, decoder, points)
    return decoder.density(sample_planes(planes, points))


def _implementation(impl: str, planes: Tensor, decoder: TriplaneDecoder, *inputs: Tensor) -> str:
    if impl == "auto" and any(x.requires_grad for x in inputs):
        return "reference"
    return choose(impl, planes, *inputs, decoder=decoder)

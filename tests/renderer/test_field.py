"""Triplane look-ups and the field, against independent truth."""

import copy

import pytest
import torch

from renderer.field import query_density, query_field
from renderer.triplane import sample_planes
from tests.scenes import constant_decoder, random_decoder


def linear_planes(height: int, width: int, dtype=torch.float64) -> torch.Tensor:
    """Planes whose mean is (x, y, z): each coordinate lies in two planes, scaled by 3/2."""
    along_w = torch.linspace(-1, 1, width, dtype=dtype).expand(height, width)
    along_h = torch.linspace(-1, 1, height, dtype=dtype)[:, None].expand(height, width)
    zero = torch.zeros(height, width, dtype=dtype)
    planes = [
        torch.stack([along_w, along_h, zero]),  # xy
        torch.stack([along_w, zero, along_h]),  # xz
        torch.stack([zero, along_w, along_h]),  # yz
    ]
    return torch.stack(planes) * 1.5


@pytest.mark.parametrize("size", [(2, 2), (5, 9), (64, 64)])
def test_a_linear_field_is_recovered_exactly(size):
    points = torch.rand(500, 3, dtype=torch.float64) * 2 - 1
    points[:8] = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)
    assert torch.allclose(sample_planes(linear_planes(*size), points), points, atol=1e-13)


def test_points_outside_take_the_nearest_face():
    outside = torch.tensor([[2.0, -3.0, 0.25]], dtype=torch.float64)
    expected = torch.tensor([[1.0, -1.0, 0.25]], dtype=torch.float64)
    assert torch.allclose(sample_planes(linear_planes(5, 5), outside), expected, atol=1e-13)


def test_the_first_coordinate_runs_along_the_width():
    planes = torch.zeros(3, 1, 4, 5, dtype=torch.float64)
    planes[0, 0, 1, 3] = 3.0  # plane (x, y), row 1, column 3
    at_texel = torch.tensor([[0.5, -1 / 3, 0.9], [-1 / 3, 0.5, 0.9]], dtype=torch.float64)
    assert sample_planes(planes, at_texel)[:, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("impl", ["reference", "torch", "numba"])
def test_constant_field(impl):
    decoder = constant_decoder(3.0)
    points = torch.rand(7, 3) * 2 - 1
    density, color = query_field(
        torch.randn(3, 6, 5, 4), decoder, points, torch.eye(3), torch.zeros(7).long(), impl=impl
    )
    assert torch.allclose(density, torch.full((7,), 3.0))
    assert torch.allclose(color, torch.full((7, 3), 0.5))


def test_reference_gradients_against_finite_differences():
    decoder = random_decoder(channels=4, color_channels=2, hidden=5).double()
    planes = (torch.rand(3, 4, 3, 4, dtype=torch.float64) - 0.5).requires_grad_()
    points = (torch.rand(6, 3, dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    directions = torch.nn.functional.normalize(torch.randn(2, 3, dtype=torch.float64), dim=-1)
    ray = torch.tensor([0, 0, 1, 1, 1, 0])
    names = [name for name, _ in decoder.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in decoder.parameters()]

    def field(planes, points, *parameters):
        with torch.nn.utils.stateless._reparametrize_module(
            decoder, dict(zip(names, parameters, strict=True))
        ):
            return query_field(planes, decoder, points, directions, ray, impl="reference")

    assert torch.autograd.gradcheck(field, (planes, points, *parameters), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 16, 2), (5, 3, 7, 1), (9, 1, 24, 3), (32, 24, 128, 2)])
@pytest.mark.parametrize("count", [0, 1, 2500])
def test_fast_field_equals_reference(shape, count):
    decoder = random_decoder(*shape)
    # Where a ReLU's input is zero but for rounding, any two computations may differ by more than
    # is allowed below; among these inputs there is no such.
    torch.manual_seed(1)
    planes = torch.rand(3, shape[0], 11, 7) * 2 - 1
    points = torch.rand(count, 3) * 2.2 - 1.1
    directions = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    ray = torch.randint(0, 5, (count,))
    cotangents = torch.randn(count), torch.randn(count, 3)
    results = {}
    for impl, dtype in (("numba", torch.float32), ("reference", torch.float64)):
        leaves = planes.detach().to(dtype).requires_grad_()
        model = copy.deepcopy(decoder).to(dtype)
        given = leaves, model, points.to(dtype), directions.to(dtype), ray
        out = query_field(*given, impl=impl)
        loss = sum((a * b).sum() for a, b in zip(out, cotangents, strict=True))
        results[impl] = [*out, *torch.autograd.grad(loss, [leaves, *model.parameters()])]
    for fast, exact in zip(results["numba"], results["reference"], strict=True):
        assert (fast - exact).norm() <= 1e-5 * exact.norm()


def test_autocast_leaves_the_kernels_alone():
    planes, decoder, points = torch.rand(3, 6, 8, 8), random_decoder(), torch.rand(9, 3)
    directions, ray = torch.eye(3), torch.arange(9) % 3
    with torch.no_grad():
        expected = query_field(planes, decoder, points, directions, ray, impl="numba")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = query_field(planes, decoder, points, directions, ray, impl="numba")
    for have, want in zip(actual, expected, strict=True):
        assert torch.equal(have, want)


def test_fast_density_equals_reference():
    decoder = random_decoder()
    planes = (torch.rand(3, 6, 8, 8) * 2 - 1).requires_grad_()
    points, cotangent = torch.rand(1500, 3) * 2 - 1, torch.randn(1500)
    wanted = [planes, decoder.density_in.weight, decoder.density_in.bias, decoder.density_out.bias]
    results = {}
    for impl in ("reference", "numba"):
        out = query_density(planes, decoder, points, impl=impl)
        results[impl] = [out, *torch.autograd.grad((out * cotangent).sum(), wanted)]
    for fast, plain in zip(results["numba"], results["reference"], strict=True):
        assert (fast - plain).norm() <= 1e-5 * plain.norm()


def test_a_frozen_decoder_gets_no_gradient():
    decoder = random_decoder().requires_grad_(False)
    planes = torch.rand(3, 6, 8, 8, requires_grad=True)
    density = query_density(planes, decoder, torch.rand(50, 3))
    density.sum().backward()
    assert planes.grad is not None and planes.grad.abs().sum() > 0
    assert all(p.grad is None for p in decoder.parameters())


def test_points_get_gradients_when_they_want_them():
    planes, points = torch.rand(3, 6, 8, 8), torch.rand(20, 3, requires_grad=True)
    query_density(planes, random_decoder(), points).sum().backward()
    assert points.grad is not None and points.grad.abs().sum() > 0


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="impl must be one of"):
        query_density(torch.rand(3, 6, 8, 8), random_decoder(), torch.rand(1, 3), impl="fast")

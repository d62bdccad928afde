"""Numbers at the edge: gradients of very different size, and NaN, which must stay NaN."""

import pytest
import torch

from fitting.plane_adam import PlaneAdam, channel_last
from renderer.compositing import composite
from renderer.cuda import ops
from renderer.cuda.compositing import composite_packed, visible_samples
from renderer.cuda.field.packing import pack_decoder
from renderer.cuda.marching import PackedSamples, march_packed, pack_occupancy
from renderer.occupancy import OccupancyGrid
from renderer.samples import Samples
from renderer.triplane import sample_planes
from tests.renderer.cuda.scenes import (
    decided,
    random_decoder,
    random_planes,
    random_rays,
    relative,
)

TOLERANCE = 1e-2
NAN = float("nan")
COUNT = 40


def scene():
    """Planes, decoder, points, directions and rays of a small field."""
    generator = torch.Generator().manual_seed(0)
    planes = random_planes(16, 9, 7)[0].requires_grad_()
    decoder = random_decoder(16, 12, 64)
    points = torch.rand(COUNT, 3, generator=generator) * 2 - 1
    ray = torch.randint(0, 5, (COUNT,), generator=generator)
    return planes, decoder, points, random_rays(5)[1], ray


def plain_field(planes, decoder, points, directions, ray):
    return decoder(sample_planes(planes, points), directions[ray])


@pytest.mark.parametrize("density,color", [(1e6, 1.0), (1.0, 1e6), (1e-9, 1e9), (0.0, 1.0)])
@pytest.mark.parametrize("one", [False, True])
def test_gradients_of_density_and_color_far_apart(host, density, color, one):
    """Each keeps its precision, in each channel and parameter by itself."""
    planes, decoder, points, directions, ray = scene()
    clear = decided(decoder, sample_planes(planes, points), directions[ray])
    if one:
        first = int(clear.nonzero()[0])
        points, ray, clear = points[first, None], ray[first, None], clear[first, None]
    generator = torch.Generator().manual_seed(1)
    cotangents = [clear * density * torch.randn(len(points), generator=generator)]
    cotangents.append(clear[:, None] * color * torch.randn(len(points), 3, generator=generator))
    results = []
    for query in (plain_field, ops.query_field):
        out = query(planes, decoder, points, directions, ray)
        wanted = [planes, *decoder.parameters()]
        for_planes, *rest = torch.autograd.grad(out, wanted, cotangents)
        results.append([for_planes[:, :12], for_planes[:, 12:], *rest])
    for want, have in zip(*results, strict=True):
        assert want.norm() > 0
        assert relative(have, want) < TOLERANCE


@pytest.mark.parametrize("where", ["planes", "a weight", "the density's gradient", "a color's"])
def test_nan_in_the_field_reaches_every_gradient_it_should(host, where):
    planes, decoder, points, directions, ray = scene()
    cotangents = [torch.ones(COUNT), torch.ones(COUNT, 3)]
    with torch.no_grad():
        if where == "planes":
            planes[:, 3] = NAN
        elif where == "a weight":
            decoder.density_in.weight[0, 0] = NAN
        elif where == "the density's gradient":
            cotangents[0][7] = NAN
        else:
            cotangents[1][7, 1] = NAN
    density, color = ops.query_field(planes, decoder, points, directions, ray)
    expected = plain_field(planes, decoder, points, directions, ray)
    for have, want in zip((density, color), expected, strict=True):
        assert torch.equal(have.isnan(), want.isnan())
    wanted = [planes, *decoder.parameters()]
    grads = torch.autograd.grad((density, color), wanted, cotangents)
    plain = torch.autograd.grad(expected, wanted, cotangents)
    for have, want in zip(grads, plain, strict=True):
        assert have.isnan().any() or not want.isnan().any()
    assert grads[0].isnan().any()


def test_nan_in_density_alone_and_in_the_grid(host):
    planes, decoder, points, _, _ = scene()
    with torch.no_grad():
        planes[0, 14] = NAN
        assert ops.query_density(planes, decoder, points).isnan().all()
        grid = OccupancyGrid(6)
        grid.refresh(planes, decoder, impl="cuda")
    assert grid.density.isnan().all()


def test_infinite_gradients_leave_nothing_finite_behind(host):
    planes, decoder, points, directions, ray = scene()
    out = ops.query_field(planes, decoder, points, directions, ray)
    cotangents = [torch.full((COUNT,), float("inf")), torch.zeros(COUNT, 3)]
    grads = torch.autograd.grad(out, [planes, decoder.density_in.weight], cotangents)
    assert not any(grad.isfinite().all() for grad in grads)


def test_nan_in_compositing_spreads_to_its_ray_alone(host):
    offsets = torch.tensor([0, 40, 80])
    ray = torch.arange(2).repeat_interleave(40)
    samples = Samples(ray, torch.linspace(1, 2, 80), offsets, 0.01)
    density = torch.full((80,), 1.0)
    density[5] = NAN
    color, background = torch.full((80, 3), 0.5), torch.ones(3)
    results = []
    for call, form in ((composite, samples), (composite_packed, PackedSamples.packed(samples))):
        variable = density.clone().requires_grad_()
        out = call(variable, color, form, background)
        (grad,) = torch.autograd.grad(out.color.sum(), variable)
        assert out.color[0].isnan().all() and out.opacity[0].isnan()
        assert grad[:40].isnan().any()
        results.append((out.color[1:], out.opacity[1:]))
    # The plain running sum crosses from ray to ray, and NaN with it.
    assert all(part.isfinite().all() for part in results[1])
    kept = visible_samples(density, PackedSamples.packed(samples))
    assert kept.offsets.tolist() == [0, 40, 80]


def test_rays_that_are_none_meet_nothing(host):
    origins, directions = random_rays(6)
    origins[0, 1] = directions[1, 2] = NAN
    bits = pack_occupancy(torch.ones(1, 8, 8, 8, dtype=torch.bool))
    offsets = march_packed(origins, directions, bits, 8, steps=64).offsets
    assert offsets[2] == 0 and offsets[-1] > 0


@pytest.mark.parametrize("impl", ["reference", "cuda"])
def test_nan_in_the_planes_step(host, impl):
    planes = channel_last(random_planes(8, 5, 4)[0]).requires_grad_()
    optimizer = PlaneAdam(planes, lr=0.1, impl=impl)
    planes.grad = torch.ones_like(planes)
    planes.grad[1, 2, 3, 1] = NAN
    optimizer.step()
    assert planes.isnan().sum() == 1 and planes[1, 2, 3, 1].isnan()


def test_folding_keeps_fp32_under_autocast():
    decoder = random_decoder(16, 12, 64)
    expected, _ = pack_decoder(decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        packed, bias = pack_decoder(decoder)
    assert bias.dtype == torch.float32 and torch.equal(packed, expected)


def test_too_many_samples_and_rays_that_are_not_there_are_refused(host):
    planes, decoder, points, directions, ray = scene()
    many = torch.zeros(1, 3).expand(2**29, 3)  # no memory is behind it
    with pytest.raises(ValueError, match="536870912 samples in one call"):
        ops.query_field(planes, decoder, many, directions, ray[:1].expand(2**29))
    with pytest.raises(ValueError, match="536870912 samples in one call"):
        ops.query_density(planes, decoder, many)
    for wrong in (-1, 5):
        ray[3] = wrong
        with pytest.raises(RuntimeError, match=r"ray has an index outside \[0, 5\)"):
            ops.query_field(planes, decoder, points, directions, ray)


def test_deterministic_algorithms_are_refused_where_gradients_are_wanted(host):
    planes, decoder, points, directions, ray = scene()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(Exception, match="not deterministic"):
            ops.query_field(planes, decoder, points, directions, ray)
        with torch.no_grad():
            ops.query_field(planes, decoder, points, directions, ray)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="not deterministic"):
            ops.query_field(planes, decoder, points, directions, ray)
    finally:
        torch.use_deterministic_algorithms(False)

"""The operations as PyTorch knows them: schemas, fake results, gradients, torch.compile."""

import pytest
import torch
from torch.library import opcheck

from renderer.cuda import ops, plane_step
from renderer.cuda.field.packing import pack_decoder
from renderer.cuda.marching import pack_occupancy
from tests.renderer.cuda.scenes import ball_grid, random_decoder, random_planes, random_rays

SHAPE = [16, 12, 64, 2]
REGISTERED = torch.ops.triavatar


@pytest.fixture(autouse=True)
def on_host(host):
    """CPU tensors are served."""


def field_arguments(count=40):
    generator = torch.Generator().manual_seed(0)
    planes = random_planes(16, 9, 7)[0].requires_grad_()
    packed, bias = (x.detach().requires_grad_() for x in pack_decoder(random_decoder(16, 12, 64)))
    points = torch.rand(count, 3, generator=generator) * 2 - 1
    ray = torch.randint(0, 5, (count,), generator=generator, dtype=torch.int32)
    given = (planes, packed, bias, SHAPE, count)
    return given, (points, None, random_rays(5)[1], ray, None, None, None)


def marched():
    origins, directions = random_rays(12)
    bits = pack_occupancy(ball_grid(8).occupied)
    given = origins, directions, bits, 8, 64, 0.2, None, None
    return given, REGISTERED.march(*given)


def test_field():
    given, samples = field_arguments()
    opcheck(REGISTERED.field.default, (*given, *samples))


def test_field_backward():
    given, samples = field_arguments()
    given = [x.detach() if isinstance(x, torch.Tensor) else x for x in given]
    outputs = REGISTERED.field(*given, *samples)
    cotangents = [torch.ones_like(x) for x in outputs]
    for wanted in ((True, True), (True, False), (False, True)):
        opcheck(
            REGISTERED.field_backward.default, (*cotangents, *outputs, *wanted, *given, *samples)
        )


def test_field_density():
    given, samples = field_arguments()
    given = [x.detach() if isinstance(x, torch.Tensor) else x for x in given]
    opcheck(REGISTERED.field_density.default, (torch.zeros(40), *given, 0.5, *samples))


def test_march_and_visible():
    given, (_, t, offsets) = marched()
    opcheck(REGISTERED.pack_occupancy.default, (ball_grid(8).occupied,))
    opcheck(REGISTERED.march.default, given)
    opcheck(REGISTERED.visible.default, (torch.rand(len(t)) * 100, t, offsets, 0.05, 1e-2))


@pytest.mark.parametrize("per_ray", [False, True])
def test_composite(per_ray):
    _, (_, t, offsets) = marched()
    background = torch.rand(12, 3) if per_ray else torch.rand(3)
    given = [torch.rand(len(t)) * 9, torch.rand(len(t), 3), background]
    for tensor in given:
        tensor.requires_grad_()
    arguments = (*given, t, offsets, 0.05, 1e-4)
    opcheck(REGISTERED.composite.default, arguments)
    detached = [x.detach() for x in given]
    color, opacity, depth = REGISTERED.composite(*detached, t, offsets, 0.05, 1e-4)
    incoming = [torch.ones_like(x) for x in (color, opacity, depth)]
    opcheck(
        REGISTERED.composite_backward.default,
        (*incoming, *detached, t, offsets, opacity, depth, 0.05, 1e-4),
    )


def test_plane_step():
    tensors = [torch.rand(3, 5, 4, 8) for _ in range(6)]
    assert plane_step.step_planes  # the module registers it
    opcheck(REGISTERED.plane_step.default, (*tensors, [0.1, 0.9, 0.99, 1.0, 1e-8, 0, 0, 0, 0]))


def test_a_compiled_function_gives_the_same():
    planes, decoder = random_planes(16, 9, 7), random_decoder(16, 12, 64)
    occupied = ball_grid(8).occupied[None]
    origins, directions = random_rays(12)

    def image(planes):
        out = ops.render_rays(
            planes, decoder, occupied, origins, directions, torch.ones(12, 3), steps=64
        )
        return out.color

    results = []
    for render in (image, torch.compile(image, backend="aot_eager", dynamic=True)):
        variable = planes.clone().requires_grad_()
        color = render(variable)
        (gradient,) = torch.autograd.grad(color.square().sum(), variable)
        results.append((color, gradient))
    for have, want in zip(*results, strict=True):
        assert torch.allclose(have, want, atol=1e-6)

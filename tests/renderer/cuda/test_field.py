"""The field's kernels against the plain decoder and grid_sample, values and every gradient."""

import pytest
import torch

from renderer.cuda import ops
from renderer.cuda.field import launch, selection
from renderer.cuda.field.evaluate import evaluate_density
from renderer.cuda.field.launch import FieldSamples
from renderer.cuda.field.layout import DecoderShape, candidate_layouts, variations
from renderer.cuda.field.packing import pack_decoder
from renderer.triplane import sample_planes
from tests.renderer.cuda.scenes import (
    decided,
    random_decoder,
    random_planes,
    random_rays,
    relative,
)

# Half-precision products; the plain result is fp32.
TOLERANCE = 1e-2
SHAPES = [(16, 12, 64), (32, 24, 128), (16, 12, 32)]


def scene(shape, count, seed=0):
    channels, color_channels, hidden = shape
    generator = torch.Generator().manual_seed(seed)
    planes = random_planes(channels, 9, 7)[0]
    decoder = random_decoder(channels, color_channels, hidden)
    points = torch.rand(count, 3, generator=generator) * 2.2 - 1.1  # some beyond the faces
    _, directions = random_rays(5, seed)
    ray = torch.randint(0, 5, (count,), generator=generator)
    return planes, decoder, points, directions, ray


def plain_field(planes, decoder, points, directions, ray):
    return decoder(sample_planes(planes, points), directions[ray])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 131])
def test_density_and_color(host, shape, count):
    planes, decoder, points, directions, ray = scene(shape, count)
    with torch.no_grad():
        expected = plain_field(planes, decoder, points, directions, ray)
        actual = ops.query_field(planes, decoder, points, directions, ray)
        density = ops.query_density(planes, decoder, points)
    for have, want in zip(actual, expected, strict=True):
        assert relative(have, want) < TOLERANCE
    assert relative(density, expected[0]) < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients(host, shape, frozen, monkeypatch):
    # Several chunks, the last one partly filled.
    monkeypatch.setattr(launch, "BACKWARD_CHUNK", 128)
    planes, decoder, points, directions, ray = scene(shape, 150)
    decoder.requires_grad_(not frozen)
    generator = torch.Generator().manual_seed(9)
    # Samples of very different weight, some with none: each keeps its own precision.
    size = 10.0 ** torch.randint(-9, 1, (150,), generator=generator) * (ray != 2)
    clear = decided(decoder, sample_planes(planes, points), directions[ray])
    assert clear.sum() > 40
    size = size * clear
    cotangents = torch.randn(150, generator=generator) * size
    cotangents = [cotangents, torch.randn(150, 3, generator=generator) * size[:, None]]
    results = []
    for query in (plain_field, ops.query_field):
        variable = planes.clone().requires_grad_()
        wanted = [variable] if frozen else [variable, *decoder.parameters()]
        out = query(variable, decoder, points, directions, ray)
        results.append(torch.autograd.grad(out, wanted, cotangents))
    for want, have in zip(*results, strict=True):
        assert relative(have, want) < TOLERANCE


NARROW = DecoderShape(16, 12, 64, 2)
VARIANTS = [
    (backward, layout)
    for backward in (False, True)
    for layout in candidate_layouts(NARROW, 90, backward=backward)
]
VARIANTS += [(True, layout) for layout in variations(VARIANTS[-1][1])]
# Weights that stay: tile after tile, and with groups of threads that each have a tile.
STAYING = [next(v for v in VARIANTS if v[0] and v[1].groups)]
STAYING += [next(v for v in VARIANTS if not v[0] and v[1].groups == 2)]


def cut_name(value) -> str:
    names = ("tile", "warp_columns", "blocks", "groups", "scatter", "chunk")
    return (
        "-".join(str(getattr(value, name)) for name in names)
        if value not in (0, 1)
        else ("backward" if value else "forward")
    )


@pytest.mark.slow
@pytest.mark.parametrize("backward,layout", VARIANTS, ids=cut_name)
def test_every_cut_of_the_kernels_gives_the_same(host, backward, layout, monkeypatch):
    check_cut(backward, layout, 70, monkeypatch)


@pytest.mark.parametrize("backward,layout", STAYING, ids=cut_name)
def test_blocks_that_keep_the_weights_give_the_same(host, backward, layout, monkeypatch):
    check_cut(backward, layout, 64 * 4 + 3, monkeypatch)


def check_cut(backward, layout, count, monkeypatch):
    """Compare the kernels, cut so, with the plain field."""
    key = (NARROW, torch.device("cpu"), backward)
    monkeypatch.setitem(selection._chosen, key, layout)
    planes, decoder, points, directions, ray = scene((16, 12, 64), count)
    planes.requires_grad_()
    clear = decided(decoder, sample_planes(planes, points), directions[ray])
    results = []
    for query in (plain_field, ops.query_field):
        density, color = query(planes, decoder, points, directions, ray)
        loss = (clear * (density * 0.1 + color.square().sum(1))).sum()
        grads = torch.autograd.grad(loss, [planes, *decoder.parameters()]) if backward else ()
        results.append([density, color, *grads])
    for want, have in zip(*results, strict=True):
        assert relative(have, want) < TOLERANCE


def test_gradients_of_small_weight_keep_their_precision(host):
    planes, decoder, points, directions, ray = scene(SHAPES[0], 40)
    decoder.requires_grad_(False)
    clear = 1e-12 * decided(decoder, sample_planes(planes, points), directions[ray])
    grads = []
    for query in (plain_field, ops.query_field):
        variable = planes.clone().requires_grad_()
        density, color = query(variable, decoder, points, directions, ray)
        loss = (clear * (density + color.sum(1))).sum()
        grads.append(torch.autograd.grad(loss, variable)[0])
    assert grads[0].norm() > 0 and relative(grads[1], grads[0]) < TOLERANCE


def test_only_the_decoder_wants_a_gradient(host):
    planes, decoder, points, directions, ray = scene(SHAPES[0], 70)
    clear = decided(decoder, sample_planes(planes, points), directions[ray])
    grads = []
    for query in (plain_field, ops.query_field):
        density, color = query(planes, decoder, points, directions, ray)
        loss = (clear * (density * 0.1 + color.square().sum(1))).sum()
        grads.append(torch.autograd.grad(loss, list(decoder.parameters())))
    for want, have in zip(*grads, strict=True):
        assert relative(have, want) < TOLERANCE


def test_folding_is_exact():
    planes, decoder, points, directions, ray = scene(SHAPES[0], 50)
    packed, bias = pack_decoder(decoder)
    h = decoder._density_hidden(sample_planes(planes, points))
    start = DecoderShape.of(decoder).density_in * 64
    geometry = packed[start : start + 64 * 80].view(64, 80)
    density, _ = plain_field(planes, decoder, points, directions, ray)
    assert relative(torch.exp(h @ geometry[:, 64 + 3] + bias), density) < 1e-5
    raw = decoder.density_out(h)[:, 1:] - decoder.density_out.bias[1:]
    folded = raw @ decoder.color_in.weight[:, 75:].T
    assert relative(h @ geometry[:, :64], folded) < 1e-5


def test_nothing_to_evaluate(host):
    planes, decoder, points, directions, ray = scene(SHAPES[0], 3)
    planes.requires_grad_()
    density, color = ops.query_field(planes, decoder, points[:0], directions, ray[:0])
    assert density.shape == (0,) and color.shape == (0, 3)
    (grad,) = torch.autograd.grad(density.sum() + color.sum(), planes)
    assert (grad == 0).all()


def test_outputs_are_written_whatever_they_held(host):
    planes, decoder, points, _, _ = scene(SHAPES[0], 65)
    out = torch.full((67,), float("nan"))
    samples = FieldSamples(65, points=points)
    evaluate_density(planes, decoder, samples, out)
    assert torch.isfinite(out[:65]).all() and torch.isnan(out[65:]).all()


def test_a_changed_triplane_or_decoder_is_noticed(host):
    planes, decoder, points, directions, ray = scene(SHAPES[0], 20)
    decoder.requires_grad_(False)
    before = ops.query_density(planes, decoder, points)
    with torch.no_grad():
        planes.mul_(0.5)
    moved = ops.query_density(planes, decoder, points)
    assert relative(moved, decoder.density(sample_planes(planes, points))) < TOLERANCE
    with torch.no_grad():
        decoder.density_out.bias.add_(1)
    assert relative(ops.query_density(planes, decoder, points), moved * torch.e) < TOLERANCE
    assert relative(before, moved) > TOLERANCE


def test_wrong_inputs_are_refused(host):
    planes, decoder, points, directions, ray = scene(SHAPES[0], 4)
    with pytest.raises(ValueError, match="ray must be"):
        ops.query_field(planes, decoder, points, directions, ray[:2])
    with pytest.raises(ValueError, match="channels"):
        ops.query_field(planes[:, :8], decoder, points, directions, ray)
    with pytest.raises(ValueError, match="no gradient to points"):
        ops.query_field(planes, decoder, points.requires_grad_(), directions, ray)

"""The parts of the U-Nets against plain formulas and hand-made cases."""

import pytest
import torch
from torch.nn import functional as F

from diffusion.networks.attention import TexelAttention, head_count
from diffusion.networks.blocks import GroupNorm, TriplaneConv, shared_means
from diffusion.networks.inputs import attention_levels, tokens_by_level
from diffusion.networks.portrait_encoder import grid_positions
from diffusion.networks.upsampler import upsample_rollout
from renderer.triplane import rollout, unroll

X, Y, Z = 1, 3, 5  # texels of one 3D place on an 8³ lattice
SIZE = 8
# Plane → (column, row) of that place: planes xy, xz, yz, first coordinate along W.
PLACES = {"xy": (X, Y), "xz": (X, Z), "yz": (Y, Z)}
PLANES = list(PLACES)


@pytest.mark.parametrize("source", PLANES)
def test_a_feature_arrives_at_its_own_coordinates_in_the_other_planes(source):
    planes = torch.zeros(1, 3, 1, SIZE, SIZE)
    column, row = PLACES[source]
    planes[0, PLANES.index(source), 0, row, column] = SIZE  # its mean along an axis is 1
    along_w, along_h = shared_means(planes)
    # What reaches each other plane: the shared letter, on the axis that it has there.
    arrivals = {
        ("xy", "xz"): ("w", X),  # x runs along W in xz
        ("xy", "yz"): ("w", Y),  # y runs along W in yz
        ("xz", "xy"): ("w", X),
        ("xz", "yz"): ("h", Z),  # z runs along H in yz
        ("yz", "xy"): ("h", Y),  # y runs along H in xy
        ("yz", "xz"): ("h", Z),
    }
    for index, receiver in enumerate(PLANES):
        expected = {"w": torch.zeros(SIZE), "h": torch.zeros(SIZE)}
        if receiver != source:
            axis, place = arrivals[source, receiver]
            expected[axis][place] = 1
        assert torch.equal(along_w[0, index, 0], expected["w"]), receiver
        assert torch.equal(along_h[0, index, 0], expected["h"]), receiver


@pytest.mark.parametrize("slot", ["w", "h"])
def test_the_convolution_expands_what_arrives_along_the_other_axis(slot):
    """A kernel that copies one pooled channel shows x of the xy plane as a column of xz."""
    conv = TriplaneConv(1, 1)
    torch.nn.init.zeros_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    with torch.no_grad():
        conv.weight[0, 1 if slot == "w" else 2, 1, 1] = 1
    planes = torch.zeros(1, 3, 1, SIZE, SIZE)
    if slot == "w":
        planes[0, 0, 0, Y, X] = SIZE
        out = unroll(conv(rollout(planes)))[0, 1, 0]  # xz: constant along z
        expected = torch.zeros(SIZE, SIZE)
        expected[:, X] = 1
    else:
        planes[0, 2, 0, Z, Y] = SIZE
        out = unroll(conv(rollout(planes)))[0, 0, 0]  # xy: constant along x
        expected = torch.zeros(SIZE, SIZE)
        expected[Y, :] = 1
    assert torch.allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_aware_convolution_equals_the_concatenation(size, separate):
    """Against pool, expand, concatenate, convolve each plane, in float64, with gradients."""
    torch.manual_seed(0)
    conv = TriplaneConv(3, 5, separate).double()
    x = torch.randn(2, 3, size, 3 * size, dtype=torch.float64, requires_grad=True)

    def reference(values):
        xy, xz, yz = values.chunk(3, dim=3)

        def rows(line):  # [B, C, L], by row
            return line[:, :, :, None].expand(-1, -1, -1, size)

        def columns(line):  # [B, C, L], by column
            return line[:, :, None, :].expand(-1, -1, size, -1)

        stacks = [
            (xy, columns(xz.mean(2)), rows(yz.mean(2))),  # x of xz, y of yz
            (xz, columns(xy.mean(2)), rows(yz.mean(3))),  # x of xy, z of yz
            (yz, columns(xy.mean(3)), rows(xz.mean(3))),  # y of xy, z of xz
        ]
        weights = conv.weight if separate else [conv.weight] * 3
        biases = conv.bias if separate else [conv.bias] * 3
        outs = [
            F.conv2d(torch.cat(stack, dim=1), weight, bias, padding=1)
            for stack, weight, bias in zip(stacks, weights, biases, strict=True)
        ]
        return torch.cat(outs, dim=3)

    out, expected = conv(x), reference(x)
    assert torch.allclose(out, expected, atol=1e-12)
    cotangent = torch.randn_like(out)
    inputs = (x, conv.weight, conv.bias)
    for ours, theirs in zip(
        torch.autograd.grad(out, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-11)


@pytest.mark.parametrize("separate", [False, True])
def test_aware_convolution_keeps_the_memory_format(separate):
    torch.manual_seed(0)
    conv = TriplaneConv(3, 5, separate)
    x = torch.randn(2, 3, 8, 24)
    out = conv(x)
    last = conv(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, last, atol=1e-5)


def test_aware_convolution_needs_square_planes():
    with pytest.raises(ValueError, match="4 x 5"):
        TriplaneConv(1, 1)(torch.zeros(1, 1, 4, 15))


@pytest.mark.parametrize("channels", [1, 2, 3, 12, 37, 64, 192])
def test_group_norm_takes_any_channel_count(channels):
    norm = GroupNorm(channels)
    assert channels % norm.num_groups == 0 and norm.num_groups <= 32
    out = norm(torch.randn(2, channels, 4, 12) * 3 + 5)
    assert out.mean().abs() < 1e-4
    half = norm.half()(torch.randn(2, channels, 4, 12).half() * 300)  # squares overflow fp16
    assert half.dtype == torch.float16 and torch.isfinite(half).all()


def test_group_norm_keeps_half_precision_under_autocast():
    """What autograd keeps is bf16 too, and the result is the exact one, rounded."""
    norm = GroupNorm(8)
    x = (torch.randn(2, 8, 16, 16) * 2 + 30).bfloat16().requires_grad_()
    kept = []

    def keep(tensor):
        if tensor.numel() == x.numel():
            kept.append(tensor.dtype)
        return tensor

    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = norm(x)
    assert out.dtype == torch.bfloat16 and set(kept) == {torch.bfloat16}
    exact = torch.nn.functional.group_norm(x.double(), norm.num_groups, eps=norm.eps)
    assert float((out.double() - exact).abs().max()) < 2**-8 * float(exact.abs().max())


def test_attention_equals_a_written_out_softmax():
    torch.manual_seed(0)
    layer = TexelAttention(6, 5, 3, self_attention=True).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 6, 2, 6, dtype=torch.float64)
    tokens = torch.randn(2, 4, 5, dtype=torch.float64)
    texels = layer.norm(x).flatten(2).transpose(1, 2)
    query, key, value = layer.texels(texels).chunk(3, dim=-1)
    token_key, token_value = layer.tokens(tokens).chunk(2, dim=-1)
    key, value = torch.cat((token_key, key), 1), torch.cat((token_value, value), 1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / 3**0.5).softmax(-1)
        heads.append(weights @ value[..., part])
    mixed = layer.output(torch.cat(heads, -1))
    expected = x + mixed.transpose(1, 2).reshape(x.shape)
    assert torch.allclose(layer(x, tokens), expected, atol=1e-10)


def test_cross_attention_alone_sees_no_other_texel():
    torch.manual_seed(0)
    layer = TexelAttention(4, 5, 4, self_attention=False)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    layer.norm = torch.nn.Identity()  # its statistics would mix the texels
    x, tokens = torch.randn(1, 4, 2, 6), torch.randn(1, 3, 5)
    other = x.clone()
    other[..., 1, 5] += 1
    change = (layer(other, tokens) - layer(x, tokens)).abs().amax(1)[0]
    assert change[1, 5] > 0.1
    change[1, 5] = 0
    assert float(change.max()) < 1e-6


def test_heads_divide_the_channels():
    assert head_count(192, 64) == 3
    assert head_count(16, 64) == 1
    assert head_count(37, 8) == 1
    assert head_count(100, 32) == 2  # three heads would not divide 100


def test_finest_map_goes_to_the_finest_attention():
    levels = attention_levels(128, (8, 32, 16), 5)
    assert levels == [2, 3, 4]
    tokens = [torch.full((1, 1, 1), float(i)) for i in range(3)]
    chosen = tokens_by_level(tokens, levels, 5)
    values = [None if t is None else t.flatten().tolist() for t in chosen]
    assert values == [None, None, [0.0], [1.0], [2.0]]
    # Fewer resolutions than maps: the coarsest reads the rest.
    chosen = tokens_by_level(tokens, [1, 2], 3)
    values = [None if t is None else t.flatten().tolist() for t in chosen]
    assert values == [None, [0.0], [1.0, 2.0]]


def test_impossible_resolutions_are_named():
    with pytest.raises(ValueError, match=r"attention at 12 x 12"):
        attention_levels(32, (12,), 3)
    with pytest.raises(ValueError, match="cannot be halved 5 times"):
        attention_levels(32, (8,), 6)


def test_patch_positions_differ():
    positions = grid_positions(4, 10, torch.device("cpu"))
    assert positions.shape == (16, 10)
    assert float(torch.cdist(positions, positions).add(torch.eye(16)).min()) > 0.1


def test_low_resolution_planes_do_not_mix_when_resized():
    """Bicubic and corner-aligned: exact on a linear ramp, and every plane keeps to itself."""
    ramp = torch.linspace(-1, 1, 8)
    planes = torch.stack((ramp.expand(8, 8), ramp[:, None].expand(8, 8), torch.ones(8, 8)))
    out = unroll(upsample_rollout(rollout(planes[None, :, None]), 15))[0, :, 0]
    fine = torch.linspace(-1, 1, 15)
    inner = slice(2, -2)  # the cubic kernel repeats the border texel
    assert torch.allclose(out[0][:, inner], fine.expand(15, 15)[:, inner], atol=1e-5)
    assert torch.allclose(out[1][inner], fine[:, None].expand(15, 15)[inner], atol=1e-5)
    assert torch.allclose(out[2], torch.ones(15, 15), atol=1e-5)
    assert torch.allclose(out[0][:, [0, -1]], torch.tensor([-1.0, 1.0]).expand(15, 2), atol=0.05)

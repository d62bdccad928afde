"""The tiny-cuda-nn decoder: weights both ways, checked without the package.

A stand-in package computes as tiny-cuda-nn documents: flat parameters, layers one after the other,
row by row, inputs padded with ones and outputs with rows that are cut off, softplus scaled by 10.
"""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch

from renderer.decoder import decoder_hash
from renderer.tinycudann_decoder import (
    TinyCudaDecoder,
    aligned,
    load_tinycudann,
    pack,
    unpack,
)
from runtime.errors import UserError
from tests.scenes import random_decoder


class Network(torch.nn.Module):
    """``tinycudann.Network`` in plain PyTorch, fp32."""

    def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict):
        super().__init__()
        width, hidden = network_config["n_neurons"], network_config["n_hidden_layers"]
        self.inputs, self.outputs = n_input_dims, n_output_dims
        sizes = [aligned(n_input_dims), *[width] * hidden, aligned(n_output_dims)]
        self.shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        self.params = torch.nn.Parameter(torch.randn(sum(a * b for a, b in self.shapes)))
        self.config = network_config

    def forward(self, x):
        x = torch.nn.functional.pad(x, (0, aligned(self.inputs) - self.inputs), value=1.0)
        start = 0
        for index, (rows, columns) in enumerate(self.shapes):
            weight = self.params[start : start + rows * columns].view(rows, columns)
            start += rows * columns
            x = x @ weight.T
            last = index == len(self.shapes) - 1
            kind = self.config["output_activation" if last else "activation"]
            x = {
                "None": lambda v: v,
                "ReLU": torch.relu,
                "Sigmoid": torch.sigmoid,
                "Softplus": lambda v: torch.log(torch.exp(v * 10) + 1) / 10,
            }[kind](x)
        return x[:, : self.outputs]


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", SimpleNamespace(Network=Network))


def test_same_function_and_gradients(package):
    decoder = random_decoder(9, 6, 32)
    fused = TinyCudaDecoder(decoder)
    features = (torch.rand(40, 9) * 2 - 1).requires_grad_()
    directions = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    results = []
    for model in (decoder, fused):
        density, color = model(features, directions)
        (gradient,) = torch.autograd.grad(density.log().sum() + color.sum(), features)
        results.append([density, color, model.density(features), gradient])
    for plain, other in zip(*results, strict=True):
        assert torch.allclose(plain, other, rtol=2e-4, atol=1e-5)


def test_weights_convert_back(package):
    decoder = random_decoder(9, 6, 32, 1)
    back = TinyCudaDecoder(decoder).to_decoder()
    assert all(back.config[k] == decoder.config[k] for k in ("channels", "hidden", "frequencies"))
    for a, b in zip(decoder.parameters(), back.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)


def test_trained_weights_convert_back(package):
    fused = TinyCudaDecoder(random_decoder(9, 6, 32))
    features, directions = torch.rand(10, 9), torch.eye(3)[torch.arange(10) % 3]
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    # Padding is no part of the decoder: clear what the step put there.
    fresh = TinyCudaDecoder(fused.to_decoder())
    decoder = fused.to_decoder()
    assert decoder_hash(decoder) != decoder_hash(random_decoder(9, 6, 32))
    assert torch.allclose(
        fresh(features, directions)[1], decoder(features, directions)[1], atol=1e-5
    )


def test_packing_round_trip():
    layers = [torch.randn(32, 21), torch.randn(32, 32), torch.randn(3, 32)]
    flat = pack(layers)
    assert flat.numel() == 32 * 32 + 32 * 32 + 16 * 32
    for a, b in zip(layers, unpack(flat, [(32, 21), (32, 32), (3, 32)]), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="do not fit"):
        unpack(flat[:-1], [(32, 21), (32, 32), (3, 32)])


def test_renders_through_the_general_path(package):
    from renderer.render import RenderSettings, build_occupancy, render_rays
    from tests.scenes import random_rays

    decoder = random_decoder(6, 4, 16)
    planes, settings = torch.rand(3, 6, 8, 8) * 2 - 1, RenderSettings(steps=48, grid=8)
    grid = build_occupancy(planes, decoder, settings)
    rays = random_rays(50)
    plain = render_rays(planes, decoder, grid, *rays, 1.0, settings)
    fused = render_rays(planes, TinyCudaDecoder(decoder), grid, *rays, 1.0, settings)
    assert torch.allclose(plain.color, fused.color, atol=1e-4)


def test_without_the_package_it_says_how_to_get_it():
    if importlib.util.find_spec("tinycudann") is not None:
        pytest.skip("tinycudann is installed here")
    with pytest.raises(UserError, match="needs the package tinycudann"):
        load_tinycudann()


def test_other_widths_are_refused(package):
    with pytest.raises(UserError, match="wide"):
        TinyCudaDecoder(random_decoder(6, 4, 24))


@pytest.mark.cuda
def test_against_the_real_package():
    pytest.importorskip("tinycudann")
    decoder = random_decoder(32, 24, 128).cuda()
    features = torch.rand(4096, 32, device="cuda") * 2 - 1
    directions = torch.nn.functional.normalize(torch.randn(4096, 3, device="cuda"), dim=-1)
    density, color = decoder(features, directions)
    fused_density, fused_color = TinyCudaDecoder(decoder).cuda()(features, directions)
    assert (fused_density - density).norm() <= 1e-2 * density.norm()
    assert (fused_color - color).norm() <= 1e-2 * color.norm()

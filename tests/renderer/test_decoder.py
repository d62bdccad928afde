"""The decoder: size, heads, gradients, files."""

import subprocess
import sys

import pytest
import torch

from renderer.decoder import TriplaneDecoder, decoder_hash, frequency_encode, truncated_exp
from renderer.fitted_set import load_decoder
from runtime.errors import UserError
from tests.scenes import random_decoder


def test_parameter_count_of_the_published_decoder():
    assert sum(p.numel() for p in TriplaneDecoder().parameters()) == 72_321


def test_frequency_encoding():
    x = torch.tensor([[0.3, -0.7]])
    parts = [x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos()]
    assert torch.allclose(frequency_encode(x, 2), torch.cat(parts, -1))


def test_density_alone_equals_density_with_colour():
    decoder, features = random_decoder(), torch.rand(20, 6) * 2 - 1
    density, color = decoder(features, torch.nn.functional.normalize(torch.randn(20, 3), dim=-1))
    assert torch.allclose(decoder.density(features), density, rtol=1e-5)
    assert density.min() > 0 and 0 < color.min() and color.max() < 1


def test_density_depends_on_density_channels_alone():
    decoder, features = random_decoder(channels=6, color_channels=4), torch.rand(5, 6)
    changed = features.clone()
    changed[:, :4] = -0.9
    assert torch.equal(decoder.density(features), decoder.density(changed))
    changed[:, 5] = -0.9
    assert not torch.equal(decoder.density(features), decoder.density(changed))


def test_colour_depends_on_direction_and_density_does_not():
    decoder, features = random_decoder(), torch.rand(1, 6).repeat(2, 1)
    density, color = decoder(features, torch.tensor([[0.0, 0, 1], [1.0, 0, 0]]))
    assert torch.allclose(density[0], density[1]) and not torch.allclose(color[0], color[1])


def test_truncated_exp_is_finite_with_bounded_gradient():
    x = torch.tensor([-500.0, 0.0, 14.0, 40.0, 1e4], requires_grad=True)
    y = truncated_exp(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(y).all() and y[2] == torch.tensor(14.0).exp()
    assert gradient[3] == torch.tensor(15.0).exp() and gradient[4] == torch.tensor(15.0).exp()


def test_files_round_trip_and_hash(tmp_path):
    decoder = random_decoder()
    decoder.save_pretrained(tmp_path / "decoder")
    loaded = load_decoder(tmp_path / "decoder", decoder_hash(decoder))
    assert decoder_hash(loaded) == decoder_hash(decoder)
    assert not any(p.requires_grad for p in loaded.parameters())
    with torch.no_grad():
        decoder.color_out.weight[0, 0] += 1e-3
    assert decoder_hash(loaded) != decoder_hash(decoder)
    with pytest.raises(UserError, match="not the one the triplanes were made with"):
        load_decoder(tmp_path / "decoder", decoder_hash(decoder))


def test_missing_and_damaged_decoders(tmp_path):
    with pytest.raises(UserError, match="no decoder in"):
        load_decoder(tmp_path)
    random_decoder().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="truncated or no safetensors"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("color_channels", [0, 6, 7])
def test_channel_split_must_leave_both_heads_some(color_channels):
    with pytest.raises(ValueError, match="color_channels"):
        TriplaneDecoder(6, color_channels, 8)


def test_rendering_and_fitting_need_no_diffusers(project):
    code = """
import sys
sys.modules["diffusers"] = None
import fitting.fit_triplanes, likeness.fit, renderer.cuda.ops
from renderer import TriplaneDecoder
TriplaneDecoder(8, 4, 16)
"""
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)

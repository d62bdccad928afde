"""The two models: parameter counts, gradients, saving, conditioning, independence in a batch."""

import pytest
import torch

from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks import TriplaneUNet, TriplaneUpsampler
from diffusion.networks.blocks import TriplaneConv
from diffusion.networks.positions import texel_positions
from renderer.triplane import unroll
from runtime.formats.settings_files import load_yaml
from tests.conftest import PROJECT
from tests.diffusion import tiny
from tests.diffusion.tiny import portraits

CONDITION = tiny.CONDITION | {"latent_channels": 4, "token_width": 20}


def base_model(**changes) -> TriplaneUNet:
    torch.manual_seed(0)
    settings = {
        "plane_channels": 4,
        "plane_size": 16,
        "width": 8,
        "multipliers": (1, 1, 2),
        "blocks": 1,
        "attention_sizes": (16, 8, 4),
        "head_channels": 4,
        **CONDITION,
    }
    return TriplaneUNet(**(settings | changes))


def upsampler_model(**changes) -> TriplaneUpsampler:
    torch.manual_seed(0)
    settings = {
        "plane_channels": 4,
        "plane_size": 16,
        "low_res_size": 8,
        "width": 8,
        "multipliers": (1, 2, 3),
        "blocks": (1, 1, 2),
        "attention_sizes": (8, 4),
        "head_channels": 8,
        **CONDITION,
    }
    return TriplaneUpsampler(**(settings | changes))


EXTRAS = {"plane_convs": "released", "positions": True, "pixel_aligned": 6}


def full_base(**changes) -> TriplaneUNet:
    return base_model(**EXTRAS, **changes)


def full_upsampler(**changes) -> TriplaneUpsampler:
    return upsampler_model(**EXTRAS, **changes)


def perturbed(model):
    """Moves every parameter off its (maybe zero) start."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=random)
    return model


def call(model, x, timestep, features, drop=None):
    """Either model, with low-resolution planes that depend on x sample by sample."""
    if isinstance(model, TriplaneUpsampler):
        low_res = torch.nn.functional.avg_pool2d(x, 2).clamp(-1, 1)
        return model(x, timestep, low_res, features, drop)
    return model(x, timestep, features, drop)


both = pytest.mark.parametrize("make", [base_model, upsampler_model, full_base, full_upsampler])


def count(module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_paper_base_has_the_published_parameter_count():
    """The model of configs/paper, counted without making it; with one shared weight it is less."""
    settings = load_yaml(PROJECT / "configs" / "paper" / "base.yaml")["model"]
    with torch.device("meta"):
        model, shared = TriplaneUNet(**settings), TriplaneUNet()
    assert count(model) == pytest.approx(366.83, rel=0.001)
    assert count(shared) == pytest.approx(361.85, rel=0.001)
    assert model.unet.output.weight.shape[0] == 64  # mean and variance of 32 channels
    dropouts = [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    assert set(dropouts) == {0.1}
    aware = [layer for layer in model.modules() if isinstance(layer, TriplaneConv)]
    assert len(aware) == 7  # three blocks down, four up
    assert all(layer.weight.shape[:2] == (3, 192) for layer in aware)


def test_released_convolutions_start_as_zero():
    aware = [layer for layer in full_base().modules() if isinstance(layer, TriplaneConv)]
    assert aware and not any(layer.weight.any() for layer in aware)


def test_positions_tell_planes_and_texels_apart():
    """Without them a constant roll-out looks alike in all planes, away from their borders."""
    x = torch.ones(1, 4, 16, 48)
    for model, differs in ((base_model(), False), (base_model(positions=True), True)):
        planes = unroll(model.unet.input(x_with_positions(model, x)))
        middle = planes[..., 4:12, 4:12]
        spread = (middle - middle.mean(dim=(1, 3, 4), keepdim=True)).abs().max()
        assert (float(spread) > 1e-3) == differs


def x_with_positions(model, x):
    return torch.cat((x, texel_positions(16)), dim=1) if model.positions else x


def test_texel_positions_are_distinct_and_shared_coordinates_agree():
    planes = unroll(texel_positions(8))[0]
    texels = planes.permute(0, 2, 3, 1).reshape(3 * 64, -1)
    distance = torch.cdist(texels, texels) + 10 * torch.eye(len(texels))
    assert float(distance.min()) > 0.1
    xy, xz, yz = planes
    assert torch.equal(xy[3:9, 0, :], xz[3:9, 0, :])  # x runs along W in both
    assert torch.equal(xy[9:15, :, 0], yz[9:15, 0, :])  # y along H, then along W
    assert torch.equal(xz[15:21, :, 0], yz[15:21, :, 0])  # z along H in both


@pytest.mark.parametrize(("width", "released"), [(128, 320.6), (64, 80.4)])
def test_paper_upsampler_has_the_released_parameter_count(width, released):
    """The release reads tokens of the latent; the three maps' patch convolutions come on top."""
    with torch.device("meta"):
        model = TriplaneUpsampler(width=width)
    maps = count(model.portrait.levels)
    assert count(model) - maps == pytest.approx(released, rel=0.02)
    weights = (128 * 16**2 + 256 * 8**2 + 512 * 4**2) * 512
    assert maps == pytest.approx(weights / 1e6, rel=1e-3)


@both
def test_starts_as_zero(make):
    """Zero-initialised outputs: an untrained model predicts nothing."""
    out = call(make(), torch.randn(2, 4, 16, 48), 3, portraits(2))
    assert not out.any()


@both
def test_gradients_reach_every_parameter(make):
    model = perturbed(make())
    drop = torch.tensor([True, False])
    out = call(model, torch.randn(2, 4, 16, 48), torch.tensor([3, 70]), portraits(2), drop)
    out.square().mean().backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or float(parameter.grad.abs().max()) == 0
    ]
    assert silent == []


@both
def test_a_sample_does_not_depend_on_its_batch(make):
    model = perturbed(make()).eval()
    x, steps, features = torch.randn(3, 4, 16, 48), torch.tensor([1, 50, 99]), portraits(3)
    drop = torch.tensor([False, True, False])
    together = call(model, x, steps, features, drop)
    for i in range(3):
        part = slice(i, i + 1)
        alone = call(model, x[part], steps[part], features[i], drop[part])
        assert torch.allclose(alone, together[part], atol=1e-5)


@both
def test_the_portrait_matters_unless_it_is_dropped(make):
    model = perturbed(make()).eval()
    x = torch.randn(2, 4, 16, 48)
    seen = call(model, x, 5, portraits(2))
    other = call(model, x, 5, portraits(2, seed=1))
    assert float((seen - other).detach().abs().max()) > 1e-3
    dropped = torch.ones(2, dtype=torch.bool)
    nothing = call(model, x, 5, None)
    for seed in (0, 1):
        out = call(model, x, 5, portraits(2, seed), dropped)
        assert torch.allclose(out, nothing, atol=1e-6)
    assert float((seen - nothing).detach().abs().max()) > 1e-3


@both
@pytest.mark.parametrize("level", range(4))
def test_every_map_of_the_portrait_matters(make, level):
    model = perturbed(make()).eval()
    x, features, other = torch.randn(1, 4, 16, 48), portraits(1), portraits(1, seed=1)
    maps = [features.latent, *features.levels]
    maps[level] = [other.latent, *other.levels][level]
    changed = PortraitFeatures(maps[0], (maps[1], maps[2], maps[3]))
    difference = call(model, x, 5, features) - call(model, x, 5, changed)
    assert float(difference.abs().max()) > 1e-5


@both
def test_timestep_matters_and_may_be_one_for_all(make):
    model = perturbed(make()).eval()
    x, features = torch.randn(2, 4, 16, 48), portraits(2)
    single = call(model, x, 7, features)
    assert torch.equal(single, call(model, x, torch.tensor([7, 7]), features))
    assert float((single - call(model, x, 8, features)).detach().abs().max()) > 1e-5
    with pytest.raises(ValueError, match="3 timesteps for a batch of 2"):
        call(model, x, torch.tensor([1, 2, 3]), features)


@both
def test_saved_and_loaded_models_are_equal(make, tmp_path):
    model = perturbed(make()).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert loaded.config["feature_sizes"] == [32, 16, 8]
    x, features = torch.randn(2, 4, 16, 48), portraits(2)
    assert torch.equal(call(model, x, 5, features), call(loaded, x, 5, features))


@both
def test_checkpointing_changes_no_gradient(make):
    x, features = torch.randn(2, 4, 16, 48), portraits(2)
    gradients = []
    for checkpointing in (False, True):
        model = perturbed(make())
        if checkpointing:
            model.enable_gradient_checkpointing()
        call(model, x, 5, features).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.allclose(plain, recomputed, atol=1e-6)


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close(make, dtype):
    model = perturbed(make()).eval()
    x, features = torch.randn(2, 4, 16, 48), portraits(2)
    expected = call(model, x, 5, features)
    out = call(model.to(dtype), x.to(dtype), 5, features.to(dtype=dtype)).float()
    assert float((out - expected).std() / expected.std()) < (
        0.02 if dtype is torch.float16 else 0.1
    )


@pytest.mark.parametrize("width", [5, 8, 37])
def test_any_width_works(width):
    for model in (base_model(width=width), upsampler_model(width=width)):
        assert torch.isfinite(
            call(perturbed(model), torch.randn(2, 4, 16, 48), 5, portraits(2))
        ).all()


def test_without_learned_variance_the_output_has_the_planes_channels():
    model = base_model(learned_variance=False)
    assert model(torch.randn(1, 4, 16, 48), 0).shape == (1, 4, 16, 48)
    assert base_model()(torch.randn(1, 4, 16, 48), 0).shape == (1, 8, 16, 48)


def test_what_does_not_fit_is_refused_in_a_sentence():
    model, features = base_model(), portraits(1)
    with pytest.raises(ValueError, match=r"\[B, 4, 16, 48\], got \[1, 4, 32, 96\]"):
        model(torch.zeros(1, 4, 32, 96), 0, features)
    wrong = PortraitFeatures(torch.zeros(1, 4, 16, 16), features.levels)
    with pytest.raises(ValueError, match="made for 4x8, 6x32, 8x16, 12x8"):
        model(torch.zeros(1, 4, 16, 48), 0, wrong)
    with pytest.raises(ValueError, match="drop must be"):
        model(torch.zeros(1, 4, 16, 48), 0, features, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="patch size 5 does not divide"):
        base_model(feature_patches=(5, 4, 2))
    with pytest.raises(ValueError, match="one entry for each feature map"):
        base_model(feature_patches=(8, 4))
    with pytest.raises(ValueError, match="3 attention resolutions for 2 feature maps"):
        base_model(feature_channels=(6, 8), feature_sizes=(32, 16), feature_patches=(8, 4))
    with pytest.raises(ValueError, match="one entry for each level"):
        upsampler_model(blocks=(1, 1))
    with pytest.raises(ValueError, match="low_res must be"):
        upsampler_model()(torch.zeros(1, 4, 16, 48), 0, torch.zeros(1, 4, 4, 12))

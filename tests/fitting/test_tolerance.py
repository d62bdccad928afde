"""Errors made on purpose: of the strength asked for, repeatable, differentiable, off by default."""

import pytest
import torch

from captures.multiview import MultiViewSet
from fitting.ray_pool import RayPool
from fitting.subject_fit import FitSettings, SubjectFit, new_planes
from fitting.tolerance import JitterSettings, add_noise, jitter, perturbations, rescale
from tests.scenes import random_decoder, write_spheres


def test_noise_has_its_strength_and_repeats():
    planes = torch.zeros(3, 4, 32, 32)
    noisy = add_noise(planes, 0.05, 1, "x")
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.03)
    assert torch.equal(noisy, add_noise(planes, 0.05, 1, "x"))
    assert not torch.equal(noisy, add_noise(planes, 0.05, 2, "x"))


def test_rescaling_keeps_the_smooth_and_loses_the_fine():
    ramp = torch.linspace(-1, 1, 32).expand(3, 2, 32, 32)
    # Edges aside, where the filter sees one side only, a ramp passes.
    assert torch.allclose(rescale(ramp, 4)[..., 6:-6], ramp[..., 6:-6], atol=1e-5)
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    assert rescale(board.expand(3, 2, 32, 32), 4).abs().mean() < 0.05


def test_jitter_draws_each_step_and_passes_gradients():
    planes = torch.rand(3, 2, 16, 16, requires_grad=True)
    settings = JitterSettings(noise=0.1, rescale_fraction=0.5, rescale_factor=4)
    results = [jitter(planes, settings, 0, step) for step in range(200)]
    # Rescaled planes differ from their source by the fine parts of white noise, far above 0.1.
    far = [float((r - planes).detach().square().mean().sqrt()) for r in results]
    assert 70 < sum(x > 0.15 for x in far) < 130
    near = [x for x in far if x < 0.15]
    assert max(near) < 0.11 and sum(near) / len(near) == pytest.approx(0.05, abs=0.01)
    noise_only = next(r for r, x in zip(results, far, strict=True) if x < 0.15)
    noise_only.sum().backward()
    assert torch.equal(planes.grad, torch.ones_like(planes))
    assert not JitterSettings().active and settings.active


def test_8_bit_storage_is_a_small_error():
    planes = torch.rand(3, 4, 8, 8) * 2 - 1
    errors = {
        kind: float((change(planes) - planes).abs().max())
        for kind, change in perturbations("a", 0).items()
    }
    assert errors["fp16"] < 1e-3 < errors["uint8"] < 1 / 255 + 1e-6 < errors["noise 0.02"]


def test_a_fit_renders_jittered_planes(tmp_path):
    """The loss is the one of jittered planes; without jitter it is unchanged."""
    data = MultiViewSet(write_spheres(tmp_path / "set", subjects=1, views=4, size=12))
    rays = RayPool(data.load("subject_000"))
    tiny = {"rays": 64, "steps": 32, "grid": 8, "smoothness_weight": 0.0, "free_space_points": 16}

    def loss(noise: float) -> float:
        settings = FitSettings(**tiny, jitter=JitterSettings(noise=noise))
        planes = new_planes("subject_000", 0, 6, 8, 0.1)
        fit = SubjectFit("a", rays, planes, random_decoder(), settings, seed=0, total=10)
        return float(fit.loss(0).detach())

    assert loss(0.0) == loss(0.0) and loss(0.3) == loss(0.3)
    assert loss(0.0) != loss(0.3)

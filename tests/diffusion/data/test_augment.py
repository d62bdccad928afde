import math

import torch

from diffusion.data.augment import blur, degrade, gaussian_kernel, resample


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_blur_spreads_a_dot_by_its_sigmas() -> None:
    planes = torch.zeros(3, 2, 15, 15)
    planes[:, :, 7, 7] = 1
    out = blur(planes, gaussian_kernel(1.0, 0.5, 0.0))[0, 0]
    axis = torch.arange(15.0) - 7
    assert abs(float(out.sum()) - 1) < 1e-5
    across = float((out.sum(0) * axis**2).sum())
    down = float((out.sum(1) * axis**2).sum())
    # Variances of the truncated Gaussians: x is axis 1.
    assert abs(across - 1.0) < 0.05 and abs(down - 0.25) < 0.05
    turned = gaussian_kernel(1.0, 0.5, math.pi / 2)
    torch.testing.assert_close(turned, gaussian_kernel(0.5, 1.0, 0.0))
    assert torch.allclose(blur(torch.full((3, 1, 5, 5), 0.3), turned), torch.tensor(0.3))


def test_resampling_keeps_a_linear_field() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(3, 2, 16, 16)
    torch.testing.assert_close(resample(ramp, 9, False, "bilinear", "bilinear"), ramp)


def test_damage_is_repeatable_bounded_and_can_be_switched_off() -> None:
    planes = torch.rand(3, 4, 16, 16, generator=random()) * 2 - 1
    assert torch.equal(degrade(planes, random(1)), degrade(planes, random(1)))
    assert torch.equal(degrade(planes, random(1), probability=0.0), planes)
    results = [degrade(planes, random(seed), probability=1.0) for seed in range(8)]
    for result in results:
        assert result.shape == planes.shape and float(result.abs().max()) <= 1
        assert 0.05 < float((result - planes).abs().mean()) < 0.6
    assert not torch.equal(results[0], results[1])


def test_noise_has_the_stated_size() -> None:
    planes = torch.zeros(3, 8, 16, 16)
    spreads = [
        float(degrade(planes, random(seed), probability=1.0, max_blur=1e-3).std())
        for seed in range(64)
    ]
    # Uniform in 0..0.05; resampling after the noise only lowers it.
    assert 0.035 < max(spreads) < 0.055
    assert 0.01 < sum(spreads) / len(spreads) < 0.03

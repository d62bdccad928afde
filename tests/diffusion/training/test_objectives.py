import math

import pytest
import torch
from diffusers import DDPMScheduler

from diffusion.sampling.schedules import alphas_cumprod
from diffusion.training.objectives import DenoisingObjective

T = 50


def problem(batch: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    start = torch.rand(batch, 3, 4, 12, generator=random) * 2 - 1
    noise = torch.randn(start.shape, generator=random)
    return start, noise, torch.tensor([0, 7, 30, T - 1])[:batch]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_targets_agree_with_diffusers_and_invert(kind) -> None:
    alphas = alphas_cumprod("cosine_light", T)
    objective = DenoisingObjective(alphas, kind)
    start, noise, timesteps = problem()
    noisy = objective.noisy(start, noise, timesteps)
    betas = 1 - alphas / torch.cat([torch.ones(1, dtype=alphas.dtype), alphas[:-1]])
    scheduler = DDPMScheduler(T, trained_betas=betas.tolist(), prediction_type=kind)
    torch.testing.assert_close(noisy, scheduler.add_noise(start, noise, timesteps))
    target = objective.target(start, noise, timesteps)
    if kind == "v_prediction":
        torch.testing.assert_close(target, scheduler.get_velocity(start, noise, timesteps))
    # The last step holds no signal that epsilon could be turned into x_0 with.
    clear = timesteps < T - 1
    back = objective.predicted_start(target, noisy, timesteps)
    torch.testing.assert_close(back[clear], start[clear], atol=2e-4, rtol=1e-3)
    losses = objective.losses(target, start, noise, noisy, timesteps)
    assert float(losses["loss"].abs().max()) == 0


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "edm"])
def test_min_snr_weight_is_clipped_error_of_the_start(kind) -> None:
    """Weight × error of any target = min(SNR, γ) × error of x_0."""
    alphas = alphas_cumprod("cosine_light", T)
    start, noise, timesteps = problem()
    timesteps = torch.tensor([1, 7, 20, 40])
    objective = DenoisingObjective(alphas, kind, snr_gamma=5.0)
    noisy = objective.noisy(start, noise, timesteps)
    wrong = objective.target(start, noise, timesteps) + 0.01 * torch.randn(
        start.shape, generator=torch.Generator().manual_seed(2)
    )
    losses = objective.losses(wrong, start, noise, noisy, timesteps)["loss"]
    guess = objective.predicted_start(wrong, noisy, timesteps)
    error = (guess - start).square().flatten(1).mean(1)
    snr = alphas / (1 - alphas)
    expected = snr[timesteps].clamp(max=5.0).float() * error
    torch.testing.assert_close(losses, expected, rtol=2e-2, atol=1e-7)


@pytest.mark.parametrize("deviation", [0.5, 1.0])
def test_edm_is_karras_preconditioning(deviation) -> None:
    """Against table 1 of arXiv 2206.00364, in its own variables: y = x_0 + s ε."""
    alphas = alphas_cumprod("cosine_light", T)
    objective = DenoisingObjective(alphas, "edm", deviation=deviation)
    start, noise, timesteps = problem()
    timesteps = torch.tensor([0, 7, 20, 40])
    noisy = objective.noisy(start, noise, timesteps)
    bar = alphas[timesteps].view(-1, 1, 1, 1)
    s, y = ((1 - bar) / bar).sqrt(), start.double() + ((1 - bar) / bar).sqrt() * noise
    total = s**2 + deviation**2
    skip, out, into = deviation**2 / total, s * deviation / total.sqrt(), 1 / total.sqrt()
    seen = objective.network_input(noisy, timesteps)
    torch.testing.assert_close(seen.double(), into * y, rtol=1e-4, atol=1e-5)
    expected = (start - skip * y) / out
    target = objective.target(start, noise, timesteps)
    torch.testing.assert_close(target.double(), expected, rtol=1e-3, atol=1e-4)
    network = torch.randn(start.shape, generator=torch.Generator().manual_seed(5))
    denoised = objective.predicted_start(network, noisy, timesteps)
    torch.testing.assert_close(denoised.double(), skip * y + out * network, rtol=1e-4, atol=1e-5)
    if deviation == 1:  # unit data: velocity with the other sign
        velocity = DenoisingObjective(alphas, "v_prediction").target(start, noise, timesteps)
        torch.testing.assert_close(target, -velocity)


def test_edm_inputs_and_targets_have_unit_variance() -> None:
    alphas = alphas_cumprod("cosine_light", T)
    objective = DenoisingObjective(alphas, "edm", deviation=0.3)
    random = torch.Generator().manual_seed(0)
    start, noise = (torch.randn(T, 8, 16, 16, generator=random) for _ in range(2))
    start, timesteps = 0.3 * start, torch.arange(T)
    seen = objective.network_input(objective.noisy(start, noise, timesteps), timesteps)
    target = objective.target(start, noise, timesteps)
    for values in (seen, target):
        assert (values.flatten(1).std(dim=1) - 1).abs().max() < 0.06


def test_bound_equals_the_closed_form_of_torch_distributions() -> None:
    alphas = alphas_cumprod("cosine_light", T)
    objective = DenoisingObjective(alphas, "epsilon", learned_variance=True)
    start, noise, timesteps = problem()
    timesteps = torch.tensor([1, 7, 30, 45])
    noisy = objective.noisy(start, noise, timesteps)
    random = torch.Generator().manual_seed(3)
    prediction = noise + 0.1 * torch.randn(noise.shape, generator=random)
    place = torch.rand(noise.shape, generator=random) * 2 - 1
    found = objective.variational_bound(prediction, place, start, noisy, timesteps)

    bar = alphas[timesteps].view(-1, 1, 1, 1)
    before = alphas[timesteps - 1].view(-1, 1, 1, 1)
    step = bar / before
    # q(x_{t-1} | x_t, x_0) from the product of two Gaussians.
    precision = step / (1 - step) + 1 / (1 - before)

    def mean(x0: torch.Tensor) -> torch.Tensor:
        pull = step.sqrt() / (1 - step) * noisy.double() + before.sqrt() / (1 - before) * x0
        return pull / precision

    guess = (noisy.double() - (1 - bar).sqrt() * prediction) / bar.sqrt()
    share = (place.double() + 1) / 2
    log_variance = share * (1 - step).log() + (1 - share) * (1 / precision).log()
    q = torch.distributions.Normal(mean(start.double()), precision.rsqrt())
    p = torch.distributions.Normal(mean(guess.clamp(-1, 1)), (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(q, p).flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-4)


def test_bound_at_the_first_step_is_the_gaussian_density() -> None:
    alphas = alphas_cumprod("sigmoid", T)
    objective = DenoisingObjective(alphas, "sample", learned_variance=True)
    start, noise, _ = problem(1)
    zero = torch.zeros(1, dtype=torch.long)
    noisy = objective.noisy(start, noise, zero)
    found = objective.variational_bound(start + 0.01, torch.ones_like(start), start, noisy, zero)
    sigma = (1 - alphas[0]).sqrt().float()
    mean = (start + 0.01).clamp(-1, 1)
    density = torch.distributions.Normal(mean, sigma).log_prob(start)
    assert float(found) == pytest.approx(-float(density.mean()) / math.log(2), rel=1e-4)


def test_bound_leaves_the_mean_alone_and_is_scaled() -> None:
    objective = DenoisingObjective(alphas_cumprod("cosine_light", T), "epsilon", True)
    start, noise, timesteps = problem()
    noisy = objective.noisy(start, noise, timesteps)
    output = torch.cat([noise + 0.1, torch.zeros_like(noise)], dim=1).requires_grad_()
    losses = objective.losses(output, start, noise, noisy, timesteps)
    torch.testing.assert_close(losses["loss"], losses["mse"] + losses["vlb"] * T / 1000)
    (gradient,) = torch.autograd.grad(losses["vlb"].sum(), output, retain_graph=True)
    assert float(gradient[:, :3].abs().max()) == 0
    assert float(gradient[:, 3:].abs().max()) > 0
    with pytest.raises(ValueError, match="6 output channels"):
        objective.losses(output[:, :3], start, noise, noisy, timesteps)


def test_best_variance_lies_between_the_bounds() -> None:
    """With a wrong mean the bound falls when the variance grows from its lower end."""
    objective = DenoisingObjective(alphas_cumprod("cosine_light", T), "sample", True)
    start, noise, _ = problem(1)
    timestep = torch.tensor([10])
    noisy = objective.noisy(start, noise, timestep)

    def bound(guess: torch.Tensor, place: float) -> float:
        places = torch.full_like(start, place)
        return float(objective.variational_bound(guess, places, start, noisy, timestep))

    assert bound(start, -1.0) == pytest.approx(0, abs=1e-6)
    assert bound(start, -1.0) < bound(start, 1.0)
    far = -start.sign()
    assert bound(far, 1.0) < bound(far, -1.0)

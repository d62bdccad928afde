"""What a network's output stands for: noise, clean planes, velocity, or EDM's mixture.

Letters: x₀ clean values, ε noise, x = α x₀ + σ ε noisy values with α² + σ² = 1, d standard
deviation of the data. All functions work elementwise on tensors that broadcast.

EDM (Karras et al. 2022, arXiv 2206.00364, table 1) is written for y = x₀ + s ε, s = σ / α, as
D = c_skip y + c_out F(c_in y) with c_skip = d² / (s² + d²), c_out = s d / √(s² + d²) and
c_in = 1 / √(s² + d²). With V = σ² + α² d², the variance of x, that is

    input x / √V,   x₀ = (α d² / V) x + (σ d / √V) F

so that input and target F have unit variance at every noise level. With d = 1 it is −v
(v-prediction: Salimans & Ho 2022, arXiv 2202.00512).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

PredictionType = Literal["epsilon", "sample", "v_prediction", "edm"]


def _variance(alpha: Tensor, sigma: Tensor, deviation: float) -> Tensor:
    return sigma**2 + (alpha * deviation) ** 2


def network_input(
    kind: PredictionType, noisy: Tensor, alpha: Tensor, sigma: Tensor, deviation: float
) -> Tensor:
    """What the network sees of noisy values x."""
    if kind != "edm":
        return noisy
    return noisy / _variance(alpha, sigma, deviation).sqrt()


def target(
    kind: PredictionType,
    start: Tensor,
    noise: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    deviation: float,
) -> Tensor:
    """What the network should put out for x = α x₀ + σ ε."""
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return start
    if kind == "v_prediction":
        return alpha * noise - sigma * start
    # (x₀ − α d² x / V) √V / (σ d), with x written out so that nothing cancels where σ is small.
    root = _variance(alpha, sigma, deviation).sqrt()
    return (sigma * start - alpha * deviation**2 * noise) / (deviation * root)


def predicted_start(
    kind: PredictionType,
    prediction: Tensor,
    noisy: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    deviation: float,
) -> Tensor:
    """x₀ that a prediction at x stands for (not clamped)."""
    if kind == "sample":
        return prediction
    if kind == "v_prediction":
        return alpha * noisy - sigma * prediction
    if kind == "epsilon":
        return (noisy - sigma * prediction) / alpha.clamp(min=1e-8)
    variance = _variance(alpha, sigma, deviation)
    return (alpha * deviation**2 / variance) * noisy + (
        sigma * deviation / variance.sqrt()
    ) * prediction


def start_error(kind: PredictionType, alpha: Tensor, sigma: Tensor, deviation: float) -> Tensor:
    """Squared error of x₀ that a unit squared error of the prediction makes."""
    if kind == "sample":
        return alpha * 0 + 1
    if kind == "v_prediction":
        return sigma**2
    if kind == "epsilon":
        return sigma**2 / (alpha**2).clamp(min=1e-12)
    return (sigma * deviation) ** 2 / _variance(alpha, sigma, deviation)

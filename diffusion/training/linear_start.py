"""A linear start for the base model, learnt in closed form before training.

Letters: n portraits learnt from, D entries of a portrait's vector, K components, S shares.

Ridge regression of normalised planes on portraits. People are dealt into shares, and each share's
start comes from a regression that has not seen it: what a model learns to add is what the start
lacks of strangers, not of those it knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks.linear import LinearExpectation, portrait_vectors

SHARES = 8
"""Shares that people are dealt into."""
MOST = 2048
"""Portraits learnt from, at most."""
COMPONENTS = 512
"""Components of the planes, at most."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the ridge regression, as shares of the portraits' variance."""


def ridge_strength(seen: Tensor, wanted: Tensor) -> float:
    """Return the strength with the least leave-one-out error, times the portraits' variance.

    Args:
        seen: [n, D] portraits, centred.
        wanted: [n, K] what is regressed, centred.
    """
    gram = seen @ seen.T
    scale = float(gram.diagonal().mean())
    identity = torch.eye(len(seen), dtype=seen.dtype)

    def error(strength: float) -> float:
        inverse = torch.linalg.inv(gram + strength * scale * identity)
        # Leave-one-out residuals of a linear smoother, in closed form.
        residual = (inverse @ wanted) / inverse.diagonal()[:, None]
        return float(residual.square().mean())

    return scale * min(RIDGES, key=error)


def ridge_weight(seen: Tensor, wanted: Tensor, strength: float) -> Tensor:
    """Weights [D, K] of the ridge regression of `wanted` [n, K] on `seen` [n, D]."""
    gram = seen @ seen.T + strength * torch.eye(len(seen), dtype=seen.dtype)
    return seen.T @ torch.linalg.solve(gram, wanted)


class LinearStart:
    """The expectation that inference uses, and for training people that of the other shares.

    Args:
        names: [n] whom a portrait is of; a person may come several times.
        features: of each portrait, B = 1.
        values: normalised planes of each, rolled out [C, H, 3·H].

    Attributes:
        expectation: learnt from all.
        weights: [S + 1, D, K], learnt from all but a share; the last from all.
    """

    def __init__(
        self, names: Sequence[str], features: Sequence[PortraitFeatures], values: Sequence[Tensor]
    ) -> None:
        vectors = torch.cat([portrait_vectors(each) for each in features]).double()
        planes = torch.stack(list(values))
        centre = vectors.mean(dim=0)
        spread = vectors.std(dim=0).clamp(min=1e-4) if len(vectors) > 1 else torch.ones_like(centre)
        seen = (vectors - centre) / spread
        mean = planes.mean(dim=0)
        coefficients, basis = components((planes - mean).flatten(1))
        people = list(dict.fromkeys(names))
        self.shares = {name: index % SHARES for index, name in enumerate(people)}
        strength = ridge_strength(seen, coefficients)
        share = torch.tensor([self.shares[name] for name in names])
        weights = [
            ridge_weight(seen[share != left], coefficients[share != left], strength)
            if bool((share != left).any())
            else seen.new_zeros(seen.shape[1], coefficients.shape[1])
            for left in range(SHARES + 1)
        ]
        self.weights = torch.stack(weights).float()
        channels, size = mean.shape[0], mean.shape[1]
        self.expectation = LinearExpectation(channels, size, seen.shape[1], basis.shape[0])
        with torch.no_grad():
            self.expectation.centre.copy_(centre)
            self.expectation.scale.copy_(spread)
            self.expectation.weight.copy_(self.weights[-1])
            self.expectation.mean.copy_(mean)
            self.expectation.basis.copy_(basis.unflatten(1, mean.shape))

    def to(self, device: torch.device) -> LinearStart:
        """Move everything."""
        torch.nn.Module.to(self.expectation, device)
        self.weights = self.weights.to(device)
        return self

    def __call__(self, names: Sequence[str], features: PortraitFeatures) -> Tensor:
        """Values [B, C, H, 3·H] to expect of portraits, for training people as of strangers."""
        seen = self.expectation.seen(features)
        found = [
            row @ self.weights[self.shares.get(name, SHARES)]
            for name, row in zip(names, seen, strict=True)
        ]
        return self.expectation.values(torch.stack(found))


def components(values: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of centred values [n, E]: coefficients [n, K] double, basis [K, E]."""
    gram = (values @ values.T).double()
    variance, vectors = torch.linalg.eigh(gram)
    order = variance.argsort(descending=True)[:COMPONENTS]
    order = order[variance[order] > 1e-9 * variance.max().clamp(min=1e-30)]
    if not len(order):  # all are alike
        return values.new_zeros(len(values), 1).double(), torch.zeros_like(values[:1])
    scale = variance[order].sqrt()
    basis = (vectors[:, order] / scale).T.float() @ values
    return vectors[:, order] * scale, basis

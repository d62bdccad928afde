"""The Fréchet distance between two sets of features (FID, arXiv 1706.08500).

Letters: N pictures, D feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FeatureMoments:
    """Mean and covariance of features that come in parts; only sums are kept, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = torch.zeros(())
        self._products = torch.zeros(())

    def add(self, features: Tensor) -> None:
        """Add features [N, D]."""
        rows = features.detach().cpu().double()
        self.count += len(rows)
        self._sum = self._sum + rows.sum(dim=0)
        self._products = self._products + rows.T @ rows

    @property
    def mean(self) -> Tensor:
        """Return the mean [D], float64."""
        return self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """Return the unbiased covariance [D, D], float64; of two pictures or more."""
        if self.count < 2:
            raise ValueError(f"a covariance needs two pictures or more, got {self.count}")
        mean = self.mean
        return (self._products - self.count * torch.outer(mean, mean)) / (self.count - 1)


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """Return |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), the squared distance of two Gaussians.

    tr (Σ_a Σ_b)^½ is the sum of the square roots of the eigenvalues of S Σ_b S with S = Σ_a^½: a
    symmetric matrix, so that no complex root appears where few pictures leave Σ singular.

    Raises:
        ValueError: fewer than two pictures on one side.
    """
    first, second = a.covariance, b.covariance
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    middle = root @ second @ root
    crossed = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum()
    distance = distance + first.trace() + second.trace() - 2 * crossed
    return max(0.0, float(distance))

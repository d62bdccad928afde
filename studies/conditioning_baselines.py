"""Triplanes of strangers without a diffusion model, for the study of conditioning.

Letters: n training people, m held-out people, P planes, C channels, H plane size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.conditioning.feature_set import FeatureSet

BASELINES = ("mean", "nearest portrait", "linear in the portrait", "nearest triplane (oracle)")
SEEN_SIZE = 8
"""Side to which each feature map is shrunk."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the ridge regression, as shares of the portraits' variance."""


def portrait_vectors(features: FeatureSet, names: list[str]) -> Tensor:
    """One vector of a portrait's features, [n, D]: all maps at 8², channels of one spread."""
    rows = []
    for name in names:
        item = features.load(name)
        maps = [F.adaptive_avg_pool2d(m, SEEN_SIZE) for m in (item.latent, *item.levels)]
        rows.append(torch.cat([m.flatten() for m in maps]))
    return torch.stack(rows)


def ridge(seen: Tensor, planes: Tensor, asked: Tensor) -> Tensor:
    """Ridge regression of planes on portraits, its strength chosen by leave-one-out.

    Args:
        seen: [n, D] portraits of training people, centred.
        planes: [n, K] their triplanes, centred.
        asked: [m, D] portraits of others, with the same centre.

    Returns:
        [m, K].
    """
    gram, across = seen @ seen.T, asked @ seen.T
    scale = float(gram.diagonal().mean())
    best: tuple[float, Tensor] | None = None
    identity = torch.eye(len(seen), dtype=seen.dtype)
    for strength in RIDGES:
        inverse = torch.linalg.inv(gram + strength * scale * identity)
        # Leave-one-out residuals of a linear smoother, in closed form.
        residual = (inverse @ planes) / inverse.diagonal()[:, None]
        error = float(residual.square().mean())
        if best is None or error < best[0]:
            best = (error, across @ inverse @ planes)
    assert best is not None
    return best[1]


def baseline_planes(
    name: str,
    features: FeatureSet,
    train: list[str],
    training: Tensor,
    people: list[str],
    truth: Tensor,
) -> Tensor:
    """Triplanes [m, P, C, H, H] that a baseline gives people.

    Args:
        name: one of `BASELINES`; the oracle looks at the true triplanes.
        features: portraits.
        train, training: names and triplanes [n, P, C, H, H] of training people.
        people, truth: names and triplanes of those asked for.
    """
    mean = training.mean(dim=0, keepdim=True)
    if name == "mean":
        return mean.expand_as(truth)
    if name == "nearest triplane (oracle)":
        distance = torch.cdist(truth.flatten(1), training.flatten(1))
        return training[distance.argmin(dim=1)]
    seen, asked = portrait_vectors(features, train), portrait_vectors(features, people)
    centre, spread = seen.mean(dim=0), seen.std(dim=0).clamp(min=1e-4)
    seen, asked = (seen - centre) / spread, (asked - centre) / spread
    if name == "nearest portrait":
        return training[torch.cdist(asked, seen).argmin(dim=1)]
    found = ridge(seen.double(), (training - mean).flatten(1).double(), asked.double())
    return (mean + found.float().unflatten(1, mean.shape[1:])).clamp(-1, 1)

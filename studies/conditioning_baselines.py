"""Triplanes of strangers without a diffusion model, for the study of conditioning.

Letters: n training people, m held-out people, P planes, C channels, H plane size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.conditioning.features import PortraitFeatures
from diffusion.networks.linear import portrait_vectors
from diffusion.training.linear_start import LinearStart
from likeness.fit import fit_likeness
from likeness.learned.likeness_model import LikenessModel
from likeness.portrait.portrait import Portrait
from likeness.settings import LikenessSettings
from renderer.fitted_set import FittedSet
from renderer.triplane import rollout, unroll
from studies.likeness_methods import settings_of

LINEAR = "linear in the portrait"
BASELINES = ("mean", "nearest portrait", LINEAR, "nearest triplane (oracle)")
LINEAR_SMALL = "linear in the portrait, as small as the models"
"""The same, shrunk and resized: what a linear start gives by itself."""
LIKENESS = {
    "linear model fitted to the portrait": "linear",
    "likeness: regression": "regression",
}
"""Row → method of ``study likeness``, for a model of ``train-likeness``."""


def vectors_of(features: FeatureSet, names: Sequence[str]) -> Tensor:
    """One vector of each portrait's features, [n, D]."""
    return torch.cat([portrait_vectors(features.load(name)) for name in names])


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
    seen, asked = vectors_of(features, train), vectors_of(features, people)
    centre, spread = seen.mean(dim=0), seen.std(dim=0).clamp(min=1e-4)
    seen, asked = (seen - centre) / spread, (asked - centre) / spread
    if name == "nearest portrait":
        return training[torch.cdist(asked, seen).argmin(dim=1)]
    rolled = rollout(training)
    start = LinearStart(train, [features.load(each) for each in train], list(rolled))
    given = PortraitFeatures.stack([features.load(each) for each in people])
    return unroll(start.expectation(given)).clamp(-1, 1)


def likeness_planes(
    method: str, folder: Path, fitted: FittedSet, views: MultiViewSet, names: Sequence[str]
) -> Tensor:
    """Triplanes [m, P, C, H, H] that a model of ``train-likeness`` finds of frontal portraits.

    Args:
        method: one of ``study likeness``.
        folder: the model's.
    """
    decoder = fitted.decoder()
    model = LikenessModel.load(folder, str(fitted.manifest["decoder_hash"]))
    settings = settings_of(method, LikenessSettings())
    portraits = [Portrait.of(views.portrait(name), model.camera) for name in names]
    return torch.stack([fit_likeness(each, model, decoder, settings)[0] for each in portraits])

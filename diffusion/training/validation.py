"""Validation on people that a diffusion model has never seen, while it trains.

Letters: B batch, P planes, C channels, H plane size, n training people.

Noise, timesteps and seeds are fixed, so that two validations differ by the model alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captures.cameras import Cameras, orbit_cameras
from captures.multiview import MultiViewSet
from diffusion.data.pairs import DenoisingBatch
from renderer.decoder import TriplaneDecoder
from renderer.metrics import psnr
from renderer.render import RenderSettings, build_occupancy, render_image
from renderer.triplane import resize_planes
from runtime.config import setting
from runtime.described import Count, Described, read_described
from runtime.files import replace_folder, write_json

COMPARED_SIZE = 16
"""Plane size at which samples are compared with all training people."""
MOST_COMPARED = 2048
"""Training people that samples are compared with, at most."""
QUARTILES = 4
BATCH = 4
"""Problems at once."""


@dataclass
class ValidationConfig:
    """Settings of validation during training."""

    every: int = setting(0, at_least=0)
    """Steps between two validations; 0 does none."""
    people: int = setting(16, at_least=1, at_most=10**6)
    """Validation identities looked at, at most."""
    draws: int = setting(8, at_least=1, at_most=10**4)
    """Noise levels for each of them, spread evenly over the timesteps."""
    views: int = setting(4, at_least=0, at_most=1000)
    """Views of each rendered from its sample and compared; 0 renders none."""
    pixels: int = setting(96, at_least=8, at_most=4096)
    """Side of a rendered view in pixels."""
    patience: int = setting(0, at_least=0)
    """Validations without a better one after which training stops; 0 never stops early."""


def quartile_means(values: Tensor, timesteps: Tensor, num_timesteps: int) -> dict[str, float]:
    """Mean of per-sample losses [N] in each quarter of the timesteps, clean ones first."""
    quarter = (timesteps * QUARTILES // num_timesteps).clamp(max=QUARTILES - 1)
    means = {"validation_loss": float(values.mean())}
    for index in range(QUARTILES):
        chosen = values[quarter == index]
        if len(chosen):
            means[f"validation_loss_q{index + 1}"] = float(chosen.mean())
    return means


def fixed_losses(
    problems: Sequence[DenoisingBatch], losses: Callable[[Any], Tensor]
) -> tuple[Tensor, Tensor]:
    """Losses [N] and timesteps [N] of N problems, a few at a time."""
    found, timesteps = [], []
    for first in range(0, len(problems), BATCH):
        part = list(problems[first : first + BATCH])
        batch = type(part[0]).join(part)
        found.append(losses(batch).cpu())
        timesteps.append(batch.timesteps)
    return torch.cat(found), torch.cat(timesteps)


class PlaneComparison:
    """Compares sampled triplanes with true ones and with all training people's.

    Args:
        training: triplanes [P, C, H, H] of training people; their mean is the yardstick.
    """

    def __init__(self, training: Iterable[Tensor]) -> None:
        small = [resize_planes(planes[None], COMPARED_SIZE) for planes in training]
        self.training = torch.cat(small).flatten(1)  # [n, P·C·16·16]
        self.mean = self.training.mean(dim=0)

    def __call__(self, samples: Tensor, truth: Tensor) -> dict[str, float]:
        """Measure samples of held-out people, both [B, P, C, H, H].

        Returns:
            plane_error: root mean square error, as a share of what the training people's mean
                triplane leaves (below 1 beats that mean).
            spread: standard deviation between the samples of different people, as a share of that
                between the people (1 keeps it; less is washed out).
            copy_ratio: distance of a sample to its nearest training person, as a share of the true
                triplane's (near 0 is a copy).
        """
        both = (resize_planes(each.cpu(), COMPARED_SIZE) for each in (samples, truth))
        drawn, true = (each.flatten(1) for each in both)
        error = (drawn - true).square().mean().sqrt() / (true - self.mean).square().mean().sqrt()
        values = {"plane_error": float(error)}
        if len(self.training) > 1:
            nearest = [torch.cdist(each, self.training).amin(dim=1) for each in (drawn, true)]
            values["copy_ratio"] = float((nearest[0] / nearest[1].clamp(min=1e-6)).mean())
        if len(drawn) > 1:
            values["spread"] = float(drawn.std(dim=0).norm() / true.std(dim=0).norm())
        return values


class HeldOutViews:
    """Pictures that samples of held-out people are compared with.

    Args:
        views: multi-view set; without one, renderings of the true triplanes stand in.
        decoder: of the fitted set, on the CPU.
        count: views of each person.
        pixels: side of a view.
    """

    def __init__(
        self, views: MultiViewSet | None, decoder: TriplaneDecoder, count: int, pixels: int
    ) -> None:
        self.views, self.decoder, self.count, self.pixels = views, decoder, count, pixels
        self.settings = RenderSettings(steps=max(64, 2 * pixels), grid=64)
        self._known: dict[str, tuple[Cameras, Tensor]] = {}

    def render(self, planes: Tensor, cameras: Cameras) -> Tensor:
        """[P, C, H, H] → pictures on white [N, S, S, 3] in 0..1."""
        planes = planes.float().cpu()
        grid = build_occupancy(planes, self.decoder, self.settings)
        shown = (
            render_image(planes, self.decoder, cameras[i], 1.0, self.settings, grid).color
            for i in range(len(cameras))
        )
        return torch.stack([image.clamp(0, 1) for image in shown])

    def of(self, name: str, truth: Tensor) -> tuple[Cameras, Tensor]:
        """Cameras and pictures [N, S, S, 3] of a person: held-out views where the set has them."""
        if name not in self._known:
            if self.views is None:
                cameras = orbit_cameras(self.count, size=self.pixels)
                self._known[name] = cameras, self.render(truth, cameras)
            else:
                frames = self.views.split_views("test", name) or self.views.frames(name)
                step = max(1, len(frames) // self.count)
                shown = self.views.load(name, frames[::step][: self.count], self.pixels)
                self._known[name] = shown.cameras, shown.composited(1.0)
        return self._known[name]

    def psnr(self, name: str, sample: Tensor, truth: Tensor) -> float:
        """PSNR in dB of a sample's renderings, mean over the views."""
        cameras, pictures = self.of(name, truth)
        rendered = self.render(sample, cameras)
        scores = [float(psnr(a, b)) for a, b in zip(rendered, pictures, strict=True)]
        return sum(scores) / len(scores)


def some_of(names: Sequence[str]) -> Sequence[str]:
    """At most `MOST_COMPARED` of the training people, spread over all of them."""
    return names[:: -(-len(names) // MOST_COMPARED)]


def sample_measures(
    people: Sequence[str],
    samples: Tensor,
    truth: Tensor,
    compare: PlaneComparison,
    views: HeldOutViews | None,
) -> dict[str, float]:
    """Measures of samples of people against their true triplanes, both [B, P, C, H, H]."""
    measures = compare(samples, truth)
    if views is not None:
        scores = [views.psnr(*each) for each in zip(people, samples, truth, strict=True)]
        measures["psnr"] = sum(scores) / len(scores)
    return {f"validation_{key}": value for key, value in measures.items()}


@dataclass
class Validator:
    """Measures one model; what a stage gives the training loop.

    Attributes:
        config: how often and how much.
        losses: the loss at fixed noise and timesteps, by quartile of the timesteps.
        samples: measures of samples of validation people.
        best_by: which of the measures decides the best snapshot; lower is better.
    """

    config: ValidationConfig
    losses: Callable[[], dict[str, float]]
    samples: Callable[[], dict[str, float]]
    best_by: str


class Measures(Described):
    """``validation.json``: measures of a snapshot by name, and its step."""

    __pydantic_extra__: dict[str, float]
    step: Count


def best_so_far(folder: Path) -> dict[str, Any] | None:
    """Measures and step of the best snapshot's folder; None before the first validation.

    Raises:
        UserError: the file says something else.
    """
    path = folder / "validation.json"
    return read_described(Measures, path).model_dump() if path.exists() else None


def keep_best(
    folder: Path,
    values: dict[str, float],
    best_by: str,
    step: int,
    save_model: Callable[[Path], None],
) -> None:
    """Save the model with its measures if it is better than the one in the folder."""
    best = best_so_far(folder)
    if best is not None and values[best_by] >= best.get(best_by, math.inf):
        return

    def write(fresh: Path) -> None:
        save_model(fresh)
        write_json(fresh / "validation.json", values | {"step": step})

    replace_folder(folder, write)


def out_of_patience(config: ValidationConfig, best: dict[str, Any] | None, step: int) -> bool:
    """Return whether training has gone on for too long since its best validation."""
    if not config.every or not config.patience or best is None:
        return False
    return step - int(best["step"]) >= config.patience * config.every

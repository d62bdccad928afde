"""A capture of unknown size and place, brought to where the model expects heads.

Legend: M pictures, V side in pixels of the pictures compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from captures.cameras import Cameras
from likeness.learned.likeness_model import LikenessModel
from likeness.portrait.placement import find_placement, placed
from likeness.portrait.portrait import Portrait
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_images

SIZE = 32
VIEWS = 6
STEPS = 6
DEVIATIONS = (0.2, 0.15, 0.15, 0.15)
"""Of the logarithm of the size, and of the shift in world units."""
NOISE = 0.25
"""Deviation of a compared pixel; large, for neighbours err alike."""


def placed_in_world(camera: Cameras, similarity: Tensor) -> Cameras:
    """Return one camera after the scene was scaled about the origin, then shifted.

    Args:
        similarity: [4], logarithm of the scale, and the shift in world units.
    """
    pose = camera.c2w.clone()
    pose[:, :3, 3] = pose[:, :3, 3] * similarity[0].exp() + similarity[1:]
    return replace(camera, c2w=pose)


def align(
    portraits: Sequence[Portrait], model: LikenessModel, decoder: TriplaneDecoder
) -> list[Portrait]:
    """Return the pictures with cameras under which the person stands where people stand.

    The first guess is where the first picture, one from the front, is most usual; Gauss-Newton
    steps then make the silhouettes and colours of some pictures agree with the person that
    regression expects.
    """
    start, planes = _first_guess(portraits[0], model)
    chosen = torch.linspace(0, len(portraits) - 1, min(VIEWS, len(portraits))).round().int()
    seen = [portraits[i].resized(SIZE) for i in chosen.unique().tolist()]
    found = _refined(start, seen, planes, decoder)
    return [one.seen_from(placed_in_world(one.camera, found)) for one in portraits]


def _first_guess(front: Portrait, model: LikenessModel) -> tuple[Tensor, Tensor]:
    """A similarity [4] and planes [3, C, H, W] of the person expected."""
    usual = model.camera
    as_usual = front.seen_from(usual.scaled_to(front.size, front.size))
    scale, right, down = find_placement(as_usual, model.regression)
    expected = model.guess(placed(as_usual, scale, right, down))
    wanted, given = _width(usual), _width(front.camera)
    log_scale = torch.tensor(scale * wanted / given).log()
    pose = front.camera.c2w[0]
    shift = wanted * (right * pose[:3, 0] + down * pose[:3, 1])
    # The picture's middle may show another point than the origin.
    ahead = pose[:3, 3] + pose[:3, 2] * pose[:3, 3].norm()
    shift = shift - log_scale.exp() * (ahead - (ahead @ pose[:3, 2]) * pose[:3, 2])
    return torch.cat([log_scale[None], shift]), model.prior.planes(expected).clamp(-1, 1)


def _width(camera: Cameras) -> float:
    """What a camera's picture shows from side to side at the origin's distance."""
    return float(camera.width / camera.fx[0] * camera.c2w[0, :3, 3].norm())


def _refined(
    start: Tensor, seen: list[Portrait], planes: Tensor, decoder: TriplaneDecoder
) -> Tensor:
    march = RenderSettings(steps=96, grid=64)
    grid = build_occupancy(planes, decoder, march)
    target = torch.cat([_values(one.color, one.alpha) for one in seen])
    deviations = torch.tensor(DEVIATIONS)

    def look(at: Tensor) -> Tensor:
        pictures = []
        for one in seen:
            camera = placed_in_world(one.camera, at)
            shown = render_images(planes, decoder, camera, 1.0, march, grid)
            pictures.append(_values(shown.color[0], shown.opacity[0]))
        return torch.cat(pictures)

    def energy(rest: Tensor, at: Tensor) -> float:
        away = (at - start) / deviations
        return float(rest.square().sum() / NOISE**2 + away.square().sum())

    found, now = start, look(start)
    error = energy(target - now, found)
    for _ in range(STEPS):
        trials = torch.diag(deviations * 0.15)
        slopes = torch.stack([(look(found + trial) - now) / 0.15 for trial in trials], dim=1)
        left = slopes.T @ slopes / NOISE**2 + torch.eye(len(start))
        right = slopes.T @ (target - now) / NOISE**2 - (found - start) / deviations
        trial = found + torch.linalg.solve(left, right) * deviations
        shown = look(trial)
        if energy(target - shown, trial) >= error:
            break
        found, now, error = trial, shown, energy(target - shown, trial)
    return found


def _values(color: Tensor, opacity: Tensor) -> Tensor:
    """Colour [V, V, 3] and opacity [V, V] in one row."""
    return torch.cat([color, opacity[..., None]], dim=-1).flatten()

"""The light of a portrait: low-order shading that tells it from an evenly lit rendering.

Legend: S side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from likeness.portrait.portrait import Portrait
from likeness.portrait.surface import normals
from likeness.settings import LightSettings
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_images


def find_light(
    portrait: Portrait, planes: Tensor, decoder: TriplaneDecoder, settings: LightSettings
) -> Tensor:
    """Return the light [3, 4]: relative change of each colour by 1, nx, ny, nz (world axes)."""
    small = portrait.resized(settings.size)
    rendered, basis = _look(small, planes, decoder)
    solid = (rendered.opacity[0] > 0.9) & (small.alpha > 0.9)
    basis = basis[solid]
    weight = torch.tensor([settings.level] + [settings.direction] * 3)
    light = []
    for c in range(3):
        before = rendered.color[0][..., c][solid]
        columns = before[:, None] * basis * weight
        left = columns.T @ columns / settings.noise**2 + torch.eye(4)
        right = columns.T @ (small.color[..., c][solid] - before) / settings.noise**2
        light.append(torch.linalg.solve(left, right) * weight)
    return torch.stack(light)


def evenly_lit(
    portrait: Portrait, light: Tensor, planes: Tensor, decoder: TriplaneDecoder
) -> Portrait:
    """Return the portrait as it would be without its light, on the avatar's own surface."""
    rendered, basis = _look(portrait, planes, decoder)
    shading = (1 + basis @ light.T).clamp(0.5, 2)
    cover = (rendered.opacity[0] * portrait.alpha)[..., None]
    color = portrait.color * (1 - cover) + cover * (portrait.color / shading).clamp(0, 1)
    return Portrait(color, portrait.alpha, portrait.camera)


def _look(portrait: Portrait, planes: Tensor, decoder: TriplaneDecoder):
    """Return what the portrait's camera sees, and 1, nx, ny, nz of its surface [S, S, 4]."""
    march = RenderSettings(steps=128, grid=64)
    grid = build_occupancy(planes, decoder, march)
    rendered = render_images(planes, decoder, portrait.camera, 1.0, march, grid)
    normal = normals(portrait.camera, rendered.depth[0])
    return rendered, torch.cat([torch.ones_like(normal[..., :1]), normal], dim=-1)

"""The cameras of pictures taken from anywhere in front of a person.

Legend: V side in pixels of the pictures compared, D freedoms of a camera.

Near the truth Gauss-Newton steps find a camera (:mod:`likeness.portrait.portrait_camera`); here a
head may be turned by any angle and stand elsewhere in its picture. So turns are tried one by one,
each with the size and the shift under which the silhouettes and colours agree best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from likeness.portrait.portrait import Portrait
from likeness.portrait.portrait_camera import FREEDOMS, find_camera, moved
from likeness.settings import CameraSettings
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_images

WIDE = CameraSettings(
    iterations=8, yaw=45, pitch=15, roll=6, right=0.15, down=0.1, scale=0.15, dolly=0.05
)
"""What a camera may be like whose head is turned."""
COARSE = 32
"""V while turns are tried."""
SCALES = (0.8, 0.9, 1.0, 1.12, 1.25)
TURNED = 0.14
"""Radians, 8°, from which a head counts as turned."""
BETTER = 0.8
"""Of the error without a turn, that a turn must leave at most to be believed."""
REFINED = 3
"""Turns of which the camera is refined."""


@dataclass(frozen=True)
class Found:
    """A camera that was found.

    Attributes:
        freedoms: [D] that move the usual camera there, see :data:`FREEDOMS`.
        error: mean squared difference of colours and opacity that is left.
    """

    freedoms: Tensor
    error: float


def find_pose(
    portrait: Portrait,
    planes: Tensor,
    decoder: TriplaneDecoder,
    turns: tuple[float, ...],
    tilts: tuple[float, ...] = (-12, 8),
) -> Found:
    """Return the camera under which planes [3, C, H, W] look most like a portrait.

    Args:
        portrait: its camera is the usual one, from which the freedoms count.
        turns: of the head, in degrees about the vertical, that are tried.
        tilts: degrees upwards that are tried.
    """
    small = portrait.resized(COARSE)
    march = RenderSettings(steps=96, grid=64)
    grid = build_occupancy(planes, decoder, march)
    starts = []
    for yaw in turns:
        for pitch in tilts:
            freedoms = torch.zeros(len(FREEDOMS))
            freedoms[:2] = torch.tensor([yaw, pitch]).deg2rad()
            camera = moved(small.camera, freedoms)
            seen = render_images(planes, decoder, camera, 1.0, march, grid)
            rendered = torch.cat([seen.color[0], seen.opacity[0][..., None]], dim=-1)
            starts += [(error, freedoms + step) for error, step in _placements(small, rendered)]
    starts.sort(key=lambda start: start[0])
    found = []
    for _, freedoms in _apart(starts)[:REFINED]:
        settings = replace(WIDE, size=COARSE)
        freedoms = find_camera(portrait, portrait.camera, freedoms, planes, decoder, settings)
        found.append(Found(freedoms, picture_difference(portrait, planes, decoder, freedoms)))
    return min(found, key=lambda one: one.error)


def find_turn(portrait: Portrait, planes: Tensor, decoder: TriplaneDecoder) -> Tensor:
    """Return the freedoms [D] of a portrait whose head is turned, zeros where it is not.

    Args:
        portrait: its camera is the usual one.
        planes: [3, C, H, W] of the person expected from it.
    """
    straight = torch.zeros(len(FREEDOMS))
    found = find_pose(portrait, planes, decoder, (-45, -30, -15, 0, 15, 30, 45))
    before = picture_difference(portrait, planes, decoder, straight)
    turned = found.freedoms[0].abs() > TURNED and found.error < BETTER * before
    return found.freedoms if turned else straight


def picture_difference(
    portrait: Portrait, planes: Tensor, decoder: TriplaneDecoder, freedoms: Tensor, size: int = 48
) -> float:
    """Mean squared difference of colour and opacity between a portrait and planes."""
    small = portrait.resized(size)
    march = RenderSettings(steps=128, grid=64)
    seen = render_images(planes, decoder, moved(small.camera, freedoms), 1.0, march)
    color = (seen.color[0] - small.color).square().mean()
    return float((color + (seen.opacity[0] - small.alpha).square().mean()) / 2)


def _placements(small: Portrait, rendered: Tensor) -> list[tuple[float, Tensor]]:
    """(error, freedoms) of every size tried, each at its best shift."""
    target = torch.cat([small.color, small.alpha[..., None]], dim=-1)
    background = torch.tensor([1.0, 1, 1, 0])
    found = []
    for scale in SCALES:
        error, right, down = _best_shift(target - background, _zoomed(rendered - background, scale))
        step = torch.zeros(len(FREEDOMS))
        step[3], step[4] = right, down
        step[5] = torch.tensor(scale).log()
        found.append((error, step))
    return found


def _zoomed(picture: Tensor, scale: float) -> Tensor:
    """A picture [V, V, 4] enlarged about its middle, 0 outside."""
    matrix = torch.tensor([[[1 / scale, 0.0, 0.0], [0.0, 1 / scale, 0.0]]])
    grid = F.affine_grid(matrix, [1, 4, *picture.shape[:2]], align_corners=False)
    return F.grid_sample(picture.permute(2, 0, 1)[None], grid, align_corners=False)[0].permute(
        1, 2, 0
    )


def _best_shift(target: Tensor, moving: Tensor) -> tuple[float, float, float]:
    """Error, and shift right and down in sides, at which ``moving`` [V, V, 4] fits best."""
    size = len(target)
    # All shifts at once: their products are a correlation.
    padded = [torch.fft.rfft2(p.permute(2, 0, 1), s=(2 * size, 2 * size)) for p in (target, moving)]
    products = torch.fft.irfft2((padded[0] * padded[1].conj()).sum(0), s=(2 * size, 2 * size))
    shifts = torch.arange(2 * size)
    shifts = torch.where(shifts < size, shifts, shifts - 2 * size)
    allowed = shifts.abs() <= size // 3
    products = torch.where(allowed[:, None] & allowed[None], products, -torch.inf)
    best = int(products.argmax())
    down, right = shifts[best // (2 * size)], shifts[best % (2 * size)]
    error = target.square().sum() + moving.square().sum() - 2 * products.max()
    return float(error / target.numel()), float(right) / size, float(down) / size


def _apart(starts: list[tuple[float, Tensor]]) -> list[tuple[float, Tensor]]:
    """The best start of every turn."""
    kept: list[tuple[float, Tensor]] = []
    for error, freedoms in starts:
        if all((freedoms[0] - other[0]).abs() > 0.1 for _, other in kept):
            kept.append((error, freedoms))
    return kept

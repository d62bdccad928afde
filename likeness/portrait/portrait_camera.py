"""The camera of a portrait, estimated from the picture.

Legend: D = 7 freedoms of a camera, S side in pixels.

A damped Gauss-Newton step per picture: each freedom is tried by a small rendering of its own, and
the combination that explains best what portrait and rendering differ by is taken, as far as
its deviations make it likely.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from captures.cameras import Cameras
from likeness.portrait.portrait import Portrait
from likeness.settings import CameraSettings
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, build_occupancy, render_images

FREEDOMS = ("yaw", "pitch", "roll", "right", "down", "scale", "dolly")


def moved(camera: Cameras, freedoms: Tensor) -> Cameras:
    """Move one camera; zeros leave it as it is.

    Args:
        freedoms: [D], see :class:`CameraSettings`; angles in radians. Turns are about the world's
            origin, dolly moves along the line of sight and keeps the size of what is at it.
    """
    yaw, pitch, roll, right, down, scale, dolly = (float(v) for v in freedoms)
    turn = torch.eye(4)
    turn[:3, :3] = _rotation(1, yaw) @ _rotation(0, pitch)
    pose = turn @ camera.c2w[0]
    spin = torch.eye(4)
    spin[:3, :3] = _rotation(2, roll)
    pose = pose @ spin
    distance = float(pose[:3, 3].norm())
    pose = pose.clone()
    pose[:3, 3] -= pose[:3, 2] * distance * (math.exp(dolly) - 1)
    zoom = math.exp(scale + dolly)
    return replace(
        camera,
        c2w=pose[None],
        fx=camera.fx * zoom,
        fy=camera.fy * zoom,
        cx=camera.cx + right * camera.width,
        cy=camera.cy + down * camera.height,
    )


def _rotation(axis: int, angle: float) -> Tensor:
    matrix = torch.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix


def find_camera(
    portrait: Portrait,
    usual: Cameras,
    freedoms: Tensor,
    planes: Tensor,
    decoder: TriplaneDecoder,
    settings: CameraSettings,
) -> Tensor:
    """Return the freedoms [D] of the camera under which planes look most like the portrait.

    Args:
        usual: the camera that ``freedoms`` move, of the portrait's size.
        freedoms: [D], the start.
        planes: [3, C, H, W].
    """
    small = portrait.resized(settings.size)
    base = usual.scaled_to(settings.size, settings.size)
    march = RenderSettings(steps=128, grid=64)
    grid = build_occupancy(planes, decoder, march)
    target = torch.cat([small.color, small.alpha[..., None]], dim=-1)
    deviations = settings.deviations()

    def look(at: Tensor) -> Tensor:
        seen = render_images(planes, decoder, moved(base, at), 1.0, march, grid)
        return torch.cat([seen.color[0], seen.opacity[0][..., None]], dim=-1).flatten()

    seen = look(freedoms)
    error = _energy(target.flatten() - seen, freedoms, deviations, settings.noise)
    for _ in range(settings.iterations):
        trials = torch.eye(len(freedoms)) * deviations * 0.2
        slopes = torch.stack([(look(freedoms + t) - seen) / 0.2 for t in trials], dim=1)
        # In units of the deviations the prior is the identity.
        left = slopes.T @ slopes / settings.noise**2 + torch.eye(len(freedoms))
        rest = target.flatten() - seen
        right = slopes.T @ rest / settings.noise**2 - freedoms / deviations
        step = torch.linalg.solve(left, right) * deviations
        better = look(freedoms + step)
        energy = _energy(target.flatten() - better, freedoms + step, deviations, settings.noise)
        if energy >= error:
            break
        freedoms, seen, error = freedoms + step, better, energy
    return freedoms


def _energy(rest: Tensor, freedoms: Tensor, deviations: Tensor, noise: float) -> float:
    """Negative logarithm of the posterior, up to a constant."""
    return float(rest.square().sum() / noise**2 + (freedoms / deviations).square().sum())

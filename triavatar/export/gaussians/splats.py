"""An avatar as 3D Gaussians: placed where rays end, then tuned to pictures of it.

Legend: N Gaussians, V views, H W picture size in pixels, K points.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captures.cameras import Cameras
from runtime.errors import UserError
from triavatar.export.bake import Views
from triavatar.export.field import Field
from triavatar.export.gaussians import kernels

FLATNESS = 0.35
"""Thickness of a new Gaussian over its width."""
FULL = 1 << 21  # a voxel's index along one axis stays below


@dataclass(frozen=True)
class Splats:
    """N Gaussians.

    Attributes:
        positions: centres in our world, [N, 3] float32.
        rotations: [N, 3, 3] float32; the columns are the principal axes, the third along the
            surface's normal.
        scales: standard deviation along each axis in world units, [N, 3] float32.
        opacity: at the centre, [N] float32 in (0, 1).
        color: sRGB, [N, 3] float32 in [0, 1], the same from all sides.
    """

    positions: np.ndarray
    rotations: np.ndarray
    scales: np.ndarray
    opacity: np.ndarray
    color: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)


def place_splats(field: Field, views: Views, count: int) -> Splats:
    """Flat Gaussians where the rays of the pictures end, evenly over what they see.

    Args:
        views: pictures of the field.
        count: N, at most.

    Raises:
        UserError: hardly a ray of the pictures ends.
    """
    points, colors = _ray_ends(views)
    density = field.density(torch.from_numpy(points).to(field.planes)).cpu().numpy()
    # The mean depth of a ray that grazes one part and ends on another lies in empty space.
    solid = density > 0.25 * np.median(density) if len(points) else density > 0
    points, colors = points[solid], colors[solid]
    if len(points) < 100:
        raise UserError("the avatar has no surface; fit or generate it again.")
    chosen, spacing = _thin_out(points, count)
    positions = torch.from_numpy(points[chosen]).to(field.planes)
    normals = field.normals(positions, width=0.02).cpu().numpy()
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 0.0, 1.0)
    width = np.float32(0.7 * spacing)
    return Splats(
        points[chosen],
        _frames(normals),
        np.tile(np.float32([width, width, FLATNESS * width]), (len(chosen), 1)),
        np.full(len(chosen), 0.8, np.float32),
        colors[chosen],
    )


def _ray_ends(views: Views) -> tuple[np.ndarray, np.ndarray]:
    """Points [K, 3] where mostly stopped rays end, and their colours [K, 3]."""
    points, colors = [], []
    for view in range(len(views)):
        origins, directions = views.cameras.image_rays(view)
        solid = views.opacity[view].reshape(-1) > 0.4
        depth = views.depth[view].reshape(-1, 1)
        points.append((origins.numpy() + depth * directions.numpy())[solid])
        straight = views.color[view].reshape(-1, 3) / np.maximum(
            views.opacity[view].reshape(-1, 1), 1e-3
        )
        colors.append(straight[solid].clip(0, 1))
    return np.concatenate(points).astype(np.float32), np.concatenate(colors).astype(np.float32)


def _thin_out(points: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """One point of every voxel; the voxels are as small as ``count`` allows. (indices, size)."""
    low, high = 1e-4, 0.5
    chosen = np.arange(min(len(points), count))
    for _ in range(14):
        size = (low * high) ** 0.5
        cell = ((points + 2) / size).astype(np.int64)
        _, first = np.unique(
            (cell[:, 0] * FULL + cell[:, 1]) * FULL + cell[:, 2], return_index=True
        )
        if len(first) > count:
            low = size
        else:
            high, chosen = size, np.sort(first)
    return chosen, high


def _frames(normals: np.ndarray) -> np.ndarray:
    """Rotations [N, 3, 3] whose third column is the normal [N, 3]."""
    helper = np.where(np.abs(normals[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(helper, normals)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normals, first)
    return np.stack([first, second, normals], axis=2).astype(np.float32)


def _lens(cameras: Cameras, view: int):
    c2w = cameras.c2w[view].double().numpy()
    return c2w, *(float(getattr(cameras, k)[view]) for k in ("fx", "fy", "cx", "cy"))


def _order(centre: np.ndarray) -> np.ndarray:
    return np.argsort(centre[:, 2], kind="stable")


def draw_splats(splats: Splats, cameras: Cameras, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour composited on black [H, W, 3], and opacity [H, W]."""
    axes = splats.rotations * splats.scales[:, None]
    centre, covariance, _ = kernels.project(splats.positions, axes, *_lens(cameras, view))
    picture = np.zeros((cameras.height, cameras.width, 3), np.float32)
    through = np.ones(picture.shape[:2], np.float32)
    given = (_order(centre), centre, covariance, splats.opacity, splats.color)
    kernels.paint(*given, picture, through)
    return picture, 1 - through


@dataclass
class _Gradients:
    """A view's loss and its gradients, in the shapes of the parameters."""

    loss: float
    positions: np.ndarray
    scales: np.ndarray
    opacity: np.ndarray
    color: np.ndarray


def view_gradients(splats: Splats, views: Views, view: int) -> _Gradients:
    """Mean squared error of colours on black and of opacity in one view.

    Returns:
        The loss, and its gradients to positions, logarithms of the scales, opacity and colour.
    """
    axes = splats.rotations * splats.scales[:, None]
    c2w, fx, fy, cx, cy = _lens(views.cameras, view)
    centre, covariance, drawn = kernels.project(splats.positions, axes, c2w, fx, fy, cx, cy)
    picture = np.zeros(views.color[view].shape, np.float32)
    through = np.ones(picture.shape[:2], np.float32)
    given = (_order(centre), centre, covariance, splats.opacity, splats.color)
    kernels.paint(*given, picture, through)
    error = picture - views.color[view]
    missed = (1 - through) - views.opacity[view]
    gradients = np.zeros((len(splats), 9), np.float32)
    share = np.float32(2 / through.size)
    kernels.trace_back(*given, picture, through, share * error, -share * missed, gradients)
    d_positions, d_scales = np.zeros_like(splats.positions), np.zeros_like(splats.scales)
    kernels.unproject(gradients, splats.positions, drawn, c2w, fx, fy, d_positions, d_scales)
    loss = float((np.square(error).sum() + np.square(missed).sum()) / through.size)
    return _Gradients(loss, d_positions, d_scales, gradients[:, 5], gradients[:, 6:])


def tune(
    splats: Splats, views: Views, steps: int, tell: Callable[[float], None] = lambda loss: None
) -> Splats:
    """Adam on positions, scales, opacity and colour; rotations stay.

    Args:
        views: what the Gaussians shall look like; at least two.
        steps: each takes the next two views of a fixed, shuffled round.
        tell: called with each step's loss.
    """
    if not steps:
        return splats
    width = float(np.median(splats.scales[:, 0]))
    values: dict[str, tuple[Tensor, float]] = {
        "positions": (torch.from_numpy(splats.positions.copy()), 0.02 * width),
        "scales": (torch.from_numpy(np.log(splats.scales)), 0.02),
        "opacity": (torch.logit(torch.from_numpy(splats.opacity)), 0.06),
        "color": (torch.from_numpy(splats.color.copy()), 0.02),
    }
    groups = [{"params": [value], "lr": rate} for value, rate in values.values()]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    order = np.random.default_rng(0).permutation(len(views))
    with ThreadPoolExecutor(2) as pool:
        for step in range(steps):
            now = _splats(splats, values)
            pair = [int(order[(2 * step + k) % len(order)]) for k in range(2)]
            found = list(pool.map(lambda view, now=now: view_gradients(now, views, view), pair))
            gate = now.opacity * (1 - now.opacity)
            values["positions"][0].grad = _mean([g.positions for g in found])
            values["scales"][0].grad = _mean([g.scales for g in found])
            values["opacity"][0].grad = _mean([g.opacity * gate for g in found])
            values["color"][0].grad = _mean([g.color for g in found])
            adam.step()
            decay.step()
            with torch.no_grad():
                # Neither needles nor plates that one sees as such from near.
                values["scales"][0].clamp_(np.log(0.15 * width), np.log(3 * width))
                values["color"][0].clamp_(0, 1)
            tell(sum(g.loss for g in found) / 2)
    return _splats(splats, values)


def _mean(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(sum(parts[1:], parts[0]) / len(parts)))


def _splats(start: Splats, values: dict[str, tuple[Tensor, float]]) -> Splats:
    return Splats(
        values["positions"][0].numpy().copy(),
        start.rotations,
        values["scales"][0].exp().numpy(),
        values["opacity"][0].sigmoid().numpy(),
        values["color"][0].numpy().copy(),
    )

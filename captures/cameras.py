"""Pinhole cameras: pixels to rays and points to pixels.

Legend: N views, R rays, K points, H W image size in pixels.

Every camera here follows one convention. World: right-handed, +y up, the subject looks along +z.
Camera: OpenCV axes (x right, y down, z forward). Pixel centres lie at +0.5, so the centre of the
top left pixel has image coordinates (0.5, 0.5). Other conventions are converted on reading, see
:mod:`captures.conventions`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras that share one image size.

    Attributes:
        c2w: camera-to-world transforms, [N, 4, 4], rotation and translation only.
        fx, fy: focal lengths in pixels, [N].
        cx, cy: principal point in pixels, [N].
        width, height: image size in pixels.
    """

    c2w: Tensor
    fx: Tensor
    fy: Tensor
    cx: Tensor
    cy: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.c2w.ndim != 3 or self.c2w.shape[1:] != (4, 4):
            raise ValueError(f"c2w must be [N, 4, 4], got {tuple(self.c2w.shape)}")
        for name in ("fx", "fy", "cx", "cy"):
            if getattr(self, name).shape != self.c2w.shape[:1]:
                raise ValueError(f"{name} must be [N={len(self)}]")

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> Cameras:
        """Select views; an integer keeps the leading dimension (N = 1)."""
        if isinstance(index, int):
            index = [index]
        return replace(
            self,
            c2w=self.c2w[index],
            fx=self.fx[index],
            fy=self.fy[index],
            cx=self.cx[index],
            cy=self.cy[index],
        )

    def to(self, device: torch.device | str | None = None, dtype=None) -> Cameras:
        """Move or cast every tensor."""
        moved = {k: getattr(self, k).to(device, dtype) for k in ("c2w", "fx", "fy", "cx", "cy")}
        return replace(self, **moved)

    def scaled_to(self, width: int, height: int) -> Cameras:
        """The same cameras for pictures resized to ``width`` × ``height`` pixels."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
            width=width,
            height=height,
        )

    def mirrored(self) -> Cameras:
        """The cameras of the world mirrored in x: their pictures are these' flipped left to right.

        World and camera are both mirrored in x, so that the transforms stay rotations.
        """
        flip = torch.tensor([-1.0, 1.0, 1.0, 1.0]).to(self.c2w)
        c2w = flip[:, None] * self.c2w * flip
        return replace(self, c2w=c2w, cx=self.width - self.cx)

    def rays(self, view: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Rays through image points.

        Args:
            view: camera of each ray, [R] int64 in [0, N).
            x, y: image coordinates in pixels, [R]; pixel centres lie at +0.5.

        Returns:
            Origins [R, 3] and unit directions [R, 3] in world space.
        """
        camera = torch.stack(
            [
                (x - self.cx[view]) / self.fx[view],
                (y - self.cy[view]) / self.fy[view],
                torch.ones_like(x),
            ],
            dim=-1,
        )
        c2w = self.c2w[view]
        directions = (c2w[:, :3, :3] @ camera[:, :, None])[:, :, 0]
        directions = torch.nn.functional.normalize(directions, dim=-1)
        return c2w[:, :3, 3].contiguous(), directions

    def image_rays(self, index: int) -> tuple[Tensor, Tensor]:
        """Rays of every pixel of one view, row by row: origins and directions [H·W, 3]."""
        like = {"device": self.c2w.device, "dtype": self.c2w.dtype}
        y, x = torch.meshgrid(
            torch.arange(self.height, **like) + 0.5,
            torch.arange(self.width, **like) + 0.5,
            indexing="ij",
        )
        view = torch.full((x.numel(),), index, dtype=torch.long, device=self.c2w.device)
        return self.rays(view, x.reshape(-1), y.reshape(-1))

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project world points into every view.

        Args:
            points: [K, 3].

        Returns:
            Image coordinates [N, K, 2] in pixels and depth along the viewing axis [N, K]
            (negative behind the camera). Differentiable to points and poses.
        """
        rotation, position = self.c2w[:, :3, :3], self.c2w[:, :3, 3]
        camera = (points[None] - position[:, None]) @ rotation
        depth = camera[..., 2]
        x = camera[..., 0] / depth * self.fx[:, None] + self.cx[:, None]
        y = camera[..., 1] / depth * self.fy[:, None] + self.cy[:, None]
        return torch.stack([x, y], dim=-1), depth


def look_at(eye: Tensor, target: Tensor, up: Tensor | None = None) -> Tensor:
    """Camera-to-world transforms at ``eye`` [N, 3] that look at ``target`` [3] or [N, 3].

    Args:
        up: world direction that shall point up in the picture, [3]; +y by default.

    Returns:
        [N, 4, 4], OpenCV axes.

    Raises:
        ValueError: if a viewing direction is parallel to ``up``.
    """
    up = torch.tensor([0.0, 1.0, 0.0]).to(eye) if up is None else up.to(eye)
    forward = torch.nn.functional.normalize(target.to(eye) - eye, dim=-1)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    if (right.norm(dim=-1) < 1e-6).any():
        raise ValueError("a camera looks straight along 'up'; give another up direction")
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    c2w = torch.eye(4).to(eye).repeat(eye.shape[0], 1, 1)
    c2w[:, :3, :3] = torch.stack([right, down, forward], dim=-1)
    c2w[:, :3, 3] = eye
    return c2w


def pinhole(c2w: Tensor, fov_degrees: float, size: int) -> Cameras:
    """Square cameras with a centred principal point and the given field of view in degrees."""
    n = c2w.shape[0]
    focal = size / (2 * math.tan(math.radians(fov_degrees) / 2))

    def constant(value: float) -> Tensor:
        return torch.full((n,), value, device=c2w.device, dtype=c2w.dtype)

    centre = constant(size / 2)
    return Cameras(c2w, constant(focal), constant(focal), centre, centre, size, size)


def orbit_cameras(
    n_views: int,
    *,
    size: int,
    elevation_degrees: float = 5.0,
    distance: float = 4.0,
    fov_degrees: float = 28.84,
    azimuth_degrees: float = 0.0,
) -> Cameras:
    """A full turn around the origin; the first view stands in front of the face (+z).

    Args:
        n_views: number of views, evenly spaced in azimuth.
        size: image width and height in pixels.
        elevation_degrees: height of the cameras above the horizon.
        distance: from the origin, in world units (the box is [-1, 1]³).
        fov_degrees: full field of view; the default is a 70 mm lens on a 36 mm sensor.
        azimuth_degrees: where the first camera stands, counted from +z towards +x.
    """
    azimuth = torch.arange(n_views) * (2 * math.pi / n_views) + math.radians(azimuth_degrees)
    elevation = math.radians(elevation_degrees)
    eye = distance * torch.stack(
        [
            azimuth.sin() * math.cos(elevation),
            torch.full_like(azimuth, math.sin(elevation)),
            azimuth.cos() * math.cos(elevation),
        ],
        dim=-1,
    )
    return pinhole(look_at(eye, torch.zeros(3)), fov_degrees, size)

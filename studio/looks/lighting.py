"""Soft light baked per vertex: a fixed environment, shadowed through depth maps.

The light is fixed to the world and the shading is Lambertian, so a surface has one colour from
every camera, which is what a triplane can represent.
"""

from __future__ import annotations

import numpy as np

from studio.drawing.raster import Camera, inverse_depth, load_kernels
from studio.drawing.scene import Part, flatten

_EXTENT = 1.45  # half width of the depth maps, world units: covers the bust with its hair
_DISTANCE = 60.0  # far enough for nearly parallel rays
_BOUNCE = 0.55  # how much light reflects between the walls of a crease, for a mean albedo


def sphere_directions(n: int) -> np.ndarray:
    """n unit vectors [n, 3] spread evenly over the sphere (golden spiral)."""
    i = np.arange(n) + 0.5
    y = 1 - 2 * i / n
    phi = i * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(phi), y, r * np.sin(phi)], -1)


def studio_radiance(directions: np.ndarray) -> np.ndarray:
    """Radiance [n, 3] of the studio: large warm key front left, cool fill, rim from behind."""

    def lobe(x: float, y: float, z: float, power: float) -> np.ndarray:
        axis = np.array([x, y, z]) / np.linalg.norm([x, y, z])
        return np.maximum(directions @ axis, 0.0)[:, None] ** power

    sky = 0.5 + 0.5 * directions[:, 1:2]
    return (
        (0.2 + 0.24 * sky) * np.array([1.0, 1.0, 1.02])
        + 1.25 * lobe(-0.5, 0.55, 0.8, 5) * np.array([1.04, 1.0, 0.95])
        + 0.55 * lobe(0.7, 0.15, 0.7, 4) * np.array([0.97, 1.0, 1.03])
        + 0.45 * lobe(0.4, 0.5, -0.8, 5)
        + 0.35 * lobe(-0.6, 0.4, -0.7, 5)
    )


def _camera_along(direction: np.ndarray, size: int) -> Camera:
    forward = -direction
    up = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.95 else np.array([0.0, 0.0, 1.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], -1)
    focal = size * _DISTANCE / (2 * _EXTENT)
    half = size / 2
    return Camera(
        np.ascontiguousarray(rotation), direction * _DISTANCE, focal, focal, half, half, size, size
    )


def bake_light(parts: list[Part], n_directions: int = 96, map_size: int = 256) -> None:
    """Sets `light` of every part in place.

    Args:
        n_directions: directions of the environment that are traced.
        map_size: depth map's side in samples.
    """
    load_kernels()
    from studio.drawing.kernels.shadow_kernels import gather

    casters = flatten([part for part in parts if part.casts])
    directions = sphere_directions(n_directions)
    radiance = studio_radiance(directions)
    # A face looking straight ahead, unshadowed, receives 0.95.
    ahead = np.array([0.0, 0.1, 1.0]) / np.linalg.norm([0.0, 0.1, 1.0])
    received = (np.maximum(directions @ ahead, 0)[:, None] * radiance).sum(0).mean()
    radiance = radiance * (0.95 / received)
    points, normals, lift, wrap, slices = _receivers(parts)
    lit = np.zeros((len(points), 3))
    open_sky = np.zeros((len(points), 3))
    for direction, colour in zip(directions, radiance, strict=True):
        camera = _camera_along(direction, map_size)
        nearest = inverse_depth(casters, camera)
        gather(
            points,
            normals,
            lift,
            wrap,
            direction,
            colour,
            nearest,
            camera.rotation,
            camera.origin,
            camera.fx,
            lit,
            open_sky,
        )
    # Light that bounces inside creases: Jimenez et al. 2016, "Practical real-time strategies for
    # accurate indirect occlusion", approximated by one interreflection of the mean albedo.
    visible = lit / np.maximum(open_sky, 1e-6)
    tint = np.array([1.25, 0.95, 0.85])
    bounced = visible + _BOUNCE * tint * visible * (1 - visible)
    light = open_sky * np.minimum(bounced, 1.0)
    for part, (start, end) in zip(parts, slices, strict=True):
        part.light = light[start:end].astype(np.float32)


def _receivers(parts: list[Part]):
    """Points, normals, distance by which shadows are forgiven, and wrap of every vertex."""
    points, normals, lift, wrap, slices = [], [], [], [], []
    start = 0
    for part in parts:
        n = len(part.positions)
        soft = part.label == "hair"
        normal = part.normals
        if soft:
            # A card's own normal says nothing about the head of hair it stands for.
            centre = np.array([0.0, 0.15, -0.05])
            outward = part.positions - centre
            normal = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
        points.append(part.positions)
        normals.append(normal)
        lift.append(np.full(n, 0.05 if soft else 0.014))
        wrap.append(np.full(n, 0.45 if soft else 0.12))
        slices.append((start, start + n))
        start += n
    return (
        np.concatenate(points).astype(np.float32),
        np.concatenate(normals).astype(np.float32),
        np.concatenate(lift).astype(np.float32),
        np.concatenate(wrap).astype(np.float32),
        slices,
    )

"""Baking: the colours of the field as a texture.

Legend: R rays, T side of the texture in texels, D values a texel, N views.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from captures.cameras import Cameras
from triavatar.export.atlas import fill_holes, texels
from triavatar.export.field import Field
from triavatar.export.mesh import Mesh
from triavatar.export.raster import sample_texture, see

STANDOFF = 0.06
"""World units in front of the surface at which a texel's ray begins: outside of soft matter."""

TRUSTED = 0.3
"""Looks of unit weight after which a texel's difference is believed."""
REACH = 2.0
"""Texels over which differences are spread to those between the looks."""


@dataclass(frozen=True)
class Views:
    """Pictures of a field.

    Attributes:
        cameras: N cameras on the CPU.
        color: composited on black, sRGB, [N, H, W, 3] float32.
        opacity: [N, H, W] float32.
        depth: mean distance along each pixel's ray, world units, [N, H, W] float32.
    """

    cameras: Cameras
    color: np.ndarray
    opacity: np.ndarray
    depth: np.ndarray

    def __len__(self) -> int:
        return len(self.cameras)

    def on(self, background: float) -> np.ndarray:
        """Composited on a grey level, [N, H, W, 3]."""
        return self.color + (1 - self.opacity[..., None]) * background


def photograph(field: Field, cameras: Cameras) -> Views:
    """Render a field from every camera."""
    moved = cameras.to(field.planes.device)
    seen = [field.look(*moved.image_rays(view)) for view in range(len(cameras))]
    shape = (len(cameras), cameras.height, cameras.width)
    color = torch.stack([s.color for s in seen]).reshape(*shape, 3)
    opacity = torch.stack([s.opacity for s in seen]).reshape(shape)
    depth = torch.stack([s.depth for s in seen]).reshape(shape)
    return Views(cameras, color.cpu().numpy(), opacity.cpu().numpy(), depth.cpu().numpy())


def bake(mesh: Mesh, field: Field, size: int) -> Mesh:
    """Texture a mesh with what short rays onto its surface see.

    Each texel's ray begins in front of the surface and falls on it along the normal, so a texel
    has the colour at which such a ray ends, not that of one point in soft matter.

    Args:
        mesh: with normals and uv.
        size: T. Of planes that hold no such detail, every second texel is looked at, and the
            texture enlarged.
    """
    assert mesh.normals is not None
    if size > 512 and field.planes.shape[-1] <= size // 8:
        half = bake(mesh, field, size // 2)
        assert half.texture is not None
        large = _enlarged(half.texture.astype(np.float32) / 255, size)
        return replace(mesh, texture=_to_bytes(large))
    seen = texels(mesh, size)
    points = torch.from_numpy(seen.blend(mesh.vertices, mesh.faces)).to(field.planes)
    normals = torch.from_numpy(seen.blend(mesh.normals, mesh.faces)).to(points)
    normals = torch.nn.functional.normalize(normals, dim=1)
    color, decided = fall(field, points, normals)
    texture = np.zeros((size, size, 3), dtype=np.float32)
    known = np.zeros((size, size), dtype=bool)
    texture[seen.hit], known[seen.hit] = color.cpu().numpy(), decided.cpu().numpy()
    return replace(mesh, texture=_to_bytes(fill_holes(texture, known)))


def fall(field: Field, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
    """Colour, freed of the background, at points [R, 3], and whether a ray decides it [R]."""
    seen = field.look(points + STANDOFF * normals, -normals, near=0.0)
    color = seen.color / seen.opacity[:, None].clamp(min=1e-3)
    # Light that passed the surface, or fell on something far behind it, tells nothing.
    near = (seen.depth < 3 * STANDOFF) & (seen.opacity > 0.5)
    return color.clamp(0, 1), near


def correct(mesh: Mesh, views: Views, size: int = 512, rounds: int = 2) -> Mesh:
    """Bring a texture closer to pictures of the field, which see it at their own angles.

    The difference that each picture shows is spread onto the texels it comes from, in a texture
    of ``size``; what a texel gets is the mean over the views that see it, face-on ones first.

    Args:
        mesh: textured.
        views: pictures of the field it comes from.
        size: side of the texture of differences, at most the texture's.
        rounds: repetitions; each also corrects what bilinear look-ups smoothed before.
    """
    assert mesh.texture is not None and mesh.uv is not None
    texture = mesh.texture.astype(np.float32) / 255
    size = min(size, texture.shape[0])
    links = [_link(mesh, views, view) for view in range(len(views))]
    for _ in range(rounds):
        total = np.zeros((size * size, 3), dtype=np.float64)
        weight = np.zeros(size * size, dtype=np.float64)
        for uv, color, trust in links:
            _spread(uv, (color - sample_texture(texture, uv)), trust, size, total, weight)
        mean = (total / np.maximum(weight, 1e-6)[:, None]).reshape(size, size, 3)
        # Few looks at a texel are trusted less; what nobody saw stays as it was.
        sure = np.minimum(weight / TRUSTED, 1).reshape(size, size, 1)
        difference = fill_holes((mean * sure).astype(np.float32), sure[..., 0] > 0.1, REACH)
        texture = np.clip(texture + _enlarged(difference, texture.shape[0]), 0, 1)
    return replace(mesh, texture=_to_bytes(texture))


def _link(mesh: Mesh, views: Views, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uv, colour and trust of the pixels of one view that see the mesh and nothing else."""
    assert mesh.uv is not None and mesh.normals is not None
    seen = see(mesh.vertices, mesh.faces, views.cameras, view)
    opacity = views.opacity[view][seen.hit]
    color = views.color[view][seen.hit] / np.maximum(opacity, 1e-3)[:, None]
    eye = views.cameras.c2w[view, :3, 3].numpy()
    to_eye = eye - seen.blend(mesh.vertices, mesh.faces)
    to_eye /= np.linalg.norm(to_eye, axis=1, keepdims=True)
    facing = (seen.blend(mesh.normals, mesh.faces) * to_eye).sum(axis=1)
    trust = np.clip(facing, 0, 1) ** 2 * (opacity > 0.9)
    chosen = trust > 0.01
    uv = seen.blend(mesh.uv, mesh.faces)
    return uv[chosen], color[chosen], trust[chosen]


def _spread(uv, values, trust, size, total, weight) -> None:
    """Add values [K, 3] to the four texels around each uv [K, 2], in place."""
    x = np.clip(uv[:, 0] * size - 0.5, 0, size - 1.001)
    y = np.clip(uv[:, 1] * size - 0.5, 0, size - 1.001)
    left, top = x.astype(np.int64), y.astype(np.int64)
    fx, fy = x - left, y - top
    for dx, dy, share in (
        (0, 0, (1 - fx) * (1 - fy)),
        (1, 0, fx * (1 - fy)),
        (0, 1, (1 - fx) * fy),
        (1, 1, fx * fy),
    ):
        index = (top + dy) * size + left + dx
        part = share * trust
        weight += np.bincount(index, part, len(weight))
        for channel in range(3):
            total[:, channel] += np.bincount(index, part * values[:, channel], len(weight))


def _enlarged(texture: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlargement of [t, t, 3] to [size, size, 3]."""
    image = torch.from_numpy(texture).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(image, (size, size), mode="bilinear")
    return large[0].permute(1, 2, 0).numpy()


def _to_bytes(texture: np.ndarray) -> np.ndarray:
    return (np.clip(texture, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw(mesh: Mesh, cameras: Cameras, view: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured mesh without light of its own: colour [H, W, 3], and whether it is hit [H, W]."""
    assert mesh.uv is not None and mesh.texture is not None
    seen = see(mesh.vertices, mesh.faces, cameras, view)
    picture = np.zeros((*seen.face.shape, 3), dtype=np.float32)
    uv = seen.blend(mesh.uv, mesh.faces)
    picture[seen.hit] = sample_texture(mesh.texture, uv) / 255
    return picture, seen.hit

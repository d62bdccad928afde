"""Comparison of an export with the avatar it was made from.

Legend: N views, H W picture size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from triavatar.export.bake import Views, draw
from triavatar.export.gaussians.splats import Splats, draw_splats
from triavatar.export.mesh import Mesh
from triavatar.export.raster import sample_texture, see

Picture = tuple[np.ndarray, np.ndarray]
"""Colour composited on black, [H, W, 3], and opacity, [H, W]; both float32 in [0, 1]."""


@dataclass(frozen=True)
class Agreement:
    """Means over views.

    Attributes:
        inside: PSNR in dB of colours, freed of the background, where both are at least half
            opaque.
        worst: of the worst view.
        whole: PSNR in dB of whole pictures on white; mostly says how outlines differ.
        overlap: intersection over union of the silhouettes, in [0, 1].
    """

    inside: float
    worst: float
    whole: float
    overlap: float

    def __str__(self) -> str:
        return (
            f"{self.inside:.1f} dB inside the silhouette (worst view {self.worst:.1f}), "
            f"{self.whole:.1f} dB on white, silhouettes overlap by {100 * self.overlap:.1f} %"
        )


def agreement(views: Views, picture: Callable[[int], Picture]) -> Agreement:
    """Compare with pictures of the field.

    Args:
        views: N pictures of the avatar; others than what the export was tuned to.
        picture: the export from camera i of ``views``.
    """
    inside, whole, overlap = [], [], []
    for i in range(len(views)):
        color, opacity = picture(i)
        ours, theirs = opacity >= 0.5, views.opacity[i] >= 0.5
        both = ours & theirs
        straight = color[both] / opacity[both][:, None]
        truth = views.color[i][both] / views.opacity[i][both][:, None]
        inside.append(_psnr(straight, truth))
        white = color + (1 - opacity[..., None])
        whole.append(_psnr(white, views.on(1.0)[i]))
        overlap.append(both.sum() / max((ours | theirs).sum(), 1))
    return Agreement(
        float(np.mean(inside)),
        float(np.min(inside)),
        float(np.mean(whole)),
        float(np.mean(overlap)),
    )


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.square(a - b).mean(), 1e-12))) if a.size else 0.0


def mesh_agreement(views: Views, mesh: Mesh) -> Agreement:
    """Return how close a textured mesh, unlit, comes to pictures of the field."""

    def picture(i: int) -> Picture:
        color, hit = draw(mesh, views.cameras, i)
        return color, hit.astype(np.float32)

    return agreement(views, picture)


def rigged_agreement(views: Views, parts: Sequence[Mesh]) -> Agreement:
    """Return how close meshes in front of one another come to pictures of the field."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([p.faces + s for p, s in zip(parts, starts[:-1], strict=True)])
    owner = np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts])
    uv = np.concatenate([np.zeros((0, 2)) if part.uv is None else part.uv for part in parts])

    def picture(i: int) -> Picture:
        seen = see(vertices, faces, views.cameras, i)
        color = np.zeros((*seen.face.shape, 3), dtype=np.float32)
        place, whose = seen.blend(uv, faces), owner[seen.face[seen.hit]]
        found = np.zeros((len(place), 3), dtype=np.float32)
        for at, part in enumerate(parts):
            if part.texture is not None:
                found[whose == at] = sample_texture(part.texture, place[whose == at]) / 255
        color[seen.hit] = found
        return color, seen.hit.astype(np.float32)

    return agreement(views, picture)


def splat_agreement(views: Views, splats: Splats) -> Agreement:
    """Return how close Gaussians come to pictures of the field."""
    return agreement(views, lambda i: draw_splats(splats, views.cameras, i))

"""Procedural hair in shells: buzz cut, crop, beards.

A shell style is a stack of copies of the scalp, each a little further out. Their texture is a
field of strand cross-sections that thin out towards the tips, so the stack reads as short fur.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from studio.drawing.scene import Part
from studio.drawing.textures import Texture, build_mips, encode

_GAP = 0.006  # hair stays this far above the skin, world units


@dataclass(frozen=True)
class ShellStyle:
    """A procedural style.

    Args:
        height: of the outermost shell above the scalp, world units.
        layers: number of shells.
        clump: size of a curl in texels of the strand field (0: single strands).
        cover: share of the scalp that is covered at the roots.
        taper: how quickly strands thin out towards the tips.
        outward: 0 grows along the skin's normal, 1 away from the head's middle (a round shape).
        uneven: relative variation of the height from curl to curl.
    """

    height: float
    layers: int
    clump: float
    cover: float
    taper: float
    outward: float
    uneven: float


SHELL_STYLES = {
    "buzz": ShellStyle(0.016, 3, 0.0, 0.88, 0.6, 0.0, 0.1),
    "crop": ShellStyle(0.042, 5, 1.2, 0.85, 0.55, 0.2, 0.3),
}

BEARD_STYLES = {
    "short": ShellStyle(0.014, 3, 0.0, 0.7, 0.5, 0.0, 0.2),
    "full": ShellStyle(0.05, 5, 1.0, 0.8, 0.5, 0.0, 0.3),
    "goatee": ShellStyle(0.025, 6, 0.4, 0.72, 0.5, 0.0, 0.25),
    "moustache": ShellStyle(0.02, 5, 0.4, 0.72, 0.5, 0.0, 0.25),
}


# The hairline from the side: depth of its front edge at these heights, relative to the forehead.
_LINE_HEIGHT = (-0.06, 0.02, 0.1, 0.18, 0.26, 0.36, 0.43, 0.475, 0.52)
_LINE_DEPTH = (0.17, 0.23, 0.31, 0.5, 0.6, 0.69, 0.8, 0.98, 1.4)


def hairline(points: np.ndarray, receding: float = 0.0) -> np.ndarray:
    """Signed height [V] of points of the head above the hairline, world units (positive: hair).

    The line runs level over the forehead, down the temples, round short sideburns and over the
    ears to the nape.

    Args:
        receding: how far the hair over the forehead has gone back, world units; beyond 0.2 the
            crown is bare and a wreath is left.
    """
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    brow = (y > 0.25) & (y < 0.4) & (x < 0.1)
    forehead = z[brow].max() if brow.any() else 0.47
    corners = receding * (0.5 + np.exp(-(((x - 0.24) / 0.1) ** 2)))
    front = 0.8 * (np.interp(y, _LINE_HEIGHT, _LINE_DEPTH) * forehead - z - corners * (y > 0.2))
    nape = y - np.where(z < 0, 0.1 + 0.6 * z, 0.1 - 1.2 * z)
    line = np.where(z > 0, np.minimum(front, np.maximum(nape, y - 0.07)), nape)
    if receding > 0.2:
        line = np.minimum(line, 0.6 - 1.6 * (receding - 0.2) - y)
    return line


def shell_parts(
    skin: Part,
    region: np.ndarray,
    rise: np.ndarray,
    style: ShellStyle,
    colour: np.ndarray,
    rng: np.random.Generator,
    size: int,
) -> list[Part]:
    """The shells of `style` over part of `skin`.

    Args:
        region: [V] density at each vertex of the skin, 0..1.
        rise: [V] share of the style's height at each vertex.
        colour: linear.
        size: texture side for styles of 8 layers; finer for fewer, coarser for more.

    Returns:
        From the roots to the tips; clumps have no bare scalp between them, so their first layer
        is closed and lies where they part.
    """
    size = max(8, int(size * (8 / style.layers) ** 0.5))
    triangles = skin.triangles[(region[skin.triangles] > 0).any(1)]
    if not len(triangles):
        return []
    used, index = np.unique(triangles, return_inverse=True)
    points, normals, region = skin.positions[used], skin.normals[used], region[used]
    middle = np.array([0.0, 0.2, -0.05])
    radial = points - middle
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    grow = normals * (1 - style.outward) + radial * style.outward
    grow /= np.linalg.norm(grow, axis=1, keepdims=True)
    uv = azimuthal(points, middle, (region[:, None] * radial).sum(0))
    out = []
    heights = _heights(style)
    for k, texture in enumerate(_shell_textures(style, colour, rng, size)):
        t = heights[k]
        layer = points + grow * (style.height * rise[used] * t + 0.3 * _GAP)[:, None]
        out.append(
            Part(
                "hair",
                layer,
                index.reshape(-1, 3),
                uv,
                texture,
                normals=grow,
                blended=True,
                casts=k == len(heights) // 2,
                sheer=True,
                fade=region * (1 - 0.3 * t * (k > 0)),
            )
        )
    return out


def _heights(style: ShellStyle) -> np.ndarray:
    """Share of the style's height at which each layer lies."""
    return np.linspace(0.22 if style.clump else 1 / style.layers, 1, style.layers)


def azimuthal(points: np.ndarray, middle: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Equal-area map [V, 2] of directions from `middle`, centred on `axis`, seam opposite."""
    d = points - middle
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    axis = axis * [0.0, 1.0, 1.0]
    axis /= np.linalg.norm(axis)
    side = np.array([1.0, 0.0, 0.0])
    other = np.cross(axis, side)
    radius = np.sqrt(np.maximum((1 - d @ axis) / 2, 0))
    radius /= radius.max()  # a small region uses the whole texture
    flat = np.stack([d @ side, d @ other], -1)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return 0.5 + 0.49 * radius[:, None] * flat


def _shell_textures(
    style: ShellStyle, colour: np.ndarray, rng: np.random.Generator, size: int
) -> list[Texture]:
    grain = size / 1024
    strand = _normalised(gaussian_filter(rng.standard_normal((size, size)), 0.9, mode="wrap"))
    if style.clump:
        sigma = style.clump * grain
        curl = _normalised(gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap"))
        strand = 0.35 * strand + 0.65 * curl
    rank = _ranks(strand)  # uniform in [0, 1], so that covers come out as asked
    height = 1 + style.uneven * _normalised(
        gaussian_filter(
            rng.standard_normal((size, size)), 2.5 * (style.clump + 1) * grain, mode="wrap"
        )
    )
    height = np.maximum(height, 0.45)
    shade = 0.75 + 0.5 * rank
    out = []
    for k, t in enumerate(_heights(style)):
        keep = style.cover * np.clip(height - t, 0, 1) ** style.taper if t > 0.05 else style.cover
        keep = np.minimum(keep, style.cover * (1 - 0.6 * t))
        if style.clump and k == 0:
            keep = np.ones_like(keep)
        alpha = np.clip((rank - (1 - keep)) / 0.12 + 0.5, 0, 1)
        # Light reaches the tips, not the roots.
        tone = colour * (0.45 + 0.75 * t) * shade[..., None]
        image = np.concatenate(
            [encode(tone), np.round(alpha * 255).astype(np.uint8)[..., None]], -1
        )
        out.append(build_mips(image))
    return out


def _normalised(field: np.ndarray) -> np.ndarray:
    return (field - field.mean()) / field.std()


def _ranks(field: np.ndarray) -> np.ndarray:
    order = np.empty(field.size)
    order[np.argsort(field, axis=None)] = np.linspace(0, 1, field.size)
    return order.reshape(field.shape)

"""The assets' card hair: fitted, styled, kept out of skin, clothes and eyes, and coloured."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from runtime.seeds import numpy_generator
from studio.assets import AssetFolder, Proxy, diffuse_texture
from studio.drawing.obj import PolyMesh
from studio.drawing.scene import Part, part_from_mesh
from studio.drawing.subdivide import subdivision
from studio.drawing.textures import LUMINANCE, SRGB_TO_LINEAR, build_mips, encode, read_texture
from studio.hair.crop import clip_at
from studio.people.subject import Subject

_GAP = 0.006  # hair stays this far above the skin, world units
_SPREAD, _MOST = 0.4, 0.8  # standard deviation and limit of a strand's log luminance
_COARSE = 4000  # card styles with fewer faces are subdivided once
_HANGS_FROM = 0.08  # height below which hair hangs


def fit_cards(assets: AssetFolder, hair: Proxy, base: np.ndarray, mirrored: bool) -> np.ndarray:
    """Hair cards fitted to the base mesh; mirrored hair is fitted to the mirrored person."""
    if not mirrored:
        return hair.fit(base)
    flip = np.array([-1.0, 1.0, 1.0])
    return hair.fit(base[_mirror_of(assets)] * flip) * flip


@lru_cache(maxsize=2)
def _mirror_of(assets: AssetFolder) -> np.ndarray:
    """For every base-mesh vertex the vertex on the other side of the midplane."""
    vertices = assets.base_mesh().vertices
    return cKDTree(vertices).query(vertices * np.array([-1.0, 1.0, 1.0]))[1]


def refined_cards(hair: Proxy, fitted: np.ndarray) -> tuple[PolyMesh, np.ndarray]:
    """Mesh and points of hair `fitted` [V, 3], fine enough for its outline and its waves."""
    mesh = hair.mesh
    if len(mesh.faces) >= _COARSE:
        return mesh, fitted
    mesh, matrix, _ = subdivision(mesh)
    return mesh, matrix @ fitted


def style_cards(points: np.ndarray, subject: Subject, scalp: np.ndarray) -> np.ndarray:
    """Lengthen, wave and lift fitted hair at `points` [V, 3] as the subject wears it.

    Args:
        scalp: [V] height above the hairline of the skin nearest to each point, world units; hair
            is lifted over the scalp only, so that its edge stays on the head.
    """
    middle = np.array([0.0, 0.2, -0.05])
    out = points.copy()
    below = np.maximum(_HANGS_FROM - out[:, 1], 0)
    out[:, 1] -= (subject.hair_length - 1) * below
    around = np.arctan2(out[:, 0], out[:, 2] - middle[2])
    loose = np.clip((0.3 - out[:, 1]) / 0.45, 0, 1) * np.clip(below / 0.1 + 0.3, 0, 1)
    swing = subject.hair_wave * loose
    phase = 2 * np.pi * out[:, 1] / 0.24
    side = 0.022 * swing * np.sin(phase + 4 * around)
    away = 0.03 * swing * (1 + np.sin(phase + 2 + 6 * around))
    out[:, 0] += side * np.cos(around) + away * np.sin(around)
    out[:, 2] += away * np.cos(around) - side * np.sin(around)
    lifted = 0.11 * subject.hair_volume * np.clip((out[:, 1] + 0.25) / 0.5, 0, 1)
    rooted = np.clip(scalp / 0.22, 0, 1)
    lifted *= rooted * rooted * (3 - 2 * rooted)
    return out + lifted[:, None] * (out - middle)


def clear_face(part: Part, eyes: list[np.ndarray]) -> Part:
    """Cut hair that would hang over the face: a fringe ends at the brows.

    Args:
        eyes: centres [3] of both eyes.
    """
    level = 0.5 * (eyes[0][1] + eyes[1][1])
    reach = 0.5 * abs(eyes[0][0] - eyes[1][0]) + 0.17
    top, bottom = level + 0.09, level - 0.75
    p = part.positions
    x = p[:, 0] / reach
    y = (p[:, 1] - 0.5 * (top + bottom)) / (0.5 * (top - bottom))
    # Strands end at slightly different heights.
    jitter = 0.02 * np.sin(61 * p[:, 0]) * np.sin(143 * p[:, 0] + 1)
    window = 1 + jitter - (x**6 + np.abs(y) ** 6) ** (1 / 6)
    front = (p[:, 2] - 0.2) / 0.3
    return clip_at(part, np.minimum(window, front))[0]


def lift_off(points: np.ndarray, surface: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Push hair that lies just under `surface` [S, 3] with unit `normals` out of it."""
    _, nearest = cKDTree(surface).query(points)
    height = ((points - surface[nearest]) * normals[nearest]).sum(1)
    push = np.where((height < _GAP) & (height > -0.06), _GAP - height, 0.0)
    return points + push[:, None] * normals[nearest]


def soften_hairline(part: Part, skin: Part, line: np.ndarray) -> None:
    """Fade the edge of hair that lies on the forehead into the skin, in place.

    A fringe stays as it is: it does not begin there.

    Args:
        line: [S] height of the skin's vertices above the hairline, world units.
    """
    distance, nearest = cKDTree(skin.positions).query(part.positions)
    on_skin = np.clip(1.6 - distance / 0.03, 0, 1)
    forehead = np.clip((part.positions[:, 1] - 0.22) / 0.08, 0, 1) * (part.positions[:, 2] > 0)
    height = line[nearest]
    if ((height < -0.08) & (forehead == 1) & (part.positions[:, 2] > 0.25)).any():
        return
    bare = np.clip(0.5 - height / 0.07, 0, 1)
    part.fade = part.fade * (1 - on_skin * forehead * bare)


def cover_of(skin: Part, ears: np.ndarray, clothes: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Points [S, 3] and normals of what hair lies on: the skin but for `ears`, and the clothes."""
    usable = ~np.isin(skin.source, ears)
    points = [skin.positions[usable], *(part.positions for part in clothes)]
    normals = [skin.normals[usable], *(part.normals for part in clothes)]
    return np.concatenate(points), np.concatenate(normals)


def card_part(
    hair: Proxy, mesh: PolyMesh, points: np.ndarray, colour: np.ndarray, size: int
) -> Part:
    """Hair cards of `mesh` (see `refined_cards`) at `points` [V, 3] in `colour` (linear)."""
    texture = diffuse_texture(hair.material)
    image = painted_strands(size) if texture is None else read_texture(texture, size)
    image = tint_strands(image, colour)
    return part_from_mesh(mesh, points, "hair", build_mips(image), blended=True, sheer=True)


def tint_strands(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Strands (uint8 RGBA) in `colour` (linear): the picture keeps its light and dark, evened out.

    Some styles' textures have painted highlights and near-black roots whose luminances lie a
    factor 100 apart. Logarithms of luminance are scaled to a common spread and rolled off.
    """
    light = SRGB_TO_LINEAR[image[..., :3]] @ LUMINANCE
    seen = light[image[..., 3] > 64]
    if not len(seen):
        seen = light.ravel()
    low, middle, high = np.percentile(seen, [16, 50, 84])
    floor = 0.15 * middle + 1e-4  # tells black from nearly black no more
    light = np.log(light + floor)
    low, middle, high = np.log(np.array([low, middle, high]) + floor)
    relative = (light - middle) * min(_SPREAD / max(0.5 * (high - low), 1e-6), 1.0)
    relative = _MOST * np.tanh(relative / _MOST)
    return np.concatenate([encode(np.exp(relative)[..., None] * colour), image[..., 3:]], -1)


@lru_cache(maxsize=2)
def painted_strands(size: int) -> np.ndarray:
    """Opaque strands along v, uint8 RGBA [size, size], for styles whose texture is missing."""
    noise = numpy_generator(0, "strands").standard_normal((size, size))
    light = 0.0
    for across, along, share in ((0.7, size / 6, 0.6), (size / 200, size / 4, 0.4)):
        field = gaussian_filter(noise, (along, across), mode="wrap")
        light = light + share * field / field.std()
    grey = np.round(np.clip(128 + 15 * light, 20, 250)).astype(np.uint8)
    return np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)


def opaque_samples(part: Part, threshold: int = 110) -> np.ndarray:
    """Points [K, 3] of a part where its texture's alpha exceeds `threshold` (of 255)."""
    t = part.triangles
    places, uvs = [], []
    for weights in ((1, 1, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4), (1, 1, 0), (0, 1, 1), (1, 0, 1)):
        w = np.array(weights, dtype=float)[:, None] / sum(weights)
        places.append((part.positions[t] * w).sum(1))
        uvs.append((part.uv[t] * w).sum(1))
    uv = np.concatenate(uvs)
    level = part.texture.levels[min(1, len(part.texture.levels) - 1)]
    h, w = level.shape[:2]
    x = np.clip((uv[:, 0] * w).astype(int), 0, w - 1)
    y = np.clip(((1 - uv[:, 1]) * h).astype(int), 0, h - 1)
    return np.concatenate(places)[level[y, x, 3] > threshold]

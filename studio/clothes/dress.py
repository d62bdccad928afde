"""Clothes: the assets' garments, cut to the bust, smoothed and dyed."""

from __future__ import annotations

import colorsys

import numpy as np

from studio.assets import Proxy, diffuse_texture
from studio.clothes.garments import fabric_halves
from studio.drawing.scene import Part, part_from_mesh
from studio.drawing.subdivide import subdivision
from studio.drawing.textures import build_mips, read_texture, shift_hue, solid_texture
from studio.people.subject import Subject

_WIDEST = 1.15  # |x| beyond which nothing is needed, world units


def clothes_parts(
    subject: Subject, garment: Proxy, points: np.ndarray, neck: np.ndarray, lowest: float, size: int
) -> list[Part]:
    """The garment at `points` [V, 3], without what lies far below the neck or beyond the arms.

    Args:
        neck: [3] the neck joint.
        lowest: height below which nothing is needed, world units; the cut proper comes later.
        size: texture side.
    """
    corners = points[np.maximum(garment.mesh.faces, 0)]
    near = (corners[..., 1].max(1) > lowest) & (np.abs(corners[..., 0]).min(1) < _WIDEST)
    if not near.any():
        return []
    refined, matrix, _ = subdivision(garment.mesh.select(near))
    texture = diffuse_texture(garment.material)
    if texture is None:
        plain = solid_texture(subject.clothes_colour)
        cloth = part_from_mesh(refined, matrix @ points, "clothes", plain)
        return fabric_halves(subject, cloth, neck, size)
    image = _dyed(read_texture(texture, size), subject)
    return [part_from_mesh(refined, matrix @ points, "clothes", build_mips(image))]


def _dyed(image: np.ndarray, subject: Subject) -> np.ndarray:
    """The garment's texture in the subject's colours, opaque; grey cloth is tinted."""
    image = shift_hue(image, subject.clothes_hue, subject.clothes_saturation, subject.clothes_value)
    image[..., 3] = 255
    rgb = image[..., :3].astype(np.float32)
    greyness = 1 - np.clip((rgb.max(-1) - rgb.min(-1)) / 40, 0, 1)
    depth = 0.2 if "elegant" in subject.clothes else 0.65  # a suit's shirt stays nearly white
    dye = np.array(colorsys.hsv_to_rgb(subject.clothes_hue, depth * subject.clothes_saturation, 1))
    rgb *= 1 - greyness[..., None] * (1 - dye)
    image[..., :3] = np.round(rgb)
    return image

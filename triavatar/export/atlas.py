"""Unwrapping: every triangle gets a place of its own in a square texture.

Legend: V vertices, F triangles, T side of the texture in texels.
"""

from __future__ import annotations

import numpy as np

from triavatar.export.libraries import needed
from triavatar.export.mesh import Mesh
from triavatar.export.raster import Seen, rasterise

GUTTER = 4  # texels between charts, at least: two levels of mip maps stay free of neighbours


def unwrap(mesh: Mesh, size: int = 2048) -> Mesh:
    """Cut the mesh into charts and pack them.

    Args:
        mesh: with normals.
        size: side of the texture, T, that the gutters between the charts are meant for.

    Returns:
        The mesh with uv; vertices on seams are doubled.

    Raises:
        UserError: xatlas is missing.
    """
    xatlas = needed("xatlas")
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices, mesh.faces.astype(np.uint32), mesh.normals)
    charts, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    # Larger charts than the default's, which cuts hair into crumbs.
    charts.max_cost = 8.0
    charts.normal_deviation_weight = 1.0
    pack.resolution, pack.padding, pack.bilinear = size, GUTTER, True
    pack.create_image = False
    atlas.generate(charts, pack)
    source, faces, uv = atlas[0]
    normals = None if mesh.normals is None else mesh.normals[source]
    return Mesh(mesh.vertices[source], faces.astype(np.int32), normals, uv.astype(np.float32))


def texels(mesh: Mesh, size: int) -> Seen:
    """The triangle, and the place on it, of every texel of a T × T texture."""
    assert mesh.uv is not None
    screen = np.concatenate([mesh.uv * size, np.ones((len(mesh.uv), 1))], axis=1)
    return rasterise(screen, mesh.faces, size, size)


def fill_holes(texture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Spread known texels over all others: coarse levels fill what finer ones lack.

    Args:
        texture: [T, T, D] float32; values of unknown texels don't count.
        known: weight of each texel, [T, T] float32 ≥ 0; 0 is unknown.

    Returns:
        [T, T, D] float32; texels of weight 1 or more keep their values, lighter ones lean on
        their surroundings.
    """
    weight = np.minimum(known, 1)[..., None].astype(np.float32)
    if texture.shape[0] % 2 or texture.shape[0] < 2:
        total = max(float(weight.sum()), 1e-8)
        mean = (texture * weight).sum(axis=(0, 1)) / total
        return texture * weight + mean * (1 - weight)
    half = (texture.shape[0] // 2, 2, texture.shape[1] // 2, 2)
    coarse_weight = weight.reshape(*half, 1).sum(axis=(1, 3))
    coarse = (texture * weight).reshape(*half, -1).sum(axis=(1, 3)) / np.maximum(
        coarse_weight, 1e-8
    )
    filled = fill_holes(coarse.astype(np.float32), coarse_weight[..., 0])
    return texture * weight + np.repeat(np.repeat(filled, 2, axis=0), 2, axis=1) * (1 - weight)

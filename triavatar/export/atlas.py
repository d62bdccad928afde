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
    source, faces, uv = _colored(source.astype(np.int64), faces.astype(np.int64), uv)
    normals = None if mesh.normals is None else mesh.normals[source]
    return Mesh(mesh.vertices[source], faces.astype(np.int32), normals, uv.astype(np.float32))


def _colored(
    source: np.ndarray, faces: np.ndarray, uv: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give slivers, which get no chart, one point of a neighbour's chart each.

    Args:
        source: vertex of the mesh that each vertex of the atlas comes from.
        faces: of the atlas.
        uv: of its vertices.

    Returns:
        The same, with the slivers' corners as vertices of their own.
    """
    a, b, c = (uv[faces[:, k]].astype(np.float64) for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    sliver = area == 0
    twin = np.full(int(source.max()) + 1, -1)
    charted = faces[~sliver].reshape(-1)
    twin[source[charted]] = charted
    corners = source[faces[sliver]]
    # Any corner that also belongs to a charted triangle will do.
    point = twin[corners].max(axis=1)
    uv = np.concatenate([uv, np.repeat(uv[point], 3, axis=0)])
    faces = faces.copy()
    faces[sliver] = len(source) + np.arange(corners.size).reshape(-1, 3)
    return np.concatenate([source, corners.reshape(-1)]), faces, uv


def texels(mesh: Mesh, size: int) -> Seen:
    """The triangle, and the place on it, of every texel of a T × T texture."""
    assert mesh.uv is not None
    screen = np.concatenate([mesh.uv * size, np.ones((len(mesh.uv), 1))], axis=1)
    return rasterise(screen, mesh.faces, size, size)


def fill_holes(texture: np.ndarray, known: np.ndarray, reach: float = np.inf) -> np.ndarray:
    """Give every unknown texel the value of the nearest known one.

    Charts thus grow over their edges, and look-ups there meet no colours of their neighbours.

    Args:
        texture: [T, T, D]; values of unknown texels don't count.
        known: [T, T] bool.
        reach: texels farther than this from all known ones become 0.
    """
    from scipy.ndimage import distance_transform_edt

    if not known.any():
        return np.zeros_like(texture)
    distance, (row, column) = distance_transform_edt(~known, return_indices=True)
    return np.where((distance <= reach)[..., None], texture[row, column], 0).astype(texture.dtype)

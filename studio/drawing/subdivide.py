"""One Catmull–Clark level for meshes of triangles and quads, as a sparse matrix."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from studio.drawing.obj import PolyMesh


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique undirected edges [E, 2] and, per face side, its edge index [F, 4] (-1: no side)."""
    is_tri = faces[:, 3] < 0
    nxt = np.roll(faces, -1, axis=1).copy()
    nxt[is_tri, 2] = faces[is_tri, 0]
    sides = np.stack([np.minimum(faces, nxt), np.maximum(faces, nxt)], -1)
    valid = np.ones(faces.shape, dtype=bool)
    valid[is_tri, 3] = False
    unique, inverse = np.unique(sides[valid], axis=0, return_inverse=True)
    index = np.full(faces.shape, -1, dtype=np.int64)
    index[valid] = inverse.reshape(-1)
    return unique, index


def _topology(faces: np.ndarray, n_vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Children quads [Q, 4] in the order vertices, edge points, face points; edges; side index."""
    edges, side = _edges(faces)
    face_point = n_vertices + len(edges) + np.arange(len(faces))
    edge_point = n_vertices + side
    is_tri = faces[:, 3] < 0
    children = []
    for k in range(4):
        rows = np.flatnonzero(~is_tri) if k == 3 else np.arange(len(faces))
        last = np.where(is_tri[rows], 2, 3)
        before = edge_point[rows, np.where(k > 0, k - 1, last)]
        children.append(
            np.stack([faces[rows, k], edge_point[rows, k], face_point[rows], before], -1)
        )
    return np.concatenate(children), edges, side


def subdivision(mesh: PolyMesh) -> tuple[PolyMesh, sparse.csr_matrix, np.ndarray]:
    """One level of Catmull–Clark.

    Boundary edges keep the cubic B-spline rule, so an open hem stays smooth. Texture coordinates
    are refined linearly.

    Returns:
        The refined mesh (all quads; its positions come from `mesh.vertices`), the matrix
        [V', V] that maps coarse to refined positions, and the coarse face [Q] of every quad.
    """
    faces = mesh.faces
    n = len(mesh.vertices)
    quads, edges, side = _topology(faces, n)
    uv_quads, uv_edges, _ = _topology(mesh.face_uv, len(mesh.uv))
    valid = faces >= 0
    count = valid.sum(1)
    rows = np.repeat(np.arange(len(faces)), count)
    mean = sparse.csr_matrix((1.0 / count[rows], (rows, faces[valid])), shape=(len(faces), n))

    e = len(edges)
    side_valid = side >= 0
    side_face = np.nonzero(side_valid)[0]
    edge_faces = sparse.csr_matrix(
        (np.ones(len(side_face)), (side[side_valid], side_face)), shape=(e, len(faces))
    )
    n_faces = np.asarray(edge_faces.sum(1)).ravel()
    ends = sparse.csr_matrix(
        (np.full(2 * e, 0.5), (np.repeat(np.arange(e), 2), edges.ravel())), shape=(e, n)
    )
    inner = (n_faces == 2).astype(float)
    edge_rule = sparse.diags(inner) @ (0.5 * ends + 0.25 * (edge_faces @ mean))
    edge_rule = edge_rule + sparse.diags(1 - inner) @ ends

    touching = sparse.csr_matrix((np.ones(len(rows)), (faces[valid], rows)), shape=(n, len(faces)))
    valence = np.asarray(touching.sum(1)).ravel()
    at_vertex = sparse.csr_matrix(
        (np.ones(2 * e), (edges.ravel(), np.repeat(np.arange(e), 2))), shape=(n, e)
    )
    degree = np.asarray(at_vertex.sum(1)).ravel()
    border = at_vertex @ (1 - inner)
    smooth = (border == 0) & (valence > 0)
    k = np.maximum(valence, 1)
    inner_rule = (
        sparse.diags(1 / k**2) @ (touching @ mean)
        + sparse.diags(2 / (k * np.maximum(degree, 1))) @ (at_vertex @ ends)
        + sparse.diags((k - 3) / k)
    )
    border_rule = 0.5 * sparse.eye(n) + 0.25 * at_vertex @ sparse.diags(1 - inner) @ ends
    on_border = border == 2
    fixed = ~(smooth | on_border)
    vertex_rule = (
        sparse.diags(smooth.astype(float)) @ inner_rule
        + sparse.diags(on_border.astype(float)) @ border_rule
        + sparse.diags(fixed.astype(float))
    )
    matrix = sparse.vstack([vertex_rule, edge_rule, mean]).tocsr()
    uv = np.concatenate([mesh.uv, mesh.uv[uv_edges].mean(1), _face_mean(mesh.uv, mesh.face_uv)])
    refined = PolyMesh(matrix @ mesh.vertices, uv, quads, uv_quads)
    is_tri = faces[:, 3] < 0
    parent = np.concatenate([np.arange(len(faces))] * 3 + [np.flatnonzero(~is_tri)])
    return refined, matrix, parent


def _face_mean(values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    valid = (faces >= 0)[..., None]
    return (values[np.maximum(faces, 0)] * valid).sum(1) / valid.sum(1)

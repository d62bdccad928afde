"""Subdivision, cropping, camera rig."""

import numpy as np
import pytest

from studio.drawing.obj import PolyMesh
from studio.drawing.scene import triangulate
from studio.drawing.subdivide import subdivision
from studio.hair.crop import clip_part, crop
from studio.looks.head_rig import head_rig, rig_directions


def test_cube_subdivides_to_the_known_points(reference):
    refined, matrix, parent = subdivision(reference.cube())
    assert len(refined.faces) == 24 and len(refined.vertices) == 8 + 12 + 6
    assert np.allclose(np.asarray(matrix.sum(1)), 1)
    # Catmull and Clark 1978: corner (F + 2 R + 0 P) / 3 with F = 1/3, R = 2/3 → 5/9.
    assert np.allclose(np.abs(refined.vertices[:8]), 5 / 9)
    # Edge point (ends + both faces' middles) / 4: 1 + 0.5 over 2 → 0.75, 0.75, 0.
    assert np.allclose(np.sort(np.abs(refined.vertices[8:20]), 1), [0, 0.75, 0.75])
    assert np.bincount(parent).tolist() == [4] * 6


def test_open_border_follows_the_spline():
    grid = np.array([[x, y, 0.0] for y in range(2) for x in range(3)])
    faces = np.array([[0, 1, 4, 3], [1, 2, 5, 4]])
    mesh = PolyMesh(grid, np.zeros((1, 2)), faces, np.zeros_like(faces))
    refined, _, _ = subdivision(mesh)
    assert np.allclose(refined.vertices[1], [1.0, 0.0, 0.0])  # 1/8, 6/8, 1/8 of the row
    assert np.allclose(refined.vertices[0], [0.125, 0.125, 0.0])
    assert np.allclose(refined.vertices[:, 2], 0)


def test_triangles_and_quads_mix(reference):
    mesh = reference.cube()
    faces = np.concatenate([mesh.faces[:5], [[1, 5, 7, -1], [1, 7, 3, -1]]])
    refined, matrix, parent = subdivision(
        PolyMesh(mesh.vertices, mesh.uv, faces, np.where(faces < 0, -1, 0))
    )
    assert len(refined.faces) == 5 * 4 + 2 * 3
    assert np.allclose(np.asarray(matrix.sum(1)), 1)
    _, _, triangles = triangulate(refined)
    assert len(triangles) == 2 * len(refined.faces)
    assert sorted(np.bincount(parent).tolist()) == [3, 3, 4, 4, 4, 4, 4]


def test_clipping_keeps_the_inside_and_loses_no_area(reference):
    vertices, triangles = reference.blob()
    part = reference.solid(vertices, triangles)
    normal = np.array([0.6, -0.8, 0.0])
    inside, segments = clip_part(part, normal, 0.1)
    outside, _ = clip_part(part, -normal, -0.1)
    assert (inside.positions @ normal <= 0.1 + 1e-9).all()
    assert np.allclose(segments @ normal, 0.1)

    def area(p):
        a, b, c = (p.positions[p.triangles[:, k]] for k in range(3))
        return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2

    assert area(inside) + area(outside) == pytest.approx(area(part), rel=1e-9)


def test_crop_closes_the_cut(reference):
    part = reference.solid(*reference.blob())
    normal = np.array([0.0, -1.0, 0.0])
    cut, cap = crop([part], [(normal, 0.2)])
    assert np.allclose(cap.positions @ normal, 0.2)
    # The section's area, by summing its segments' triangles around the origin.
    _, segments = clip_part(part, normal, 0.2)
    p, q = segments[:, 0][:, [0, 2]], segments[:, 1][:, [0, 2]]
    section = np.abs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / 2
    a, b, c = (cap.positions[cap.triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(section, rel=5e-3)
    assert (cut.positions @ normal).max() <= 0.2 + 1e-9


def test_rig_starts_frontal_and_spreads():
    directions = rig_directions(300, -35, 60)
    assert np.allclose(directions[0], [0, 0, 1])
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)
    elevation = np.degrees(np.arcsin(directions[1:, 1]))
    assert elevation.min() > -35.01 and elevation.max() < 60.01
    assert elevation.min() < -33 and elevation.max() > 58
    azimuth = np.degrees(np.arctan2(directions[1:, 0], directions[1:, 2]))
    counts = np.histogram(azimuth, bins=12, range=(-180, 180))[0]
    assert counts.min() >= 22 and counts.max() <= 28
    # Any leading part is spread too.
    counts = np.histogram(azimuth[:24], bins=4, range=(-180, 180))[0]
    assert counts.min() >= 5


def test_rig_portrait_looks_along_minus_z():
    rig = head_rig(2, 64)
    assert np.allclose(rig.c2w[0, :3, 2].numpy(), [0, 0, -1])
    assert np.allclose(rig.c2w[0, :3, 1].numpy(), [0, -1, 0])
    assert float(rig.fx[0]) == pytest.approx(64 * 70 / 36, rel=1e-3)

"""Taubin's smoothing against a ball with noise on it."""

import numpy as np

from triavatar.export.mesh import Mesh
from triavatar.export.surface import corner_normals, smooth


def noisy_ball(noise: float) -> Mesh:
    from skimage.measure import marching_cubes

    line = np.linspace(-1, 1, 48)
    x, y, z = np.meshgrid(line, line, line, indexing="ij")
    vertices, faces, _, _ = marching_cubes(np.sqrt(x**2 + y**2 + z**2), 0.6)
    vertices = vertices / 47 * 2 - 1
    vertices += noise * np.random.default_rng(0).standard_normal(vertices.shape)
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32))


def test_noise_goes_and_the_size_stays():
    rough = noisy_ball(0.01)
    fine = smooth(rough, 10)
    radius = np.linalg.norm(fine.vertices, axis=1)
    assert abs(radius.mean() - 0.6) < 0.004
    assert radius.std() < 0.5 * np.linalg.norm(rough.vertices, axis=1).std()

    def tilt(mesh: Mesh) -> float:
        outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
        return float(1 - np.abs((corner_normals(mesh) * outward).sum(axis=1)).mean())

    assert tilt(fine) < 0.3 * tilt(rough)
    assert smooth(rough, 0) is rough

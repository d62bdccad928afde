"""Gaussians: their gradients, the painted ball as Gaussians, and PLY files."""

from dataclasses import replace

import numpy as np
import pytest

from captures.cameras import orbit_cameras
from tests.triavatar.export.ball import SETTINGS, ball_color
from triavatar.export.bake import Views, photograph
from triavatar.export.compare import splat_agreement
from triavatar.export.gaussians.ply import FLIP, write_ply
from triavatar.export.gaussians.splats import (
    Splats,
    draw_splats,
    place_splats,
    tune,
    view_gradients,
)
from triavatar.export.surface import around


def few_splats(count: int = 12, seed: int = 3, size: float = 0.2) -> Splats:
    """Overlapping Gaussians of all shapes near the middle."""
    draw = np.random.default_rng(seed)
    frames = np.linalg.qr(draw.normal(size=(count, 3, 3)))[0]
    return Splats(
        draw.uniform(-0.3, 0.3, (count, 3)).astype(np.float32),
        (frames * np.sign(np.linalg.det(frames))[:, None, None]).astype(np.float32),
        draw.uniform(0.25 * size, size, (count, 3)).astype(np.float32),
        draw.uniform(0.3, 0.9, count).astype(np.float32),
        draw.uniform(0, 1, (count, 3)).astype(np.float32),
    )


def target(size: int = 40) -> Views:
    cameras = orbit_cameras(2, size=size, distance=4.0)
    draw = np.random.default_rng(5)
    color = draw.uniform(0, 1, (2, size, size, 3)).astype(np.float32)
    empty = np.zeros((2, size, size), np.float32)
    return Views(cameras, color, draw.uniform(0, 1, empty.shape).astype(np.float32), empty)


def loss(splats: Splats, views: Views, view: int) -> float:
    color, opacity = draw_splats(splats, views.cameras, view)
    error = np.square(color.astype(np.float64) - views.color[view]).sum()
    return (error + np.square(opacity.astype(np.float64) - views.opacity[view]).sum()) / color[
        ..., 0
    ].size


@pytest.mark.parametrize("name", ["positions", "scales", "opacity", "color"])
def test_gradients_are_those_of_the_picture(name):
    # Gradients to places leave out how the outline changes there: small ones hardly change.
    splats, views = few_splats(size=0.08 if name == "positions" else 0.2), target()
    found = getattr(view_gradients(splats, views, 1), name).astype(np.float64)
    values = getattr(splats, name)
    expected = np.zeros(values.shape)
    for index in np.ndindex(values.shape):
        sides = []
        for step in (5e-3, -5e-3):
            moved = values.astype(np.float64)
            # Scales are tuned by their logarithms.
            moved[index] = moved[index] * np.exp(step) if name == "scales" else moved[index] + step
            sides.append(loss(replace(splats, **{name: moved.astype(np.float32)}), views, 1))
        expected[index] = (sides[0] - sides[1]) / 1e-2
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > (0.99 if name == "positions" else 0.995)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=0.1)


def test_one_gaussian_is_drawn_as_the_formula_says():
    one = Splats(
        np.zeros((1, 3), np.float32), np.eye(3, dtype=np.float32)[None],
        np.full((1, 3), 0.1, np.float32), np.array([0.8], np.float32),
        np.array([[1.0, 0.5, 0.25]], np.float32),
    )  # fmt: skip
    cameras = orbit_cameras(1, size=41, distance=4.0, elevation_degrees=0.0)
    color, opacity = draw_splats(one, cameras, 0)
    variance = (0.1 * float(cameras.fx[0]) / 4.0) ** 2 + 0.3
    across = np.arange(41) - 20
    expected = 0.8 * np.exp(-0.5 * across**2 / variance)
    expected[expected < 1 / 255] = 0
    assert np.allclose(opacity[20], expected, atol=1e-5)
    assert np.allclose(color[20], opacity[20][:, None] * [1.0, 0.5, 0.25], atol=1e-5)


def test_tuned_gaussians_look_like_the_ball(maker):
    views = photograph(maker.field, around(10, 64, 3.9))
    others = photograph(maker.field, around(6, 64, 3.9, shift=0.5))
    placed = place_splats(maker.field, views, 3000)
    assert 1500 < len(placed) <= 3000
    radius = np.linalg.norm(placed.positions, axis=1)
    assert 0.5 < radius.min() and radius.max() < 0.61
    assert np.abs(placed.color - ball_color(placed.positions)).mean() < 0.02
    assert ((placed.rotations[:, :, 2] * placed.positions).sum(1) / radius).mean() > 0.97
    before = splat_agreement(others, placed)
    after = splat_agreement(others, tune(placed, views, 60))
    assert after.whole > before.whole + 3 and after.whole > 30 and after.inside > 35


def test_ply_reads_back(maker, tmp_path):
    pytest.importorskip("gsply")
    trimesh = pytest.importorskip("trimesh")
    splats, path = few_splats(), tmp_path / "few.ply"
    write_ply(path, splats, maker.placement)
    # By another library, property by property, as the format's first paper names them.
    found = trimesh.load(path).metadata["_ply_raw"]["vertex"]["data"]
    metres = (splats.positions - [0, maker.placement.ground, 0]) * SETTINGS.metres_per_unit
    names = ["x", "y", "z"]
    assert np.allclose(
        np.stack([found[n] for n in names], 1).squeeze(), metres * [1, -1, -1], atol=1e-6
    )
    sizes = np.stack([found[f"scale_{k}"] for k in range(3)], 1).squeeze()
    assert np.allclose(np.exp(sizes), splats.scales * SETTINGS.metres_per_unit, rtol=1e-4)
    shown = 0.5 + 0.28209479 * np.stack([found[f"f_dc_{k}"] for k in range(3)], 1).squeeze()
    assert np.allclose(shown, splats.color, atol=1e-4)
    assert np.allclose(1 / (1 + np.exp(-found["opacity"].squeeze())), splats.opacity, atol=1e-4)
    w, x, y, z = (found[f"rot_{k}"].squeeze() for k in range(4))
    third = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
    assert np.allclose(third, splats.rotations[:, :, 2] @ FLIP.T, atol=1e-4)


@pytest.mark.slow  # the library compiles for seconds
def test_compressed_ply_reads_back(maker, tmp_path):
    gsply = pytest.importorskip("gsply")
    splats, path = few_splats(300), tmp_path / "few.ply"
    write_ply(path, splats, maker.placement, compressed=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few.compressed.ply", "few.ply"]
    plain, small = (gsply.plyread(str(p)) for p in sorted(tmp_path.iterdir(), reverse=True))
    # The compressed form keeps positions to 11 bits of each chunk's extent, and orders anew.
    low = np.sort(plain.means, axis=0) - np.sort(small.means, axis=0)
    assert np.abs(low).max() < 2 * np.ptp(plain.means, axis=0).max() / 2**10

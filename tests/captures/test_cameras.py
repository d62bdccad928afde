"""Cameras and conventions against hand-computed pixels and the published numbers."""

import math

import numpy as np
import pytest
import torch

from captures.cameras import look_at, orbit_cameras, pinhole
from captures.conventions import CONVENTIONS, Convention, named_convention, similarity
from runtime.errors import UserError


def test_points_land_where_the_lens_equation_says():
    # Camera at (0, 0, 4) looking along −z, 70 mm lens on 36 mm, 100 pixels: f = 194.44 pixels.
    cameras = orbit_cameras(1, size=100, elevation_degrees=0, distance=4.0, fov_degrees=28.8415)
    focal = 70 / 36 * 100
    points = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 1.0]])
    pixels, depth = cameras.project(points)
    expected = [[50, 50], [50 + focal * 0.5 / 4, 50], [50, 50 - focal * 0.5 / 3]]
    assert torch.allclose(pixels[0], torch.tensor(expected), atol=1e-2)
    assert torch.allclose(depth[0], torch.tensor([4.0, 4.0, 3.0]), atol=1e-5)


def test_orbit_turns_from_the_face_towards_plus_x():
    cameras = orbit_cameras(4, size=8, elevation_degrees=0, distance=2.0)
    expected = torch.tensor([[0.0, 0, 2], [2, 0, 0], [0, 0, -2], [-2, 0, 0]])
    assert torch.allclose(cameras.c2w[:, :3, 3], expected, atol=1e-5)


def test_rays_and_projection_are_inverse():
    cameras = orbit_cameras(5, size=64, elevation_degrees=20)
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(0, 5, (50,), generator=generator)
    x, y = torch.rand(2, 50, generator=generator) * 64
    origins, directions = cameras.rays(view, x, y)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(50), atol=1e-6)
    pixels, _ = cameras.project(origins + 3.0 * directions)
    found = pixels[view, torch.arange(50)]
    assert torch.allclose(found, torch.stack([x, y], -1), atol=1e-2)


def test_image_rays_pass_pixel_centres_row_by_row():
    cameras = orbit_cameras(1, size=6)
    origins, directions = cameras.image_rays(0)
    pixels, _ = cameras.project(origins + 2 * directions)
    assert torch.allclose(pixels[0, 7], torch.tensor([1.5, 1.5]), atol=1e-3)
    assert torch.allclose(pixels[0, 5], torch.tensor([5.5, 0.5]), atol=1e-3)


def test_resizing_scales_pixels_but_not_rays():
    cameras = orbit_cameras(1, size=64)
    half = cameras.scaled_to(32, 32)
    point = torch.tensor([[0.3, -0.2, 0.1]])
    assert torch.allclose(half.project(point)[0] * 2, cameras.project(point)[0], atol=1e-4)


def test_a_camera_cannot_look_along_up():
    with pytest.raises(ValueError, match="straight along"):
        look_at(torch.tensor([[0.0, 3.0, 0.0]]), torch.zeros(3))


def test_blender_camera_json_projects_known_points():
    """A Blender camera on +x of a z-up world, looking back at the origin with z up."""
    # Columns: camera right = +y, up = +z, backwards = +x; ten file units away.
    c2w = np.array([[0.0, 0, 1, 10], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    convention = Convention(similarity(np.eye(3)[[1, 2, 0]], 0.4), "blender")
    house = torch.from_numpy(convention.to_house(c2w[None])).float()
    cameras = pinhole(house, math.degrees(2 * math.atan(18 / 70)), 100)
    # File points (x towards the camera, y to its right, z up) and their house positions.
    file_points = np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    world = np.concatenate([file_points, np.ones((3, 1))], axis=1) @ convention.world_from_file.T
    pixels, depth = cameras.project(torch.from_numpy(world[:, :3]).float())
    offset = 70 / 36 * 100 / 10
    expected = torch.tensor([[50, 50], [50 + offset, 50], [50, 50 - offset]])
    assert torch.allclose(pixels[0], expected, atol=1e-3)
    assert torch.allclose(depth[0], torch.full((3,), 4.0), atol=1e-5)


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_conventions_round_trip(name):
    convention = CONVENTIONS[name]
    cameras = orbit_cameras(6, size=8, elevation_degrees=15).c2w.double().numpy()
    file = convention.from_house(cameras)
    assert np.allclose(convention.to_house(file), cameras, atol=1e-12)
    rotation = file[:, :3, :3]
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-6)


def test_published_numbers():
    """Lengths over 23, times 0.6; x' = y, y' = z, z' = x; Blender camera axes."""
    convention = named_convention("rodinhd")
    c2w = np.eye(4)[None].copy()
    c2w[0, :3, 3] = [23.0, 46.0, 11.5]
    house = convention.to_house(c2w)[0]
    assert house[:3, 3].tolist() == pytest.approx([1.2, 0.3, 0.6])
    # A Blender camera without rotation looks down −z of its world, which is −y here.
    assert house[:3, 2].tolist() == pytest.approx([0, -1, 0])
    assert convention.scale == pytest.approx(0.6 / 23)


def test_unknown_and_mirrored_conventions_are_refused():
    with pytest.raises(UserError, match="unknown convention"):
        named_convention("maya")
    with pytest.raises(UserError, match="keeps handedness"):
        Convention(np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(UserError, match="keeps handedness"):
        Convention(np.diag([1.0, 2, 1, 1]))
    with pytest.raises(UserError, match="unknown camera axes"):
        Convention(np.eye(4), "maya")

"""Several pictures of one thing: their cameras, where it stands, and planes that show all."""

from dataclasses import replace

import pytest
import torch

from captures.cameras import orbit_cameras
from likeness.portrait.portrait_camera import FREEDOMS, moved
from likeness.several.alignment import _refined, placed_in_world
from likeness.several.fit_views import SeveralSettings, fit_views
from likeness.several.group import Group
from likeness.several.poses import find_pose, find_turn
from renderer.render import RenderSettings, render_images
from tests.likeness.test_fit import CAMERA, error, settings, world  # noqa: F401
from tests.likeness.test_portrait import blob, shown


def test_a_group_holds_the_pixels_of_all():
    planes, decoder = blob()
    portraits = [shown(planes, decoder, orbit_cameras(2, size=16)[i]) for i in range(2)]
    group = Group(tuple(portraits))
    assert group.color.shape == (512, 3) and group.alpha.shape == group.odds.shape == (512,)
    assert torch.equal(group.rays[0][256:], portraits[1].rays[0])
    assert torch.equal(group.color[:256].view(16, 16, 3), portraits[0].color)


@pytest.mark.parametrize("yaw, right", [(38.0, 0.0), (-52.0, 0.12)])
def test_the_turn_of_a_thing_that_stands_aside_is_found(yaw, right):
    planes, decoder = blob()
    usual = orbit_cameras(1, size=48, elevation_degrees=0.0)
    true = torch.zeros(len(FREEDOMS))
    true[0], true[3], true[5] = torch.tensor(yaw).deg2rad(), right, 0.1
    portrait = shown(planes, decoder, moved(usual, true)).seen_from(usual)
    found = find_pose(portrait, planes, decoder, (-60, -30, 0, 30, 60), tilts=(0,))
    assert found.error < 1e-3
    assert (found.freedoms[0] - true[0]).rad2deg().abs() < 6
    assert (found.freedoms[3] - true[3]).abs() < 0.03


def test_only_heads_that_are_turned_count_as_turned():
    planes, decoder = blob()
    usual = orbit_cameras(1, size=48, elevation_degrees=0.0)
    straight = shown(planes, decoder, usual)
    assert not find_turn(straight, planes, decoder).any()
    true = torch.zeros(len(FREEDOMS))
    true[0] = 0.5
    turned = shown(planes, decoder, moved(usual, true)).seen_from(usual)
    assert (find_turn(turned, planes, decoder)[0] - 0.5).abs() < 0.1


def test_a_capture_of_another_size_is_brought_into_place():
    planes, decoder = blob()
    true = torch.tensor([-0.15, 0.08, -0.05, 0.06])
    cameras = orbit_cameras(4, size=32)
    # The capture's cameras are those that the true similarity takes to where they saw the thing.
    seen = [shown(planes, decoder, placed_in_world(cameras[i], true)) for i in range(4)]
    given = [one.seen_from(cameras[i]) for i, one in enumerate(seen)]
    found = _refined(torch.zeros(4), given, planes, decoder)
    assert (found - true).abs().max() < 0.02


def few() -> SeveralSettings:
    return SeveralSettings(rounds=2, steps=25, rays=512, plane_steps=45)


def test_three_pictures_show_more_than_one(world):  # noqa: F811
    model, decoder, truth = world
    truth = truth.clone()
    truth[2, :4, 8:24, 8:24] += 0.3  # seen from the sides
    cameras = [CAMERA, *(orbit_cameras(1, size=32, azimuth_degrees=a) for a in (60.0, -60.0))]
    portraits = [shown(truth, decoder, camera) for camera in cameras]
    chosen = settings("full")
    one, _, _ = fit_views(
        portraits[:1], model, decoder, cameras_known=True, likeness=chosen, settings=few()
    )
    all_three, seen, record = fit_views(
        portraits, model, decoder, cameras_known=True, likeness=chosen, settings=few()
    )
    sides = [sum(error(p, decoder, truth, a) for a in (50.0, -70.0)) for p in (one, all_three)]
    assert sides[1] < 0.9 * sides[0]
    assert len(record.psnr) == len(seen) == 3
    assert record.azimuths == pytest.approx([0, 60, -60], abs=0.1)
    # Every picture is shown as well as the record says.
    march = RenderSettings(steps=96, grid=24, threshold=0.02)
    picture = render_images(all_three, decoder, seen[1].camera, 1.0, march).color[0]
    measured = -10 * (picture - portraits[1].color).square().mean().log10()
    assert record.psnr[1] == pytest.approx(float(measured), abs=0.5)


def test_cameras_that_nobody_knows_are_found(world):  # noqa: F811
    model, decoder, truth = world
    cameras = [CAMERA, orbit_cameras(1, size=32, azimuth_degrees=45.0, elevation_degrees=0.0)]
    usual = [shown(truth, decoder, camera).seen_from(CAMERA) for camera in cameras]
    chosen = replace(settings("full"))
    _, _, record = fit_views(
        usual, model, decoder, cameras_known=False, likeness=chosen, settings=few()
    )
    assert record.azimuths[1] == pytest.approx(45, abs=10)
    assert min(record.psnr) > 18

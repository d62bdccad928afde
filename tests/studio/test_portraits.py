"""Portraits as photographs are: light, camera, cut-out, what lies on disk."""

import json

import numpy as np
import pytest
import torch

from captures.cameras import Cameras
from captures.multiview import MultiViewSet
from captures.photographs import portrait_numbers, read_portrait, write_portrait
from runtime.errors import UserError
from studio.looks.head_rig import head_rig
from studio.looks.lighting import STUDIO, Lamp, Light, Sun, bake_light, bake_lights, light_rays
from studio.looks.photograph import Photograph, sample_photograph, take
from studio.looks.portrait_camera import EYES, Framing, portrait_camera, sample_framing
from studio.looks.random_light import KINDS, harmonics, sample_light
from studio.sets.records import POPULATION
from studio.sets.render_config import StudioRenderConfig
from studio.sets.render_set import render_set

AHEAD = np.array([0.0, 0.1, 1.0]) / np.linalg.norm([0.0, 0.1, 1.0])


def received(light, towards=AHEAD):
    rays = light_rays(light, 96)
    return (np.maximum(rays.directions @ towards, 0)[:, None] * rays.power).sum(0)


def test_lights_are_exposed_and_come_from_where_they_say():
    assert received(STUDIO).mean() == pytest.approx(0.95)
    left = Light("test", 0.05, 0.0, lamps=(Lamp((-1, 0, 0.3), 1.0, 6, (1.2, 1.0, 0.7)),))
    bright, dark = received(left, np.array([-1.0, 0, 0])), received(left, np.array([1.0, 0, 0]))
    assert bright.mean() > 5 * dark.mean()
    assert bright[0] / bright[2] > 1.5
    sun = Light("test", 0.3, 0.0, suns=(Sun((0.8, 0.6, 0.0), 2.0),))
    rays = light_rays(sun, 96)
    assert rays.sharp.sum() == 5
    assert (rays.directions[rays.sharp] @ [0.8, 0.6, 0.0]).min() > np.cos(np.radians(5))


def test_random_lights_are_of_all_kinds_and_never_black_nor_blown_out():
    rng = np.random.default_rng(4)
    lights = [sample_light(rng) for _ in range(200)]
    assert {light.kind for light in lights} == set(KINDS)
    faces = np.array([received(light).mean() for light in lights])
    assert faces.min() > 0.3 and faces.max() < 1.6
    sides = np.array(
        [[received(light, np.array([x, 0.0, 0.3])).mean() for x in (-1, 1)] for light in lights]
    )
    assert sides.min() > 0.03
    assert (sides.max(1) / sides.min(1) > 2).mean() > 0.2  # lit from the side
    assert sample_light(np.random.default_rng(1)) == sample_light(np.random.default_rng(1))


def test_harmonics_tell_brightness_direction_and_colour():
    even = harmonics(Light("test", 1.0, 0.0))
    assert np.allclose(even[1:], 0, atol=0.05 * even[0].max())
    side = harmonics(Light("test", 0.1, 0.0, lamps=(Lamp((1, 0, 0), 1.0, 3, (1.0, 0.5, 0.5)),)))
    assert side[3, 0] > 2 * np.abs(side[[1, 2], 0]).max()  # x
    assert side[3, 0] > 1.5 * side[3, 2]


def test_several_lights_in_one_bake_are_as_each_alone(reference):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    vertices, triangles = reference.blob()
    part = reference.solid(vertices, triangles)
    sunny = Light("test", 0.2, 0.1, suns=(Sun((1, 0.3, 0.2), 1.5),))
    both = bake_lights([part], (STUDIO, sunny), n_directions=24, map_size=64)
    alone = bake_lights([part], (sunny,), n_directions=24, map_size=64)
    assert np.allclose(both[1][0], alone[0][0], atol=1e-6)
    bake_light([part], n_directions=24, map_size=64)
    assert np.array_equal(part.light, both[0][0])
    towards_sun = part.normals @ [1, 0.3, 0.2] > 0.9
    assert both[1][0][towards_sun].mean() > 1.5 * both[1][0][part.normals[:, 0] < -0.8].mean()


def test_the_neutral_framing_is_the_frontal_portrait():
    frontal = head_rig(1, 128)
    camera = portrait_camera(Framing(), 128)
    points = torch.tensor([EYES, (0.1, -0.1, EYES[2]), (-0.2, 0.3, EYES[2])], dtype=torch.float64)
    theirs = frontal.to(dtype=torch.float64).project(points)[0]
    assert torch.allclose(camera.to(dtype=torch.float64).project(points)[0], theirs, atol=0.3)


def test_framings_turn_scale_and_shift_about_the_eyes():
    eyes = torch.tensor([EYES], dtype=torch.float64)

    def at(**settings):
        camera = portrait_camera(Framing(**settings), 100).to(dtype=torch.float64)
        return camera, camera.project(eyes)[0][0, 0]

    _, centre = at()
    turned, seen = at(yaw=12, pitch=-8, roll=5, distance=6.0)
    assert torch.allclose(seen, centre, atol=1e-6)
    position = turned.c2w[0, :3, 3] - eyes[0]
    assert position[0] > 0 and position[1] < 0
    assert float(position.norm()) == pytest.approx(6.0)
    _, shifted = at(shift=(0.03, -0.02), yaw=10)
    assert torch.allclose(shifted - centre, torch.tensor([3.0, -2.0], dtype=torch.float64))
    # Roll turns the picture clockwise: what is above the eyes moves to the right.
    rolled = portrait_camera(Framing(roll=10), 100).to(dtype=torch.float64)
    above = rolled.project(eyes + torch.tensor([0.0, 0.3, 0.0]))[0][0, 0]
    assert above[0] > centre[0] + 1
    rng = np.random.default_rng(0)
    drawn = [sample_framing(rng) for _ in range(300)]
    assert max(abs(f.yaw) for f in drawn) <= 15 and max(abs(f.pitch) for f in drawn) <= 15
    assert min(f.distance for f in drawn) < 2.5 and max(f.distance for f in drawn) > 6


def disc(size=64):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    out = np.zeros((size, size, 4), dtype=np.uint8)
    out[..., 3] = np.round(255 * np.clip(size * 0.35 - np.hypot(x, y) + 0.5, 0, 1))
    out[out[..., 3] > 0, :3] = (180, 120, 90)
    return out


def settings(**changes):
    plain = {"blur": 0.0, "contrast": 1.0, "saturation": 1.0, "balance": (1.0, 1.0, 1.0)}
    plain |= {"noise": 0.0, "quality": 95, "matte": "clean", "matte_shift": 0.0, "wrong": 0}
    return Photograph(**{**plain, **changes})


def test_a_good_photograph_keeps_the_picture_and_a_bad_matte_does_not():
    picture = disc()

    def taken(**changes):
        return take(picture, settings(**changes), np.random.default_rng(2))

    good = taken()
    assert np.array_equal(good[..., 3], picture[..., 3])
    middle = np.s_[24:40, 24:40]
    assert np.abs(good[middle][..., :3].astype(int) - (180, 120, 90)).max() < 6
    area = {
        name: taken(matte=name, matte_shift=shift)[..., 3].sum() / picture[..., 3].sum()
        for name, shift in (("eroded", -1.5), ("dilated", 1.5), ("soft", 0.0), ("hard", 0.0))
    }
    assert area["eroded"] < 0.97 and area["dilated"] > 1.03
    assert taken(matte="eroded", matte_shift=-1.8)[32, 32, 3] == 255  # not translucent
    noisy = taken(noise=0.03)[middle][..., :3].astype(float)
    assert 2 < noisy.std((0, 1)).mean() < 12
    wrong = taken(wrong=2)
    assert (np.abs(wrong[..., 3].astype(int) - picture[..., 3]) > 60).any()
    warm = taken(balance=(1.1, 1.0, 0.9))[32, 32]
    assert warm[0] > 190 and warm[2] < 86


def test_photographs_repeat_and_vary():
    picture = disc(32)
    first, again, other = (
        take(picture, sample_photograph(rng), rng)
        for rng in (np.random.default_rng(seed) for seed in (5, 5, 6))
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_portraits_are_read_as_they_were_written(tmp_path):
    camera = portrait_camera(Framing(yaw=9, shift=(0.02, 0.01)), 32)
    image = disc(32)
    write_portrait(tmp_path, 3, image, camera, {"light": {"kind": "sun"}})
    assert portrait_numbers(tmp_path) == [3]
    read = read_portrait(tmp_path, 3)
    assert np.array_equal(read.image, image) and read.record["light"] == {"kind": "sun"}
    points = torch.tensor([[0.1, 0.2, 0.3]])
    assert torch.allclose(
        read.camera.project(points)[0], camera.to(dtype=torch.float32).project(points)[0], atol=1e-2
    )
    small = read_portrait(tmp_path, 3, size=16)
    assert isinstance(small.camera, Cameras) and small.image.shape == (16, 16, 4)
    assert torch.allclose(small.camera.fx * 2, read.camera.fx)
    path = tmp_path / "portraits" / "portrait_003.json"
    record = json.loads(path.read_text())
    record["camera"]["focal"] = "long"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="focal"):
        read_portrait(tmp_path, 3)


@pytest.mark.assets
def test_portraits_are_added_without_touching_the_views(assets, tmp_path):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    common = {"assets": assets, "output_dir": tmp_path, "n_subjects": 1, "n_views": 1}
    common |= {"size": 24, "supersampling": 1, "seed": 3}
    render_set(StudioRenderConfig(**common))
    views = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*_000000.*")}
    assert views and not MultiViewSet(tmp_path).portraits("subject_000000")
    render_set(StudioRenderConfig(portraits=1, **common))
    folder = tmp_path / "subject_000000" / "portraits"
    first = (folder / "portrait_000.png").read_bytes()
    render_set(StudioRenderConfig(portraits=3, **common))
    assert all(p.stat().st_mtime_ns == then for p, then in views.items())
    assert (folder / "portrait_000.png").read_bytes() == first
    portraits = MultiViewSet(tmp_path).portraits("subject_000000")
    assert [p.number for p in portraits] == [0, 1, 2]
    assert portraits[0].record["expression"]["name"] == "resting"
    assert portraits[0].record["light"]["kind"] in KINDS
    assert portraits[0].record["render"]["population"] == POPULATION
    neutral = MultiViewSet(tmp_path).portrait("subject_000000")
    cover = [(p.image[..., 3] > 127).mean() / (neutral[..., 3] > 127).mean() for p in portraits]
    assert 0.6 < min(cover) and max(cover) < 1.5
    # One that is lost is drawn again, the same to the byte.
    (folder / "portrait_001.json").unlink()
    lost = (folder / "portrait_001.png").read_bytes()
    (folder / "portrait_001.png").unlink()
    render_set(StudioRenderConfig(portraits=3, **common))
    assert (folder / "portrait_001.png").read_bytes() == lost
    with pytest.raises(UserError, match="other settings"):
        render_set(StudioRenderConfig(portraits=3, portrait_size=32, **common))

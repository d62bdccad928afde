"""The shipped head model, a head of it that moves, and rays bent by it."""

import json
import struct

import numpy as np
import pytest

from runtime.errors import UserError
from triavatar.export.mesh import Mesh, place
from triavatar.rig.bend import bend
from triavatar.rig.expression import Expression, parse_expression
from triavatar.rig.head_model import MM_PER_UNIT, HeadModel, find_head_model
from triavatar.rig.moving import MovingAvatar, shell_faces, with_skirt
from triavatar.rig.register import Registered
from triavatar.rig.rigged import BONES, RiggedHead
from triavatar.views import still_cameras

EMPTY = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return find_head_model()


@pytest.fixture(scope="module")
def moving(model) -> MovingAvatar:
    z = np.zeros(len(model.basis))
    at_rest = Registered(z, model.skin(z), model.boxes(z), model.joints(z), 0.0)
    return MovingAvatar(RiggedHead(model, at_rest), EMPTY)


def landmark(model: HeadModel, points: np.ndarray, name: str) -> np.ndarray:
    return points[model.landmark_points[model.config.landmarks.index(name)]]


def test_the_average_head_is_a_head(model):
    """Measures of grown-ups' faces, in millimetres (Farkas 1994, means ± about 3 deviations)."""

    def apart(a: str, b: str) -> float:
        ends = landmark(model, model.mean, a) - landmark(model, model.mean, b)
        return float(np.linalg.norm(ends)) * MM_PER_UNIT

    assert 26 < apart("left eye, inner corner", "right eye, inner corner") < 42
    assert 80 < apart("left eye, outer corner", "right eye, outer corner") < 110
    assert 38 < apart("left mouth corner", "right mouth corner") < 65
    assert 55 < apart("upper lip", "chin") * 2 < 110


def test_blinking_closes_the_eyes_of_every_head(model, moving):
    rng = np.random.default_rng(0)
    for _ in range(5):
        z = rng.normal(size=len(model.basis))
        shape = Registered(z, model.skin(z), model.boxes(z), model.joints(z), 0.0)
        head = RiggedHead(model, shape)
        shut = head.expressed(parse_expression("eyeBlinkLeft,eyeBlinkRight"))
        for side in ("left", "right"):
            upper, lower = (landmark(model, shut, f"{side} {w} lid") for w in ("upper", "lower"))
            opened = (
                landmark(model, shape.skin, f"{side} upper lid")
                - landmark(model, shape.skin, f"{side} lower lid")
            )[1]
            assert abs(upper[1] - lower[1]) < 0.35 * opened


def test_shapes_move_their_own_side(model, moving):
    """Smiling on the left lifts the left corner, and leaves the right one where it is."""
    head = moving.head
    moved = head.expressed(parse_expression("mouthSmileLeft")) - head.points
    assert np.linalg.norm(landmark(model, moved, "left mouth corner")) > 0.01
    assert np.linalg.norm(landmark(model, moved, "right mouth corner")) < 0.002
    opened = head.expressed(parse_expression("jawOpen")) - head.points
    assert landmark(model, opened, "chin")[1] < -0.05
    teeth = opened[head.inner_points("lower teeth")]
    assert teeth[:, 1].max() < -0.03
    assert np.abs(opened[head.inner_points("upper teeth")]).max() == 0


def test_rays_of_a_resting_face_stay_straight(moving):
    cameras = still_cameras((25.0,), 24, 5.0, 4.0)
    bent = bend(moving, moving.posed(Expression()), cameras, 0, Expression())
    eye, way = (v.numpy() for v in cameras.image_rays(0))
    assert np.allclose(bent.directions, way, atol=1e-5)
    off = np.cross(bent.origins - eye, way)
    assert np.abs(off).max() < 1e-4 and bent.cover.max() == 0


def test_rays_follow_a_turned_head(moving):
    """A head turned by 30°, seen from 30°, is met by the rays of a resting head seen from 0°."""
    turned = Expression(yaw=30.0)
    cameras = still_cameras((0.0, 30.0), 32, 0.0, 4.0)
    pivot = moving.head.neck
    # About the neck, not about the origin: move the camera with it.
    bent = bend(moving, moving.posed(turned), cameras, 1, turned)
    way = bent.directions[16 * 32 + 16]
    straight = cameras.image_rays(0)[1][16 * 32 + 16].numpy()
    assert np.abs(pivot[0]) < 0.01 and np.allclose(way, straight, atol=0.02)


def test_an_open_mouth_shows_teeth_and_dark(moving):
    face = parse_expression("jawOpen=0.8")
    cameras = still_cameras((0.0,), 64, 0.0, 3.0)
    bent = bend(moving, moving.posed(face), cameras, 0, face)
    inside = bent.inside[bent.cover > 0.9]
    assert 5 < len(inside) < 300
    assert inside.mean(axis=1).max() > 0.4 and inside.mean(axis=1).min() < 0.2


def test_rigged_glb_holds_bones_and_all_shapes(moving, tmp_path):
    from triavatar.rig.rigged_glb import write_rigged_glb

    pytest.importorskip("pygltflib")
    head = moving.head
    texture = np.full((64, 64, 3), 128, dtype=np.uint8)
    file = tmp_path / "head.glb"
    write_rigged_glb(file, head, texture, None, place(head.points), "head")
    raw = file.read_bytes()
    length = struct.unpack("<I", raw[12:16])[0]
    gltf = json.loads(raw[20 : 20 + length])
    mesh = gltf["meshes"][0]
    assert mesh["extras"]["targetNames"] == list(head.model.shapes)
    assert len(mesh["primitives"][0]["targets"]) == len(mesh["weights"]) == 52
    assert [gltf["nodes"][j]["name"] for j in gltf["skins"][0]["joints"]] == list(BONES)
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(file)
    vertices = sum(len(g.vertices) for g in scene.geometry.values())
    assert vertices == len(head.model.source)


def test_a_damaged_head_model_is_refused(model, tmp_path):
    model.save(tmp_path / "rig")
    again = HeadModel.load(tmp_path / "rig")
    assert np.abs(again.basis - model.basis).max() < 1e-3
    bad = model.faces.copy()
    bad[0, 0] = 10**6
    from dataclasses import replace

    replace(model, faces=bad).save(tmp_path / "bad")
    with pytest.raises(UserError, match="damaged"):
        HeadModel.load(tmp_path / "bad")
    halves = replace(model, guess_mean=model.guess_mean[1:])
    names = replace(model, config=model.config.model_copy(update={"landmarks": ["nose"] * 16}))
    for bad, words in ((halves, "damaged"), (names, "doesn't name what this version knows")):
        bad.save(tmp_path / "bad")
        with pytest.raises(UserError, match=words):
            HeadModel.load(tmp_path / "bad")
    with pytest.raises(UserError, match="holds no head model"):
        HeadModel.load(tmp_path)


def test_the_shell_of_an_unwrapped_surface_keeps_its_charts(moving):
    """A hat of two hundred triangles, each with corners of its own: not one may be taken out."""
    line = np.linspace(-0.3, 0.3, 11)
    x, z = np.meshgrid(line, line, indexing="ij")
    top = moving.head.points[:, 1].max() + 0.1
    grid = np.stack([x, np.full_like(x, top), z], axis=-1).reshape(-1, 3).astype(np.float32)
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).reshape(-1)
    squares = np.stack([corner, corner + 1, corner + 12, corner + 11], axis=1)
    whole = np.concatenate([squares[:, [0, 1, 2]], squares[:, [0, 2, 3]]]).astype(np.int32)
    crumb = np.float32([[0, top + 0.3, 0], [0, top + 0.3, 0.01], [0.01, top + 0.3, 0]])
    for hat in (
        Mesh(grid, whole),
        Mesh(grid[whole.reshape(-1)], np.arange(600, dtype=np.int32).reshape(-1, 3)),
    ):
        count = len(hat.vertices)
        more = np.concatenate([hat.faces, [[count, count + 1, count + 2]]]).astype(np.int32)
        kept = shell_faces(moving.head, Mesh(np.concatenate([hat.vertices, crumb]), more))
        assert kept[:-1].all() and not kept[-1]


def test_a_skirt_closes_the_gap_to_the_skin():
    """A square above a floor, as an unwrapped surface: walls all around, none along its seam."""
    square = np.float32([[0, 0.03, 0], [0, 0.03, 0.1], [0.1, 0.03, 0.1], [0.1, 0.03, 0]])
    corners = np.array([0, 1, 2, 0, 2, 3])
    lid = Mesh(square[corners], np.arange(6, dtype=np.int32).reshape(2, 3))
    line = np.linspace(-0.05, 0.15, 41)
    x, z = np.meshgrid(line, line)
    floor = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=1)
    closed = with_skirt(lid, floor)
    assert len(closed.faces) == 2 + 4 * 2
    assert (closed.vertices[6:, 1] < -0.01).all() and (closed.faces[:2] == lid.faces).all()
    a, b, c = closed.vertices[closed.faces[2:]].transpose(1, 0, 2)
    outward = np.cross(b - a, c - a)
    middle = (a + b + c) / 3 - [0.05, 0, 0.05]
    # The lid faces up; its walls face away from under it.
    assert ((outward * middle)[:, [0, 2]].sum(axis=1) > 0).all()
    assert len(with_skirt(lid, floor - [0, 1, 0]).faces) == 2

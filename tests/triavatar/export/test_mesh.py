"""The textured mesh of a painted ball, against the ball."""

import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from tests.scenes import constant_decoder
from tests.triavatar.export.ball import SETTINGS, ball_color
from triavatar import cli
from triavatar.avatar import Avatar
from triavatar.export import libraries
from triavatar.export.atlas import _colored
from triavatar.export.bake import draw, photograph
from triavatar.export.compare import mesh_agreement
from triavatar.export.glb import write_glb
from triavatar.export.maker import Maker
from triavatar.export.raster import see
from triavatar.export.surface import around

VALIDATOR = """
const validator = require('gltf-validator'), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


def test_surface_is_the_ball(maker):
    mesh = maker.surface
    radius = np.linalg.norm(mesh.vertices, axis=1)
    # Half of the light is lost where density / 120 ≈ ln 2, 0.037 below the radius of density 1.
    assert 0.55 < radius.mean() < 0.585 and radius.std() < 0.003
    assert 1000 < len(mesh.faces) <= SETTINGS.mesh.triangles
    # Closed, and every triangle faces outwards: the enclosed volume says both.
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * radius.mean() ** 3, rel=0.02)
    assert ((mesh.normals * mesh.vertices).sum(1) / radius).min() > 0.97


def test_texture_is_the_paint(maker):
    mesh = maker.mesh
    assert mesh.texture.shape == (256, 256, 3)
    assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1
    views = photograph(maker.field, around(6, 64, 3.9, shift=0.5))
    found = mesh_agreement(views, mesh)
    assert found.inside > 45 and found.worst > 43 and found.overlap > 0.93
    # The truth itself: what a pixel shows is the paint where it looks.
    picture, hit = draw(mesh, views.cameras, 2)
    places = see(mesh.vertices, mesh.faces, views.cameras, 2).blend(mesh.vertices, mesh.faces)
    assert np.abs(picture[hit] - ball_color(places)).mean() < 0.01


def test_slivers_take_a_neighbours_color():
    # Two triangles with a chart, a third between them without one: its corners' places are 0.
    source = np.array([0, 1, 2, 1, 2, 3, 0, 1, 3])
    faces = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    uv = np.array([[0.1, 0.1], [0.2, 0.1], [0.1, 0.2], [0.6, 0.5], [0.5, 0.6], [0.7, 0.7]])
    uv = np.concatenate([uv, np.zeros((3, 2))])
    new_source, new_faces, new_uv = _colored(source, faces, uv)
    assert (new_source[new_faces] == source[faces]).all()  # the same triangles in space
    assert (new_faces[:2] == faces[:2]).all() and (new_uv[:9] == uv).all()
    sliver = new_uv[new_faces[2]]
    assert (sliver == sliver[0]).all() and (uv[:6] == sliver[0]).all(axis=1).any()


def test_wrong_texture_is_noticed(maker):
    views = photograph(maker.field, around(4, 48, 3.9, shift=0.5))
    upside_down = replace(maker.mesh, texture=maker.mesh.texture[::-1])
    assert mesh_agreement(views, upside_down).inside < 25


@pytest.mark.parametrize("kind", ["glb", "obj"])
def test_files_read_back_by_another_library(maker, tmp_path, kind):
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / f"ball.{kind}"
    maker.write(path, "a ball")
    read = trimesh.load(path, force="mesh")
    height = 2 * 0.567 * SETTINGS.metres_per_unit
    assert read.bounds[0][1] == pytest.approx(0, abs=1e-6)  # it stands on the ground
    assert read.bounds[1][1] == pytest.approx(height, rel=0.03)
    assert len(read.faces) == len(maker.mesh.faces)
    material = read.visual.material
    image = material.baseColorTexture if kind == "glb" else material.image
    assert np.asarray(image).shape == (256, 256, 3)
    # The colour at a vertex, by the other library's own look-up (its v points up).
    colors = read.visual.to_color().vertex_colors[:, :3] / 255
    units = read.vertices / SETTINGS.metres_per_unit + [0, maker.placement.ground, 0]
    assert np.abs(colors - ball_color(units)).mean() < 0.02


@pytest.mark.parametrize("unlit", [False, True])
def test_glb_passes_the_validator(maker, tmp_path, unlit):
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('gltf-validator')"]).returncode:
        pytest.skip("needs node and its package gltf-validator (NODE_PATH names its folder)")
    path = tmp_path / "ball.glb"
    write_glb(path, maker.placement.mesh(maker.mesh), "ball", unlit)
    done = subprocess.run([node, "-e", VALIDATOR, str(path)], capture_output=True, text=True)
    issues = json.loads(done.stdout)
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]


def test_command_writes_every_format(ball_folder, tmp_path, capsys):
    small = ["--export.mesh.triangles", "800", "--export.mesh.texture", "128"]
    small += ["--export.mesh.resolution", "48", "--export.views", "8", "--export.view_size", "32"]
    small += ["--export.march.steps", "96", "--export.march.grid", "32"]
    command = ["export", str(ball_folder), "--to", "obj", "glb", "--output_dir", str(tmp_path)]
    assert cli.main([*command, *small, "--check", "--device", "cpu"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ball.glb", "ball.jpg", "ball.mtl", "ball.obj",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "ball.glb" in printed and "dB inside the silhouette" in printed


def test_bad_input_in_one_sentence(ball_folder, tmp_path, monkeypatch):
    empty, fog = constant_decoder(0.001), constant_decoder(0.15)
    planes = torch.zeros(3, 6, 8, 8)
    with pytest.raises(UserError, match="empty"):
        Avatar(planes, empty).export(tmp_path / "a.glb", SETTINGS)
    with pytest.raises(UserError, match="no surface"):
        Avatar(planes, fog).export(tmp_path / "a.glb", SETTINGS)
    with pytest.raises(UserError, match="suffix"):
        Avatar(planes, fog).export(tmp_path / "a.fbx", SETTINGS)
    with pytest.raises(UserError, match="power of two"):
        cli.run(["export", str(ball_folder), "--export.mesh.texture", "1000"])
    with pytest.raises(UserError, match="does not exist"):
        cli.run(["export", str(tmp_path / "nobody")])
    fitted = FittedSet.open(ball_folder)
    maker = Maker(fitted.load("ball"), fitted.decoder(), SETTINGS)
    monkeypatch.setattr(libraries.importlib, "import_module", _absent)
    with pytest.raises(UserError, match="scikit-image.*triavatar\\[export\\]"):
        maker.write(tmp_path / "a.glb")
    assert not list(tmp_path.iterdir())


def _absent(name: str):
    raise ImportError(f"No module named {name!r}")


def test_parts_are_drawn_as_the_whole_is(maker):
    """The mesh in two halves, each with a texture of its own, is the mesh."""
    from triavatar.export.compare import mesh_agreement, rigged_agreement
    from triavatar.rig.moving import part_of

    mesh = maker.mesh
    left = mesh.vertices[mesh.faces].mean(axis=1)[:, 0] < 0
    whole = mesh_agreement(maker.views, mesh)
    parts = rigged_agreement(maker.views, [part_of(mesh, left), part_of(mesh, ~left)])
    assert parts.inside == pytest.approx(whole.inside, abs=0.05)
    assert parts.overlap == pytest.approx(whole.overlap, abs=1e-3)
    half = rigged_agreement(maker.views, [part_of(mesh, left)])
    assert half.overlap < 0.9

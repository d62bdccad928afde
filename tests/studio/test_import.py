"""Importers: cameras land where they stood; bad captures are refused."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captures.cameras import look_at
from captures.imports.transforms import ImportTransformsConfig, import_transforms
from captures.multiview import MultiViewSet
from runtime.errors import UserError
from studio.sets.import_meshes import ImportMeshesConfig, import_meshes


def _capture(folder, change=None):
    """Three OpenGL cameras round a z-up subject that looks along -y, 2 file units a world unit."""
    folder.mkdir(parents=True)
    eyes = torch.tensor([[6.0, 0.0, 2.0], [0.0, -6.0, 0.0], [-4.0, 4.0, 1.0]])
    c2w = look_at(eyes, torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0])).numpy()
    frames = []
    for i in range(3):
        matrix = c2w[i].astype(float)
        matrix[:3, 1:3] *= -1  # OpenCV → OpenGL
        frames.append({"file_path": f"./v{i}", "transform_matrix": matrix.tolist()})
        Image.new("RGBA", (16, 16), (i, 0, 0, 255)).save(folder / f"v{i}.png")
    content = {"camera_angle_x": 0.5, "frames": frames, **(change or {})}
    (folder / "transforms.json").write_text(json.dumps(content))
    return c2w


def test_transforms_become_our_cameras(tmp_path):
    c2w = _capture(tmp_path / "in" / "anna")
    config = ImportTransformsConfig(tmp_path / "in", tmp_path / "out", scale=0.5, centre=(0, 0, 1))
    import_transforms(config)
    views = MultiViewSet(tmp_path / "out")
    loaded = views.load("anna")
    assert loaded.images[0][0, 0, 0] == 1  # the view from -y, in front of the face, comes first
    # A file point and its place in our world project to the same pixel.
    file_point = np.array([0.3, -0.2, 1.4])
    house = 0.5 * np.array([file_point[0], file_point[2] - 1, -file_point[1]])
    focal = 8 / math.tan(0.25)
    for frame, original in enumerate((1, 0, 2)):
        local = (file_point - c2w[original, :3, 3]) @ c2w[original, :3, :3]
        expected = focal * local[:2] / local[2] + 8
        pixel = loaded.cameras.project(torch.tensor(house[None], dtype=torch.float32))[0]
        assert np.abs(pixel[frame, 0].numpy() - expected).max() < 1e-3


def test_splits_in_files_of_their_own_are_kept(tmp_path, capsys):
    """As in NeRF's synthetic scenes: transforms_train.json, …_test; frame 0 is of training."""
    _capture(tmp_path / "in" / "anna")
    whole = json.loads((tmp_path / "in" / "anna" / "transforms.json").read_text())
    (tmp_path / "in" / "anna" / "transforms.json").unlink()
    for name, chosen in (("train", [0, 2]), ("test", [1])):
        part = whole | {"frames": [whole["frames"][i] for i in chosen]}
        (tmp_path / "in" / "anna" / f"transforms_{name}.json").write_text(json.dumps(part))
    import_transforms(ImportTransformsConfig(tmp_path / "in", tmp_path / "out", scale=0.5))
    views = MultiViewSet(tmp_path / "out")
    assert views.split_views("train", "anna") == [0, 1]
    assert views.split_views("test", "anna") == [2]
    assert views.load("anna").images[2][0, 0, 0] == 1  # the view that the file held out
    said = capsys.readouterr().out
    assert "1 subject," in said and f"triavatar doctor {tmp_path / 'out'}" in said


@pytest.mark.parametrize("binary", [True, False])
def test_compressed_meshes_are_called_that(tmp_path, binary):
    content = {"asset": {"version": "2.0"}, "extensionsRequired": ["KHR_draco_mesh_compression"]}
    text = json.dumps(content).encode()
    path = tmp_path / ("anna.glb" if binary else "anna.gltf")
    header = b"glTF" + struct.pack("<IIII", 2, 20 + len(text), len(text), 0x4E4F534A)
    path.write_bytes(header + text if binary else text)
    with pytest.raises(UserError, match="Draco.*without compression"):
        import_meshes(ImportMeshesConfig(path, tmp_path / "out"))


@pytest.mark.parametrize(
    "change, word", [({"k1": 0.1}, "distortion"), ({"frames": []}, "frames"),
                     ({"fl_x": 10, "w": 16, "h": 16, "cx": 2}, "cx")],
)  # fmt: skip
def test_captures_the_format_cannot_hold_are_refused(tmp_path, change, word):
    _capture(tmp_path / "a", change)
    with pytest.raises(UserError, match=word):
        import_transforms(ImportTransformsConfig(tmp_path / "a", tmp_path / "out"))


def test_parallel_axes_and_empty_folders_are_refused(tmp_path):
    config = ImportTransformsConfig(tmp_path, tmp_path / "out", up="+z", front="-z")
    with pytest.raises(UserError, match="parallel"):
        import_transforms(config)
    with pytest.raises(UserError, match="no transforms.json"):
        import_transforms(ImportTransformsConfig(tmp_path, tmp_path / "out"))
    with pytest.raises(UserError, match="no mesh"):
        import_meshes(ImportMeshesConfig(tmp_path, tmp_path / "out"))


def test_mesh_is_rendered_upright_and_bare_ones_refused(tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="the mesh importer needs trimesh")
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    box = trimesh.creation.box((1.0, 0.4, 2.0))  # z up, wide along x
    top = box.vertices[:, 2] > 0
    colours = np.where(top[:, None], [255, 0, 0, 255], [0, 0, 255, 255]).astype(np.uint8)
    box.visual = trimesh.visual.ColorVisuals(box, vertex_colors=colours)
    (tmp_path / "in").mkdir()
    box.export(tmp_path / "in" / "box.ply")
    config = ImportMeshesConfig(
        tmp_path / "in",
        tmp_path / "out",
        up="+z",
        front="-y",
        n_views=2,
        size=32,
        relight=False,
        test_view_every=2,
    )
    import_meshes(config)
    views = MultiViewSet(tmp_path / "out")
    assert (views.split_views("train", "box"), views.split_views("test", "box")) == ([0], [1])
    portrait = views.portrait("box")
    alpha = portrait[..., 3] > 0
    assert alpha[16].sum() == pytest.approx(0.5 * alpha[:, 16].sum(), abs=2)
    assert portrait[6, 16, 0] > 150 > portrait[6, 16, 2]
    assert portrait[25, 16, 2] > 150 > portrait[25, 16, 0]
    bare = trimesh.creation.box((1.0, 1.0, 1.0))
    bare.export(tmp_path / "in" / "bare.obj")
    with pytest.raises(UserError, match="bare.obj"):
        import_meshes(config)


def _change(folder, **changes):
    path = folder / "transforms.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.diag([-1.0, 1, 1, 1]), "mirrors or stretches"),
        (np.diag([1.0, 3, 1, 1]), "mirrors or stretches"),
        (np.zeros((4, 4)), "mirrors or stretches"),
        (np.diag([1.0, 1, 1, np.nan]), "must be a finite number"),
        (np.full((4, 4), 1e300), "less than or equal"),
    ],
)
def test_what_no_reader_would_take_is_not_imported(tmp_path, wrong, words):
    _capture(tmp_path / "a")
    frames = json.loads((tmp_path / "a" / "transforms.json").read_text())["frames"]
    frames[1]["transform_matrix"] = wrong.tolist()
    _change(tmp_path / "a", frames=frames)
    with pytest.raises(UserError, match=words):
        import_transforms(ImportTransformsConfig(tmp_path / "a", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_wrong_field_of_view_and_pictures_elsewhere_are_refused(tmp_path):
    _capture(tmp_path / "a")
    for angle in (-0.5, 4.0):
        _change(tmp_path / "a", camera_angle_x=angle)
        with pytest.raises(UserError, match="camera_angle_x"):
            import_transforms(ImportTransformsConfig(tmp_path / "a", tmp_path / "out"))
    _capture(tmp_path / "b")
    frames = json.loads((tmp_path / "b" / "transforms.json").read_text())["frames"]
    frames[0]["file_path"] = "../a/v0.png"
    _change(tmp_path / "b", frames=frames)
    with pytest.raises(UserError, match="leads out of"):
        import_transforms(ImportTransformsConfig(tmp_path / "b", tmp_path / "out"))


def test_the_folder_one_is_in_has_a_name(tmp_path, monkeypatch):
    _capture(tmp_path / "anna" / "deeper")
    _capture(tmp_path / "anna" / "capture")
    monkeypatch.chdir(tmp_path / "anna" / "capture")
    for number, source in enumerate((".", "../deeper/../capture")):
        import_transforms(ImportTransformsConfig(Path(source), tmp_path / f"out{number}"))
        assert MultiViewSet(tmp_path / f"out{number}").names == ["capture"]


def test_sets_of_others_are_not_touched(tmp_path):
    _capture(tmp_path / "a")
    (tmp_path / "out" / "bert").mkdir(parents=True)
    (tmp_path / "out" / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match="did not make"):
        import_transforms(ImportTransformsConfig(tmp_path / "a", tmp_path / "out"))
    assert (tmp_path / "out" / "dataset.json").read_text() == "{}"
    # The same import may be done again, with other settings only elsewhere.
    config = ImportTransformsConfig(tmp_path / "a", tmp_path / "mine")
    import_transforms(config)
    import_transforms(config)
    config.scale = 2.0
    with pytest.raises(UserError, match="begun with scale = 1.0"):
        import_transforms(config)


def test_meshes_with_nan_or_one_name_are_refused(tmp_path):
    pytest.importorskip("trimesh", reason="the mesh importer needs trimesh")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt nan nan\nvt 1 1\n"
    (tmp_path / "anna.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "skin.png")
    text = f"mtllib anna.mtl\n{corners}usemtl skin\nf 1/1 2/2 3/3\n"
    (tmp_path / "anna.obj").write_text(text)
    config = ImportMeshesConfig(tmp_path, tmp_path / "out", n_views=1, size=8, relight=False)
    with pytest.raises(UserError, match="texture coordinates"):
        import_meshes(config)
    (tmp_path / "anna.obj").write_text(text.replace("v 1 0 0", "v nan 0 0"))
    with pytest.raises(UserError, match="vertices that are NaN"):
        import_meshes(config)
    (tmp_path / "anna.ply").write_text("")
    with pytest.raises(UserError, match="have the same name"):
        import_meshes(config)

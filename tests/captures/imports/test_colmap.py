"""COLMAP and multi-view importers: known points keep their pixels; faults are told."""

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from captures.cameras import look_at
from captures.conventions import named_convention
from captures.imports.colmap import ImportColmapConfig, import_colmap
from captures.imports.colmap_model import read_model
from captures.imports.imported_set import closest_point, level_up, seen_tangent
from captures.imports.views import ImportViewsConfig, import_views
from captures.multiview import MultiViewSet, write_view
from runtime.errors import UserError
from studio.looks.head_rig import head_rig

# A tilted world with its own unit: file = TURN · house · 3 + SHIFT.
TURN = Rotation.from_euler("xyz", [110, 25, -40], degrees=True).as_matrix()
SHIFT = np.array([4.0, -2.0, 7.0])
WIDTH, HEIGHT, FX, FY, CX, CY = 96, 72, 130.0, 128.0, 50.3, 34.6
POINTS = np.array([[0.0, 0.0, 0.0], [0.25, 0.1, 0.2], [-0.2, -0.3, 0.1]])


def _poses():
    """House c2w of six level cameras; number 2 stands in front."""
    azimuth = np.radians([100, 200, 0, 300, 50, 150])
    height = np.array([0.9, -0.6, 0.4, 0.2, 1.1, 0.0])
    eyes = np.stack([3.5 * np.sin(azimuth), height, 3.5 * np.cos(azimuth)], -1)
    return look_at(torch.from_numpy(eyes), torch.zeros(3, dtype=torch.float64)).numpy()


def _pixel(c2w, point):
    local = (point - c2w[:3, 3]) @ c2w[:3, :3]
    return np.array([FX * local[0] / local[2] + CX, FY * local[1] / local[2] + CY])


def _dot(c2w, point):
    """A picture with a soft round dot, alpha only there, where the point projects."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    u, v = _pixel(c2w, point)
    alpha = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 2.0**2))
    rgba = np.full((HEIGHT, WIDTH, 4), 200, dtype=np.uint8)
    rgba[..., 3] = np.round(255 * alpha)
    return rgba


def write_capture(folder, binary, point=POINTS[0], extra=(), model="PINHOLE", masked=False):
    """A capture of the dot in COLMAP's layout; returns house poses by picture name."""
    (folder / "images").mkdir(parents=True)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    poses = {f"shot {i}.png": pose for i, pose in enumerate(_poses())}
    rows = []
    for name, pose in poses.items():
        rgba = _dot(pose, point)
        Image.fromarray(rgba[..., :3] if masked else rgba).save(folder / "images" / name)
        if masked:
            (folder / "masks").mkdir(exist_ok=True)
            Image.fromarray(rgba[..., 3]).save(folder / "masks" / f"{name}.png")
        rotation = (TURN @ pose[:3, :3]).T
        position = 3 * TURN @ pose[:3, 3] + SHIFT
        x, y, z, w = Rotation.from_matrix(rotation).as_quat()
        rows.append(((w, x, y, z), -rotation @ position, name))
    params = (FX, FY, CX, CY, *extra)
    points = 3 * np.random.default_rng(0).uniform(-1, 1, (1000, 3)) @ TURN.T + SHIFT
    if binary:
        ids = {"PINHOLE": 1, "OPENCV": 4, "OPENCV_FISHEYE": 5}
        data = struct.pack("<Q", 1) + struct.pack("<iiQQ", 7, ids[model], WIDTH, HEIGHT)
        (sparse / "cameras.bin").write_bytes(data + struct.pack(f"<{len(params)}d", *params))
        data = struct.pack("<Q", len(rows))
        for i, (q, t, name) in enumerate(rows):
            data += struct.pack("<i7di", i + 1, *q, *t, 7) + name.encode() + b"\0"
            data += struct.pack("<Q", 2) + 2 * struct.pack("<ddq", 1.5, 2.5, -1)
        (sparse / "images.bin").write_bytes(data)
        data = struct.pack("<Q", len(points))
        for i, p in enumerate(points):
            data += struct.pack("<Q3d3BdQ", i, *p, 1, 2, 3, 0.5, 1) + struct.pack("<ii", 1, 0)
        (sparse / "points3D.bin").write_bytes(data)
        return poses
    values = " ".join(map(repr, params))
    (sparse / "cameras.txt").write_text(f"# cameras\n7 {model} {WIDTH} {HEIGHT} {values}\n")
    text = "# images\n"
    for i, (q, t, name) in enumerate(rows):
        numbers = " ".join(repr(float(v)) for v in (*q, *t))
        text += f"{i + 1} {numbers} 7 {name}\n" + ("\n" if i % 2 else "1.5 2.5 -1\n")
    (sparse / "images.txt").write_text(text)
    lines = [f"{i} {p[0]} {p[1]} {p[2]} 1 2 3 0.5 1 0" for i, p in enumerate(points)]
    (sparse / "points3D.txt").write_text("\n".join(lines) + "\n")
    return poses


@pytest.mark.parametrize("binary", [True, False])
def test_both_formats_hold_the_poses(tmp_path, binary):
    poses = write_capture(tmp_path, binary)
    model = read_model(tmp_path / "sparse" / "0")
    assert [image.name for image in model.images] == list(poses)
    assert model.points.shape == (1000, 3)
    for image in model.images:
        pose = poses[image.name]
        assert np.allclose(image.c2w[:3, :3], TURN @ pose[:3, :3], atol=1e-9)
        assert np.allclose(image.c2w[:3, 3], 3 * TURN @ pose[:3, 3] + SHIFT, atol=1e-9)


@pytest.mark.parametrize("binary, masked", [(True, False), (False, True)])
def test_a_known_point_projects_on_its_dot_after_import(tmp_path, binary, masked):
    point = POINTS[1]
    poses = write_capture(tmp_path / "in" / "anna", binary, point, masked=masked)
    config = ImportColmapConfig(
        tmp_path / "in", tmp_path / "out", frontal="shot 2.png", size=128, test_view_every=3
    )
    import_colmap(config)
    views = MultiViewSet(tmp_path / "out")
    loaded = views.load("anna")
    # The importer takes out the tilt, the shift and the turn about the vertical, and finds a scale.
    scale = np.linalg.norm(loaded.cameras.c2w[0, :3, 3]) / np.linalg.norm(
        poses["shot 2.png"][:3, 3]
    )
    pixels = loaded.cameras.project(torch.from_numpy(scale * point[None]).float())[0][:, 0]
    y, x = np.mgrid[:128, :128] + 0.5
    order = ["shot 2.png", *(name for name in poses if name != "shot 2.png")]
    for i, name in enumerate(order):
        alpha = loaded.images[i][..., 3].astype(float)
        found = np.array([(alpha * x).sum(), (alpha * y).sum()]) / alpha.sum()
        assert np.abs(pixels[i].numpy() - found).max() < 0.1
        expected = scale * poses[name][:3, 3]
        assert np.abs(loaded.cameras.c2w[i, :3, 3].numpy() - expected).max() < 1e-4
    assert views.split_views("test", "anna") == [2, 5]
    assert 0 in views.split_views("train", "anna") and len(views.split_views("train", "anna")) == 4


def test_what_the_border_cuts_off_does_not_become_transparent(tmp_path):
    write_capture(tmp_path / "in" / "anna", True)
    rgba = np.full((HEIGHT, WIDTH, 4), 200, dtype=np.uint8)
    rgba[..., 3] = 0
    rgba[20:, 40:60, 3] = 255  # a bust that goes on below the picture
    assert seen_tangent(rgba, FX, FY, CX, CY) == pytest.approx((HEIGHT - CY) / FY)
    assert seen_tangent(np.roll(rgba, -5, 0), FX, FY, CX, CY) == np.inf
    for picture in (tmp_path / "in" / "anna" / "images").iterdir():
        Image.fromarray(rgba).save(picture)
    import_colmap(
        ImportColmapConfig(tmp_path / "in", tmp_path / "out", frontal="shot 2.png", size=96)
    )
    for image in MultiViewSet(tmp_path / "out").load("anna").images:
        assert image[-1, :, 3].max() > 230 and image[0, :, 3].max() == 0


def test_fitting_to_points_and_naming_directions(tmp_path):
    write_capture(tmp_path / "in", True)
    import_colmap(
        ImportColmapConfig(
            tmp_path / "in", tmp_path / "out", frontal="shot 2.png", fit="points", size=32
        )
    )
    eye = MultiViewSet(tmp_path / "out").load("in").cameras.c2w[0, :3, 3]
    # The points fill a cube of half width 1 world unit before, 0.9 after.
    assert 0.8 < float(eye.norm()) / float(np.hypot(3.5, 0.4)) < 1.1
    assert abs(float(eye[0])) < 1e-4 and float(eye[2]) > 0


@pytest.mark.parametrize(
    "model, extra, word",
    [("OPENCV", (0.2, 0.0, 0.0, 0.0), "undistort"), ("OPENCV_FISHEYE", (0.0,) * 4, "no pinhole")],
)
@pytest.mark.parametrize("binary", [True, False])
def test_lenses_are_refused(tmp_path, model, extra, word, binary):
    write_capture(tmp_path, binary, model=model, extra=extra)
    with pytest.raises(UserError, match=word):
        read_model(tmp_path / "sparse" / "0")


def test_negligible_distortion_passes(tmp_path):
    write_capture(tmp_path, False, model="OPENCV", extra=(1e-3, 0.0, 0.0, 0.0))
    assert read_model(tmp_path / "sparse" / "0").cameras[7].displacement() < 0.1


def test_faulty_captures_are_told(tmp_path):
    write_capture(tmp_path / "in", True)
    common = {"output_dir": tmp_path / "out", "size": 32}
    with pytest.raises(UserError, match="--frontal"):
        import_colmap(ImportColmapConfig(tmp_path / "in", **common))
    with pytest.raises(UserError, match="no registered picture"):
        import_colmap(ImportColmapConfig(tmp_path / "in", frontal="x.png", **common))
    with pytest.raises(UserError, match="no COLMAP model"):
        import_colmap(ImportColmapConfig(tmp_path / "nowhere", front="+z", **common))
    bare = tmp_path / "in" / "images" / "shot 3.png"
    Image.open(bare).convert("RGB").save(bare)
    with pytest.raises(UserError, match="shot 3.png has no alpha"):
        import_colmap(ImportColmapConfig(tmp_path / "in", frontal="shot 2.png", **common))
    images = tmp_path / "in" / "sparse" / "0" / "images.bin"
    images.write_bytes(images.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        import_colmap(ImportColmapConfig(tmp_path / "in", frontal="shot 2.png", **common))


def test_look_at_point_and_up_of_cameras_on_one_side():
    poses = _poses()
    assert np.allclose(closest_point(poses[:, :3, 3], poses[:, :3, 2]), 0, atol=1e-9)
    assert np.allclose(level_up(poses), [0, 1, 0], atol=1e-9)
    with pytest.raises(UserError, match="same way"):
        closest_point(poses[:1, :3, 3].repeat(2, 0), poses[:1, :3, 2].repeat(2, 0))


def _rodin(folder, n_subjects=2, factor=1.0):
    rig = head_rig(12, 16)
    rig.c2w[:, :3, 3] *= factor
    image = np.zeros((16, 16, 4), dtype=np.uint8)
    image[4:12, 4:12] = 255
    for k in range(n_subjects):
        for i in range(12):
            write_view(folder / f"id{k}", i, image, rig, i, named_convention("rodinhd"))
    return rig


def test_rodin_folders_get_a_description(tmp_path, capsys):
    rig = _rodin(tmp_path, 3)
    (tmp_path / "id1" / "img_proc_fg_000005.png").unlink()
    config = ImportViewsConfig(tmp_path, test_subjects=1)
    import_views(config)
    said = capsys.readouterr().out
    assert "left out: id1" in said and "img_proc_fg_000005.png" in said and "2 subjects" in said
    views = MultiViewSet(tmp_path)
    assert views.split("train") == ["id0"] and views.split("test") == ["id2"]
    assert views.split_views("test", "id0") == [5, 11]
    assert torch.allclose(views.load("id0").cameras.c2w, rig.c2w.float(), atol=1e-5)
    with pytest.raises(UserError, match="already"):
        import_views(config)


def test_wrong_scale_and_axes_are_told_with_the_cure(tmp_path):
    _rodin(tmp_path, 1, factor=23.0)
    with pytest.raises(UserError, match="--scale 0.0434"):
        import_views(ImportViewsConfig(tmp_path))
    import_views(ImportViewsConfig(tmp_path, scale=1 / 23))
    assert json.loads((tmp_path / "dataset.json").read_text())["provenance"]["scale"] == 1 / 23
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(UserError, match="wrong camera axes|another --convention"):
        import_views(ImportViewsConfig(tmp_path, convention="house"))

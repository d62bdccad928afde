"""Reading the asset formats from tiny hand-made folders; damage is told in one sentence."""

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from studio.assets import AssetFolder, diffuse_texture, read_proxy, read_target
from studio.drawing.obj import read_obj
from studio.drawing.textures import read_texture
from studio.people.body import Shape, hat_weights, macro_weights

OBJ = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def test_obj_reads_quads_triangles_groups_and_negative_indices(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text(OBJ + "g one\nf 1/1 2/2 3/3 4/4\ng two\nf -4/-4 -3/-3 -2/-2\n")
    mesh = read_obj(path)
    assert mesh.faces.tolist() == [[0, 1, 2, 3], [0, 1, 2, -1]]
    assert mesh.face_uv.tolist() == mesh.faces.tolist()
    assert mesh.groups["two"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        OBJ,
        OBJ + "f 1/1 2/2 9/3\n",
        "v 0 zero 0\nf 1 1 1\n",
        OBJ + "f 1/1 2/9 3/3\n",
        "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    ],
)
def test_damaged_obj_is_refused_by_name(tmp_path, text):
    path = tmp_path / "broken.obj"
    path.write_text(text)
    with pytest.raises(UserError, match="broken.obj"):
        read_obj(path)


def test_target_reads_sparse_offsets(tmp_path):
    path = tmp_path / "t.target"
    path.write_text("# a comment\n3 .1 -.2 0\n17 0 0 1\n")
    index, offset = read_target(path)
    assert index.tolist() == [3, 17]
    assert np.allclose(offset, [[0.1, -0.2, 0], [0, 0, 1]])


@pytest.mark.parametrize("text", ["3 .1 -.2\n", "3 .1 x 0\n", "-3 0 0 0\n", "3 nan 0 0\n"])
def test_damaged_target_is_refused_by_name(tmp_path, text):
    path = tmp_path / "bad.target"
    path.write_text(text)
    with pytest.raises(UserError, match="bad.target"):
        read_target(path)


def _proxy(folder, rows, extra=""):
    (folder / "p.obj").write_text(OBJ + "f 1/1 2/2 3/3 4/4\n")
    (folder / "p.mhclo").write_text(
        "# header\nname p\ntag Male\nobj_file p.obj\nx_scale 0 1 2.0\n"
        f"material p.mhmat\nverts 0\n{rows}{extra}"
    )
    return folder / "p.mhclo"


def test_proxy_follows_the_base_mesh_with_scaled_offsets(tmp_path):
    rows = "0 1 2 0.5 0.25 0.25 0.1 0.2 0\n" + "2\n" * 3
    proxy = read_proxy(_proxy(tmp_path, rows, "delete_verts\n3 - 5 9\n"))
    base = np.array([[0.0, 0, 0], [4.0, 0, 0], [0, 4.0, 0]])
    points = proxy.fit(base)
    # x offsets scale by |0 - 4| / 2.
    assert np.allclose(points[0], [1 + 0.2, 1 + 0.2, 0])
    assert np.allclose(points[1], base[2])
    assert proxy.delete.tolist() == [3, 4, 5, 9]
    assert "male" in proxy.tags


@pytest.mark.parametrize("rows", ["0 1 2 0.5 0.25 0.25 0 0 0\n", "0 1 2 0.5 x 0.25 0 0 0\n" * 4])
def test_damaged_proxy_is_refused_by_name(tmp_path, rows):
    with pytest.raises(UserError, match="p.mhclo"):
        read_proxy(_proxy(tmp_path, rows))


def test_material_names_a_texture_only_if_it_is_there(tmp_path):
    material = tmp_path / "m.mhmat"
    material.write_text("name m\ndiffuseTexture skin.png\n")
    assert diffuse_texture(material) is None
    Image.new("RGB", (2, 2)).save(tmp_path / "skin.png")
    assert diffuse_texture(material) == tmp_path / "skin.png"
    assert diffuse_texture(tmp_path / "none.mhmat") is None


def test_damaged_picture_is_refused_by_name(tmp_path):
    path = tmp_path / "half.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match="half.png"):
        read_texture(path, 64)


def test_missing_assets_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("TRIAVATAR_ASSETS", raising=False)
    with pytest.raises(UserError, match="--assets"):
        AssetFolder(None)
    with pytest.raises(UserError, match="base.obj"):
        AssetFolder(tmp_path)


def test_macro_weights_interpolate_and_sum_to_one():
    stops = {"child": 10.0, "young": 25.0, "old": 90.0}
    assert hat_weights(25.0, stops) == {"young": 1.0}
    assert hat_weights(17.5, stops) == pytest.approx({"child": 0.5, "young": 0.5})
    shape = Shape(age=40, gender=0.3, ancestry={"asian": 0.4, "african": 0.6}, weight=0.7)
    weights = macro_weights(shape)
    universal = sum(w for name, w in weights.items() if "universal" in name)
    ancestral = sum(w for name, w in weights.items() if "universal" not in name)
    assert universal == pytest.approx(1) and ancestral == pytest.approx(1)
    young = weights["macrodetails/african-male-young"]
    assert young == pytest.approx(0.6 * 0.3 * 50 / 65)

"""The sheet of faces, and a rigged file, of a ball."""

import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UserError
from triavatar.export.settings import format_of
from triavatar.faces import FacesConfig, faces
from triavatar.rig.poser import Poser

pytest.importorskip("skimage")
pytest.importorskip("fast_simplification")


def test_rigged_files_of_one_maker(maker, tmp_path):
    """A ball has a head, too: its surface becomes the shell, and both files share the texture."""
    pytest.importorskip("pygltflib")
    pytest.importorskip("xatlas")
    assert format_of(tmp_path / "a.rigged.glb") == "rigged.glb"
    assert format_of(tmp_path / "rigged.glb") == "glb"
    maker.write(tmp_path / "ball.rigged.glb")
    raw = (tmp_path / "ball.rigged.glb").read_bytes()
    gltf = json.loads(raw[20 : 20 + struct.unpack("<I", raw[12:16])[0]])
    assert gltf["scenes"][0]["name"] == "ball"
    assert [mesh["name"] for mesh in gltf["meshes"]] == ["head", "shell"]
    assert all(len(mesh["extras"]["targetNames"]) == 52 for mesh in gltf["meshes"])


def test_sheets_of_one_and_of_several(ball_folder, tmp_path, monkeypatch):
    registered = []

    def once(*given):
        registered[:] = registered or [Poser.of(*given)]
        return registered[0]

    # The same ball three times: its head is laid under it once.
    monkeypatch.setattr("triavatar.faces.Poser", SimpleNamespace(of=once))
    file = ball_folder / "triplanes" / "ball.safetensors"
    faces(FacesConfig((file,), tmp_path / "one.png", size=24, device="cpu"))
    one = np.asarray(Image.open(tmp_path / "one.png"))
    # Two rows of five pictures, the expressions under the sides.
    assert one.shape[1] > 5 * 24 and one.shape[0] > 2 * 24
    twin = tmp_path / "twin.safetensors"
    twin.write_bytes(file.read_bytes())
    config = FacesConfig(
        (file, twin), tmp_path / "two.jpg", size=24, decoder=ball_folder / "decoder", device="cpu"
    )
    faces(config)
    two = np.asarray(Image.open(tmp_path / "two.jpg"))
    assert two.shape[1] > one.shape[1] and (two < 200).any()


@pytest.mark.parametrize("name, words", [("faces.gif", "must end with"), ("faces", "must end")])
def test_other_files_are_refused(ball_folder, tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        faces(FacesConfig((ball_folder,), tmp_path / name))
    assert not list(tmp_path.iterdir())

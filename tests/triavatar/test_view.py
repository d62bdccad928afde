"""The viewer over HTTP, and turntables as pages and GIFs."""

import base64
import io
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings
from renderer.triplane import save_triplane
from runtime.errors import UserError
from tests.scenes import constant_decoder
from tests.triavatar.export.ball import RADIUS, ball_decoder, ball_planes
from triavatar.avatar import Avatar
from triavatar.avatar_files import find_triplanes
from triavatar.turntable import write_turn
from triavatar.view import Handler, ViewerConfig, ViewerServer
from triavatar.viewer.photographs import PhotoStudio
from triavatar.viewer.scene import DEPTH_COLORS, Scene
from triavatar.views import still_cameras

MARCH = RenderSettings(steps=64, grid=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A triplane folder of two avatars: a box of grey fog, the same everywhere."""
    folder = tmp_path_factory.mktemp("view") / "set"
    fitted = FittedSet.create(folder, constant_decoder(3.0), (3, 6, 8, 8))
    for name in ("anna", "bert"):
        fitted.put(name, torch.zeros(3, 6, 8, 8))
        (folder / "avatars" / name).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    config = ViewerConfig(folder, size=48, march=MARCH, port=0, device="cpu")
    server = ViewerServer(config)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(server: ViewerServer, path: str) -> bytes:
    with urllib.request.urlopen(server.address + path, timeout=60) as answer:
        return answer.read()


def picture(server: ViewerServer, query: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(get(server, f"view?{query}"))))


def test_page_and_description(server):
    page = get(server, "").decode()
    assert "<html" in page and "scene.json" in page
    # Nothing is asked of any other machine.
    assert not re.search(r"(src|href)=.?https?:|@import|fetch\(.?https?:", page)
    scene = json.loads(get(server, "scene.json"))
    assert scene["avatars"] == ["anna", "bert"] and scene["size"] == 48


def test_pictures_are_the_renderer_s(server, folder):
    camera = still_cameras((40.0,), 48, 10.0, 4.0)
    avatar = Avatar.load(folder, name="bert", device="cpu")
    expected = avatar.pictures(camera, settings=MARCH)[0]
    got = picture(server, "avatar=bert&azimuth=40&elevation=10&distance=4&size=48")
    assert np.abs(got.astype(int) - expected).mean() < 1.5  # what JPEG costs
    assert picture(server, "size=16&moving=1").shape == (16, 16, 3)


def test_layers_against_closed_forms(server):
    """Looking at the box's face: opacity 1 − exp(−density · 2), depth from its front on."""
    straight = "azimuth=0&elevation=0&distance=8&size=48"
    opacity = picture(server, straight + "&layer=opacity")
    assert opacity[24, 24, 0] / 255 == pytest.approx(1 - np.exp(-6), abs=0.02)
    assert opacity[1, 1].max() <= 3
    # Expected distance into fog of density 3: 1/3 (nearly all is absorbed in the box).
    depth = picture(server, straight + "&layer=depth")
    place = (1 - (1 / 3) / 2) * (len(DEPTH_COLORS) - 1)
    expected = [
        np.interp(place, range(len(DEPTH_COLORS)), c) for c in zip(*DEPTH_COLORS, strict=True)
    ]
    assert depth[24, 24] / 255 == pytest.approx(expected, abs=0.04)
    black = picture(server, straight + "&background=0")
    assert black[1, 1].max() <= 3 and picture(server, straight)[1, 1].min() >= 252


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("view?avatar=carl", 400, "no avatar 'carl'"),
        ("view?size=4096", 400, "size is '4096'"),
        ("view?azimuth=nan", 400, "azimuth is 'nan'"),
        ("view?distance=0.1", 400, "distance is '0.1'"),
        ("view?layer=smell", 400, "none of color, depth, opacity"),
        ("../../etc/passwd", 404, "nothing here"),
    ],
)
def test_bad_requests_get_one_sentence(server, path, status, words):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, path)
    assert caught.value.code == status and words in caught.value.read().decode()
    assert picture(server, "size=16").shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8008"}, 200),
        ({"Host": "[::1]:8008"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_get_nothing(server, headers, status):
    request = urllib.request.Request(server.address + "scene.json", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == status
    except urllib.error.HTTPError as error:
        assert error.code == status and b"anna" not in error.read()


def test_pictures_nobody_waits_for_are_not_rendered(server, monkeypatch):
    rendered, gate = [], threading.Event()
    render = server.scene.render

    def counted(*arguments):
        gate.wait(60)
        rendered.append(arguments)
        return render(*arguments)

    monkeypatch.setattr(server.scene, "render", counted)
    ask = b"GET /view?size=16 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(server.server_address) as patient:
        patient.sendall(ask)
        for _ in range(40):
            with socket.create_connection(server.server_address) as gone:
                gone.sendall(ask)
        # All have come and gone while the first of them was being rendered.
        deadline = time.monotonic() + 60
        while server.renderer._work_queue.qsize() < 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.renderer._work_queue.qsize() == 40
        gate.set()
        assert patient.recv(12) == b"HTTP/1.1 200"
    assert picture(server, "size=16").shape == (16, 16, 3)
    assert len(rendered) == 2


def test_half_a_request_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with socket.create_connection(server.server_address) as half:
        half.sendall(b"GET /view?si")
        half.settimeout(60)
        assert half.recv(1) == b""


def test_what_can_be_opened(folder, tmp_path):
    assert list(find_triplanes(folder)) == ["anna", "bert"]
    assert find_triplanes(folder / "avatars" / "bert") == {
        "bert": folder / "triplanes" / "bert.safetensors"
    }
    save_triplane(tmp_path / "published.npy", torch.zeros(3, 6, 8, 8))
    assert find_triplanes(tmp_path) == {"published": tmp_path / "published.npy"}
    with pytest.raises(UserError, match="does not exist"):
        find_triplanes(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no triplanes"):
        find_triplanes(folder / "avatars")
    with pytest.raises(UserError, match="--decoder"):
        ViewerServer(ViewerConfig(tmp_path / "published.npy", port=0, device="cpu"))
    published = ViewerConfig(
        tmp_path / "published.npy", folder / "decoder", size=16, march=MARCH, port=0, device="cpu"
    )
    ViewerServer(published).server_close()


def test_a_taken_port_is_named(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = ViewerConfig(folder, size=16, march=MARCH, port=port, device="cpu")
        with pytest.raises(UserError, match=f"port {port} .*another --port"):
            ViewerServer(config)


def test_turntable_files(tmp_path):
    frames = np.zeros((6, 20, 24, 3), np.uint8)
    for index in range(6):
        frames[index, :, : 4 * index] = (220, 60, 40)
    for kind in ("html", "gif"):
        write_turn(tmp_path / f"turntable.{kind}", frames, 10, "<Anna & co>")
    page = (tmp_path / "turntable.html").read_text()
    assert "&lt;Anna &amp; co&gt;" in page and "__" not in page
    assert not re.search(r"https?://", page)  # it needs no network
    data = json.loads(re.search(r"const turn = (\{.*?\});", page)[1])
    assert (data["width"], data["height"], data["fps"]) == (24, 20, 10)
    for frame, text in zip(frames, data["frames"], strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        assert np.abs(shown.astype(int) - frame).mean() < 6
    with Image.open(tmp_path / "turntable.gif") as gif:
        assert gif.n_frames == 6 and gif.info["duration"] == 100 and gif.info["loop"] == 0
        assert gif.convert("RGB").getpixel((23, 0)) == (0, 0, 0)  # the background, exactly
        gif.seek(5)
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frames[5]).mean() < 2
    assert not (tmp_path / "turntable.mp4").exists()


def test_the_page_draws_coloured_triangles_by_itself(tmp_path):
    """Without a head model: the ball's surface, coloured by where one is on it."""
    folder = tmp_path / "set"
    planes = ball_planes()
    FittedSet.create(folder, ball_decoder(), tuple(planes.shape)).put("ball", planes)
    scene = Scene(
        find_triplanes(folder), None, RenderSettings(steps=128, grid=32), torch.device("cpu")
    )
    model = scene.preview("ball")
    places = np.frombuffer(base64.b64decode(model["places"]), "<f4").reshape(-1, 3)
    colors = np.frombuffer(base64.b64decode(model["colors"]), "u1").reshape(-1, 3)
    faces = np.frombuffer(base64.b64decode(model["faces"]), "<u4")
    assert np.linalg.norm(places, axis=1) == pytest.approx(RADIUS, abs=0.03)
    assert len(colors) == len(places) > faces.max() and len(faces) > 3000
    # Each colour is that of its place: redder towards +x, greener upwards, bluer towards +z.
    assert all(np.corrcoef(places[:, k], colors[:, k])[0, 1] > 0.95 for k in range(3))
    with pytest.raises(UserError, match="head model"):
        scene.poser("ball")


def test_photographs_need_a_model_and_a_picture(server):
    def post(content: bytes) -> tuple[int, str]:
        request = urllib.request.Request(server.address + "photograph", content, method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        return caught.value.code, caught.value.read().decode()

    assert post(b"x") == (400, "start the viewer with --model to make avatars of photographs")
    studio = PhotoStudio("shipped", Path("nowhere"), "cpu")
    with pytest.raises(UserError, match="no picture"):
        studio.make(b"x")
    studio.close()


def test_wrong_expressions_get_one_sentence(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, "view?expression=jawOpne=1")
    assert "did you mean jawOpen" in caught.value.read().decode()

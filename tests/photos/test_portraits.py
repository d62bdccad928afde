"""Photographs become framed, cut-out portraits, or are refused with the reason."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from captures.multiview import MultiViewSet
from photos.backends import face_from_points, load_detector
from photos.faces import MAX_TURN
from photos.framing import Framing, measure_framing
from photos.make_portraits import PortraitConfig, make_portraits
from photos.portraits import (
    PortraitMaker,
    PortraitSettings,
    is_photograph,
)
from photos.turn import estimate_turn
from runtime.errors import UserError

cv2 = pytest.importorskip("cv2", reason="portraits need OpenCV")
if not hasattr(cv2, "CascadeClassifier"):
    pytest.skip("this OpenCV has no face cascades", allow_module_level=True)

SIDE = 192


@pytest.fixture(scope="module")
def photo():
    """A woman from the front, her face 97 pixels wide, her eyes at (142, 99) and (187, 102)."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    return np.ascontiguousarray(data.astronaut()[:360, 60:400])


@pytest.fixture(scope="module")
def maker():
    return PortraitMaker(PortraitSettings(size=SIDE))


@pytest.fixture(scope="module")
def plain(photo, maker):
    return maker(photo)


def _eyes(maker, rgba, enlarged=2):
    """Where the detector sees the eyes of a portrait, in parts of its side."""
    picture = Image.fromarray(rgba).resize((enlarged * SIDE,) * 2, Image.Resampling.BICUBIC)
    grey = Image.new("RGBA", picture.size, (140, 140, 140, 255))
    grey.alpha_composite(picture)
    return maker.detect(np.asarray(grey.convert("RGB")))[0].eyes / (enlarged * SIDE)


def test_face_stands_as_in_the_framing(plain, maker):
    eyes = _eyes(maker, plain)
    assert np.abs(eyes.mean(0) - maker.framing.eyes).max() < 0.015
    # For the box round her face her eyes stand wider than the studio's people's do.
    assert math.dist(*eyes) == pytest.approx(maker.framing.eye_distance, rel=0.22)
    assert abs(eyes[1, 1] - eyes[0, 1]) < 0.012


def test_person_is_cut_out_whole_and_softly(plain):
    alpha = plain[..., 3] / 255

    def at(x, y):
        r = SIDE // 64
        cx, cy = round(x * SIDE), round(y * SIDE)
        return alpha[cy - r : cy + r, cx - r : cx + r].mean()

    # Face, hair over the forehead and on both sides, neck, chest; then the wall round her.
    for x, y in ((0.5, 0.5), (0.5, 0.1), (0.25, 0.3), (0.78, 0.3), (0.5, 0.75), (0.5, 0.9)):
        assert at(x, y) > 0.98, (x, y)
    for x, y in ((0.08, 0.1), (0.92, 0.1), (0.06, 0.45), (0.93, 0.5), (0.2, 0.55), (0.82, 0.6)):
        assert at(x, y) < 0.02, (x, y)
    soft = ((alpha > 0.05) & (alpha < 0.95)).mean()
    assert 0.002 < soft < 0.06
    assert (plain[alpha == 0] == 0).all()
    bottom = Framing().bottom
    assert alpha[int(bottom * SIDE) + 2 :].max() == 0


@pytest.mark.parametrize("degrees", [20, -90])
def test_rolled_heads_come_out_upright(photo, plain, maker, degrees):
    turned = Image.fromarray(photo).rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    rgba = maker(np.asarray(turned))
    both = (rgba[..., 3] > 250) & (plain[..., 3] > 250)
    assert both.sum() > 0.9 * (plain[..., 3] > 250).sum()
    # Half a degree and a pixel of difference show in hair and teeth.
    middle = np.zeros_like(both)
    middle[SIDE // 4 : 3 * SIDE // 4, SIDE // 3 : 2 * SIDE // 3] = True
    difference = np.abs(rgba[..., :3].astype(float) - plain[..., :3])[both & middle]
    assert difference.mean() < 16
    upside_down = np.abs(rgba[::-1, :, :3].astype(float) - plain[..., :3])[both & middle]
    assert upside_down.mean() > 2 * difference.mean()


def _darkened(photo):
    return (photo * 0.05).astype(np.uint8)


def _blurred(photo):
    return cv2.GaussianBlur(photo, (0, 0), 3.5)


def _small(photo):
    return np.asarray(Image.fromarray(photo).resize((170, 180), Image.Resampling.LANCZOS))


def _tiny(photo):
    """A face of 20 pixels, which no detector sees until it is enlarged."""
    return np.asarray(Image.fromarray(photo).resize((70, 74), Image.Resampling.LANCZOS))


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda p: p[200:], "no face"),
        (lambda p: np.concatenate([p, p], 1), "2 faces"),
        (_small, "too small"),
        (_tiny, "too small: (19|2[0-9]) pixels"),
        (_darkened, "too dark"),
        (_blurred, "too blurred"),
        (lambda p: p[75:], "top edge"),
        (lambda p: p[:150], "bottom edge"),
        (lambda p: p[:, 125:], "left edge"),
        (lambda p: np.ascontiguousarray(p[:, ::-1])[:, :215], "right edge"),
    ],
)
def test_hopeless_photographs_are_refused(photo, maker, change, reason):
    with pytest.raises(UserError, match=reason) as refusal:
        maker(np.ascontiguousarray(change(photo)), "me.jpg")
    assert "me.jpg" in str(refusal.value)


def test_profiles_are_refused(maker):
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    with pytest.raises(UserError, match="turned"):
        maker(np.repeat(data.camera()[..., None], 3, -1))


def _on_ellipsoid(points, degrees, radius=70.0):
    """Offsets [..., 2] from a head's middle, on an ellipsoid, turned about its upright axis."""
    x, y = points[..., 0], points[..., 1]
    z = np.sqrt(np.maximum(radius**2 - x**2 - (y / 1.3) ** 2, 0))
    a = math.radians(degrees)
    return np.stack([x * math.cos(a) + z * math.sin(a), y], -1)


def test_turn_grows_as_the_photograph_is_wrapped_round_a_head_and_turned(photo):
    """The photograph as an ellipsoid's texture, which lacks a nose to tell most of the turn."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    middle = np.array([164.0, 112.0])
    pixels = np.stack(np.meshgrid(np.arange(grey.shape[1]), np.arange(grey.shape[0])), -1)
    found = {}
    for degrees in (-45, -30, 0, 30, 45):
        source = _on_ellipsoid(pixels - middle, -degrees) + middle
        seen = cv2.remap(grey, *np.moveaxis(source.astype(np.float32), -1, 0), cv2.INTER_CUBIC)
        eyes = _on_ellipsoid(np.array([[142, 99], [187, 102]]) - middle, degrees) + middle
        roll = math.degrees(math.atan2(*(eyes[1] - eyes[0])[::-1]))
        found[degrees] = estimate_turn(seen, eyes, roll, 97)
    assert found[0] < 0.8 * MAX_TURN < MAX_TURN < min(found[-45], found[45])
    assert found[0] + 3 < min(found[-30], found[30])
    assert found[-30] + 5 < found[-45] and found[30] + 5 < found[45]


def test_a_symmetric_face_is_not_turned(photo):
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[:, :330]
    halves = np.concatenate([grey[:, :165], grey[:, 164::-1]], 1)
    eyes = np.array([[142.5, 100.0], [186.5, 100.0]])
    assert estimate_turn(halves, eyes, 0.0, 97) < 5


def test_cut_out_pictures_keep_their_alpha(project, maker):
    """Renders of the example set, turned by 12°, come back upright with their own edges."""
    views = MultiViewSet(project / "data" / "example")
    true = Image.fromarray(views.portrait("subject_000005", 256))
    turned = true.rotate(12, Image.Resampling.BICUBIC, expand=True)
    got = maker(np.asarray(turned))[..., 3] / 255
    want = np.asarray(true.resize((SIDE, SIDE), Image.Resampling.BOX))[..., 3] / 255
    assert np.minimum(got, want).sum() / np.maximum(got, want).sum() > 0.93


def test_known_alpha_is_recovered_before_a_photograph(project, maker):
    """Renders of the example set over a photograph without faces."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    from photos.matte import cut_out

    behind = np.asarray(Image.fromarray(data.chelsea()).resize((256, 256)))
    views = MultiViewSet(project / "data" / "example")
    covered = np.ones((256, 256), bool)
    covered[240:] = False  # below the busts
    for name in ("subject_000003", "subject_000004", "subject_000007"):
        rgba = views.portrait(name, 256)
        true = rgba[..., 3:] / 255
        seen = (rgba[..., :3] * true + behind * (1 - true) + 0.5).astype(np.uint8)
        alpha = cut_out(seen, covered, Framing()) * covered
        true = true[..., 0] * covered
        assert np.minimum(alpha, true).sum() / np.maximum(alpha, true).sum() > 0.93, name


def test_framing_of_the_example_set_is_the_default(project, maker, monkeypatch):
    monkeypatch.setattr("photos.framing.MEASURED_SUBJECTS", 5)
    measured = measure_framing(MultiViewSet(project / "data" / "example"), maker.detect)
    usual = Framing()
    assert np.abs(np.array(measured.eyes) - usual.eyes).max() < 0.015
    for key in ("eye_distance", "face_width", "left", "right", "bottom"):
        assert getattr(measured, key) == pytest.approx(getattr(usual, key), abs=0.04), key


def test_what_counts_as_a_photograph(photo, project):
    portrait = MultiViewSet(project / "data" / "example").portrait("subject_000002")
    alpha = portrait[..., 3:] / 255
    on_white = (portrait[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
    opaque = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    assert is_photograph(photo) and is_photograph(opaque)
    assert not is_photograph(portrait) and not is_photograph(on_white)


def test_files_are_read_upright_and_one_refusal_keeps_no_other(photo, plain, tmp_path, capsys):
    picture = Image.fromarray(photo)
    exif = Image.Exif()
    exif[0x0112] = 6  # the sensor lay on its side: turn clockwise to show
    picture.rotate(90, expand=True).save(tmp_path / "b.png", exif=exif)
    Image.fromarray(photo[200:]).save(tmp_path / "a.png")
    config = PortraitConfig(size=SIDE, photos=(tmp_path,), output_dir=tmp_path / "out")
    with pytest.raises(UserError, match="no face.*a.png"):
        make_portraits(config)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "b.png")), plain)
    with pytest.raises(UserError, match="overwritten"):
        make_portraits(PortraitConfig(photos=(tmp_path / "a.png",), output_dir=tmp_path))
    # Nor is a picture that merely has the portrait's name; its own portraits may be made again.
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (8, 8)).save(other / "b.png")
    again = PortraitConfig(size=SIDE, photos=(tmp_path / "b.png",), output_dir=other)
    with pytest.raises(UserError, match="b.png is no portrait that this command made"):
        make_portraits(again)
    again.output_dir = tmp_path / "out"
    make_portraits(again)


def test_missing_model_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="face_detection_yunet_2023mar.onnx"):
        load_detector("yunet", None)
    with pytest.raises(UserError, match="no YuNet model"):
        (tmp_path / "m.onnx").write_bytes(b"nothing")
        load_detector("yunet", tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace())
    with pytest.raises(UserError, match="face_landmarker.task"):
        load_detector("mediapipe", tmp_path / "none.task")
    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace())
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(UserError, match="u2net_human_seg.onnx"):
        PortraitMaker(PortraitSettings(matting="rembg"))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="opencv-python-headless"):
        PortraitMaker(PortraitSettings())


def test_yunet_rows_become_faces(photo, maker, tmp_path, monkeypatch):
    """A network that answers with known landmarks: the portrait is framed by them."""
    row = np.array([[120, 60, 90, 110, 142, 99, 187, 102, 166, 125, 148, 140, 185, 142, 0.9]])
    network = SimpleNamespace(setInputSize=lambda size: None, detect=lambda bgr: (1, row))
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *arguments: network)
    (tmp_path / "m.onnx").write_bytes(b"")
    settings = PortraitSettings(size=SIDE, detector="yunet", detector_model=tmp_path / "m.onnx")
    by_points = PortraitMaker(settings)
    face = by_points.detect(photo)[0]
    assert not face.turned and face.roll == pytest.approx(math.degrees(math.atan2(3, 45)))
    portrait = by_points(photo)
    eyes = _eyes(maker, portrait)
    assert math.dist(*eyes) == pytest.approx(Framing().eye_distance, rel=0.06)


@pytest.mark.parametrize("degrees, turned", [(0, False), (20, False), (50, True), (-60, True)])
def test_turn_follows_from_landmarks(degrees, turned):
    """Points of a head model, turned about its axis and tilted by 15° in the picture."""
    a, t = math.radians(degrees), math.radians(15)
    model = np.array([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.6, 0.63]])
    x = model[:, 0] * math.cos(a) + model[:, 2] * math.sin(a)
    y = model[:, 1]
    points = 60 * np.stack(
        [x * math.cos(t) - y * math.sin(t), x * math.sin(t) + y * math.cos(t)], -1
    )
    assert face_from_points(points[:2], points[2]).turned == turned

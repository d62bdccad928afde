"""The rasteriser against ray casting, projection and compositing done another way."""

import sys

import numpy as np
import pytest
import torch

from runtime.errors import UserError
from studio.drawing.raster import Camera, draw, inverse_depth, load_kernels
from studio.drawing.scene import flatten
from studio.drawing.textures import linear_to_srgb, srgb_to_linear
from studio.looks.head_rig import head_rig

pytest.importorskip("numba", reason="the rasteriser needs numba")
SIZE = 64


@pytest.fixture(scope="module")
def rig():
    return head_rig(6, SIZE)


@pytest.mark.parametrize("view", [0, 3])
def test_silhouette_and_depth_agree_with_ray_casting(reference, rig, view):
    vertices, triangles = reference.blob(view)
    scene = flatten([reference.solid(vertices, triangles)])
    inverse = inverse_depth(scene, Camera.of(rig, view))
    origins, directions = (x.double().numpy() for x in rig.image_rays(view))
    truth = reference.cast(origins, directions, vertices, triangles).reshape(SIZE, SIZE)
    hit = np.isfinite(truth)
    drawn = inverse > 0
    assert (hit & drawn).sum() / (hit | drawn).sum() >= 0.999
    forward = rig.c2w[view, :3, 2].double().numpy()
    depth = truth * (directions @ forward).reshape(SIZE, SIZE)
    both = hit & drawn
    assert np.abs(1 / inverse[both] - depth[both]).max() < 1e-3
    # One sample a pixel: alpha is the silhouette itself.
    alpha = draw(scene, Camera.of(rig, view), supersampling=1)[..., 3] > 0
    assert (alpha == drawn).all()


def test_known_points_project_where_the_cameras_say(reference, rig):
    corner = np.array([0.21, 0.33, 0.4])
    for view in range(len(rig)):
        expected = rig.project(torch.from_numpy(corner)[None])[0][view, 0].numpy()
        small = 0.02 * np.array([[-1, -1, -1], [1, -1, -1], [0, 1, -1], [0, 0, 1]])
        triangles = np.array([[0, 1, 2], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
        centred = small - small.mean(0) + corner
        image = draw(flatten([reference.solid(centred, triangles)]), Camera.of(rig, view), 8)
        alpha = image[..., 3].astype(float)
        y, x = np.mgrid[:SIZE, :SIZE] + 0.5
        found = np.array([(alpha * x).sum(), (alpha * y).sum()]) / alpha.sum()
        assert np.abs(found - expected).max() < 0.5


def test_edge_alpha_is_the_covered_share(reference):
    # The square's right edge cuts through the middle of a pixel column.
    camera = Camera.of(head_rig(1, SIZE), 0)
    half = (40.5 - SIZE / 2) * camera.origin[2] / camera.fx
    image = draw(flatten([reference.plane(0.0, (1, 0, 0, 1), half)]), camera, 8)
    row = image[SIZE // 2]
    assert row[39, 3] == 255 and row[41, 3] == 0
    assert abs(int(row[40, 3]) - 128) <= 16
    # Straight alpha: the edge pixel keeps the full colour.
    assert (row[40, :3] == [255, 0, 0]).all()


def test_translucent_layers_are_sorted_whatever_their_order(reference):
    camera = Camera.of(head_rig(1, SIZE), 0)
    far = reference.plane(-0.2, (0, 0, 1, 0.4), blended=True)
    near = reference.plane(0.2, (1, 0, 0, 0.6), blended=True)
    one = draw(flatten([far, near]), camera)
    other = draw(flatten([near, far]), camera)
    assert (one == other).all()
    middle = one[SIZE // 2, SIZE // 2] / 255
    a_near, a_far = round(0.6 * 255) / 255, round(0.4 * 255) / 255
    alpha = 1 - (1 - a_near) * (1 - a_far)
    assert abs(middle[3] - alpha) < 2 / 255
    expected = linear_to_srgb(np.array([a_near, 0, (1 - a_near) * a_far]) / alpha)
    assert np.abs(middle[:3] - expected).max() < 3 / 255


@pytest.mark.parametrize("alpha, n", [(0.08, 40), (0.5, 30)])
def test_many_layers_composite_as_the_sum_says(reference, alpha, n):
    """Faint layers are all kept, also when their lists outgrow the first guess; dense ones may be
    cut where nothing behind them shows. Drawn in any order."""
    camera = Camera.of(head_rig(1, 32), 0)
    rng = np.random.default_rng(n)
    depths = np.linspace(-0.5, 0.5, n)
    colours = rng.uniform(0, 1, (n, 3))
    parts = [
        reference.plane(z, (*colour, alpha), blended=True)
        for z, colour in zip(depths, colours, strict=True)
    ]
    pictures = [draw(flatten([parts[i] for i in rng.permutation(n)]), camera) for _ in range(3)]
    assert (pictures[0] == pictures[1]).all() and (pictures[0] == pictures[2]).all()
    stored = round(alpha * 255) / 255
    total, covered = np.zeros(3), 0.0
    for colour in colours:  # far to near
        linear = srgb_to_linear(np.round(colour * 255) / 255)
        total = total * (1 - stored) + linear * stored
        covered = covered * (1 - stored) + stored
    middle = pictures[0][16, 16] / 255
    assert abs(middle[3] - covered) < 1 / 255
    assert np.abs(middle[:3] - linear_to_srgb(total / covered)).max() < 2 / 255


def test_solid_parts_hide_translucent_ones_behind_them(reference):
    camera = Camera.of(head_rig(1, SIZE), 0)
    image = draw(
        flatten(
            [
                reference.plane(-0.2, (0, 0, 1, 0.5), blended=True),
                reference.plane(0.2, (0, 1, 0, 1)),
            ]
        ),
        camera,
    )
    assert (image[SIZE // 2, SIZE // 2] == [0, 255, 0, 255]).all()


def test_textures_are_perspective_correct(reference):
    """A plane seen at a slant shows the texture coordinate that its ray hits."""
    from studio.drawing.scene import Part
    from studio.drawing.textures import build_mips

    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 4))
    ramp[..., 3] = 255
    part = reference.plane(0.0, (1, 1, 1, 1))
    tilt = np.array([[1, 0, 0], [0, 1, 0], [1.5, 0, 1]])
    part = Part("skin", part.positions @ tilt.T, part.triangles, part.uv, build_mips(ramp))
    part.positions[:, 2] = 1.5 * part.positions[:, 0]
    rig = head_rig(1, SIZE)
    image = draw(flatten([part]), Camera.of(rig, 0), 2)
    origins, directions = (x.double().numpy() for x in rig.image_rays(0))
    # z = 1.5 x along the ray.
    t = (1.5 * origins[:, 0] - origins[:, 2]) / (directions[:, 2] - 1.5 * directions[:, 0])
    u = (origins + t[:, None] * directions)[:, 0] + 0.5
    inside = (image[..., 3] == 255).ravel() & (u > 0.05) & (u < 0.95)
    assert inside.sum() > 100
    error = np.abs(image[..., 0].ravel()[inside] / 255 - (u[inside] * 256 - 0.5) / 255)
    assert error.max() < 4 / 255


def test_light_and_paint_act_in_linear_light(reference):
    camera = Camera.of(head_rig(1, SIZE), 0)
    part = reference.plane(0.0, (0.5, 0.5, 0.5, 1))
    part.light = np.full((4, 3), 0.5)
    part.paint = np.tile([1.0, 0.0, 0.0, 0.25], (4, 1))
    grey = srgb_to_linear(np.array(128 / 255))
    expected = linear_to_srgb(0.5 * np.array([0.75 * grey + 0.25, 0.75 * grey, 0.75 * grey]))
    got = draw(flatten([part]), camera)[SIZE // 2, SIZE // 2, :3] / 255
    assert np.abs(got - expected).max() < 2 / 255


def test_drawing_twice_gives_the_same_bytes(reference, rig):
    scene = flatten(
        [reference.solid(*reference.blob()), reference.plane(0.7, (0, 0, 1, 0.5), blended=True)]
    )
    first = draw(scene, Camera.of(rig, 2))
    assert (first == draw(scene, Camera.of(rig, 2))).all()


def test_missing_numba_is_told_in_a_sentence(monkeypatch):
    from studio import drawing

    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith("studio.drawing.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(drawing, "kernels", raising=False)
    with pytest.raises(UserError, match="numba"):
        load_kernels()


def _strands(reference, tilt):
    """A square of fine dark strands on nothing, turned about the y axis by `tilt` radians."""
    from studio.drawing.scene import Part
    from studio.drawing.textures import build_mips

    image = np.zeros((256, 256, 4), dtype=np.uint8)
    image[:, ::4, 3] = 255
    flat = reference.plane(0.0, (0, 0, 0, 1), blended=True)
    turn = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
    return flatten(
        [
            Part(
                "hair",
                flat.positions @ turn,
                flat.triangles,
                flat.uv,
                build_mips(image),
                blended=True,
            )
        ]
    )


@pytest.mark.parametrize("tilt", [0.0, 1.2])
def test_strands_finer_than_a_pixel_are_an_even_veil(reference, tilt):
    """A quarter of the texture is covered, so alpha is a quarter, also seen at a slant."""
    image = draw(_strands(reference, tilt), Camera.of(head_rig(1, SIZE), 0), 2)
    inside = image[26:38, 31:33, 3] / 255
    assert inside.mean() == pytest.approx(0.25, abs=0.02)
    assert inside.std() < 0.03


def test_sheer_sheets_fade_edge_on_instead_of_breaking_up(reference):
    """A tall strip a few hundredths of a pixel wide, and a small one seen from the front."""
    camera = Camera.of(head_rig(1, SIZE), 0)
    shown = {}
    for sheer in (False, True):
        strip = reference.plane(0.0, (0, 0, 0, 1), blended=True)
        strip.positions = strip.positions[:, [2, 1, 0]] * [1, 1, 0.4]
        strip.positions[:, 0] += 0.003 * strip.positions[:, 2] + 0.02 * strip.positions[:, 1]
        strip.sheer = sheer
        shown[sheer] = draw(flatten([strip]), camera)[..., 3]
    assert shown[False].max() > 100 > 30 > shown[True].max()
    speck = reference.plane(0.0, (0, 0, 0, 1), half=1.2 / camera.fx, blended=True)
    full = draw(flatten([speck]), camera)
    speck.sheer = True
    assert full[..., 3].max() > 0 and (draw(flatten([speck]), camera) == full).all()


def test_a_pixel_shaded_once_is_the_mean_of_many_samples(reference):
    """Curved, textured, translucent layers over a solid: close to sixteen times the samples."""
    from studio.drawing.textures import build_mips

    rng = np.random.default_rng(3)
    vertices, triangles = reference.blob(1, 20)
    noise = rng.integers(0, 255, (128, 128, 4)).astype(np.uint8)
    parts = [reference.solid(0.8 * vertices, triangles, (0.7, 0.5, 0.4))]
    for scale in (0.9, 0.95, 1.0):
        part = reference.solid(scale * vertices, triangles)
        part.uv, part.texture, part.blended = vertices[:, :2] + 0.5, build_mips(noise), True
        parts.append(part)
    camera = Camera.of(head_rig(1, SIZE), 0)
    scene = flatten(parts)
    few, many = (draw(scene, camera, n).astype(float) for n in (2, 8))
    inside = many[..., 3] == 255
    assert inside.sum() > 500
    assert np.sqrt(((few - many)[inside] ** 2).mean()) < 8
    assert np.abs((few - many)[inside].mean(0)).max() < 1.5


def test_too_many_samples_are_refused(reference):
    with pytest.raises(UserError, match="supersampling"):
        draw(flatten([reference.plane(0, (1, 1, 1, 1))]), Camera.of(head_rig(1, 8), 0), 9)

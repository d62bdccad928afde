"""What is estimated of a portrait: place, opacity, camera, light, hull, what is carried."""

from dataclasses import replace

import pytest
import torch

from captures.cameras import Cameras, orbit_cameras
from likeness.learned.regression import SIDE, fit_regression, small_pixels
from likeness.portrait.placement import find_placement, placed
from likeness.portrait.portrait import Portrait
from likeness.portrait.portrait_camera import FREEDOMS, find_camera, moved
from likeness.portrait.portrait_light import evenly_lit, find_light
from likeness.portrait.side_views import side_views, turned
from likeness.portrait.surface import Front, normals, silhouette_hull
from likeness.settings import CameraSettings, LightSettings, SideSettings, SimilarSettings
from renderer.decoder import TriplaneDecoder
from renderer.render import RenderSettings, render_images
from renderer.samples import Rendered
from runtime.errors import UserError

RADIUS = 0.6


def ball(camera: Cameras, radius: float = RADIUS) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance [S, S] to a ball at the origin and its cover [S, S]; distance to its rim outside."""
    origins, directions = camera.image_rays(0)
    b = (origins * directions).sum(-1)
    root = b.square() - origins.square().sum(-1) + radius**2
    distance = -b - root.clamp(min=0).sqrt()
    shape = (camera.height, camera.width)
    return distance.view(shape), (root > 0).float().view(shape)


def blob() -> tuple[torch.Tensor, TriplaneDecoder]:
    """Planes [3, 6, 32, 32] of an opaque, coloured thing without symmetry, and their decoder."""
    torch.manual_seed(3)
    decoder = TriplaneDecoder(6, 4, 16, 2)
    decoder.remove_view_dependence()
    axis = torch.linspace(-1, 1, 32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    planes = torch.zeros(3, 6, 32, 32)
    for index, (a, b) in enumerate(((0.2, 0.1), (0.1, -0.1), (-0.1, 0.05))):
        solid = 0.8 - ((x - a) ** 2 + (y - b) ** 2).sqrt() * 2
        planes[index, 4:] = solid
        planes[index, :4] = torch.stack([x, y, (4 * x).sin(), (5 * y).cos()]) * 0.7
    with torch.no_grad():
        decoder.density_in.weight.zero_()
        decoder.density_in.weight[0, 0] = 12.0
        decoder.density_in.bias.zero_()
        decoder.density_out.weight[0].zero_()
        decoder.density_out.weight[0, 0] = 1.5
        decoder.density_out.bias[0] = -2.0
        decoder.color_in.weight *= 2
    return planes, decoder.requires_grad_(False)


def shown(planes, decoder, camera) -> Portrait:
    seen = render_images(planes, decoder, camera, 1.0, RenderSettings(steps=128, grid=64))
    return Portrait(seen.color[0], seen.opacity[0], camera)


def test_no_freedom_leaves_the_camera():
    camera = orbit_cameras(1, size=32)
    same = moved(camera, torch.zeros(len(FREEDOMS)))
    assert torch.allclose(same.c2w, camera.c2w, atol=1e-6)
    assert torch.allclose(same.fx, camera.fx)


def test_dolly_keeps_the_size_at_the_origin():
    camera = orbit_cameras(1, size=32)
    far = moved(camera, torch.tensor([0, 0, 0, 0, 0, 0, 0.3]))
    before, after = (c.fx[0] / c.c2w[0, :3, 3].norm() for c in (camera, far))
    assert after == pytest.approx(float(before), rel=1e-4)
    assert far.c2w[0, :3, 3].norm() > camera.c2w[0, :3, 3].norm() * 1.3


def test_a_camera_is_found_again():
    planes, decoder = blob()
    usual = orbit_cameras(1, size=64)
    true = torch.tensor([0.06, -0.04, 0.03, 0.02, -0.015, 0.03, 0.0])
    portrait = shown(planes, decoder, moved(usual, true)).seen_from(usual)
    settings = CameraSettings(iterations=6, noise=0.02)
    found = find_camera(portrait, usual, torch.zeros(7), planes, decoder, settings)
    there, here = moved(usual, found), moved(usual, true)
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    error = (there.project(points)[0] - here.project(points)[0]).norm(dim=-1).mean()
    before = (usual.project(points)[0] - here.project(points)[0]).norm(dim=-1).mean()
    assert error < 0.15 * before


def test_light_is_found_and_taken_away():
    planes, decoder = blob()
    camera = orbit_cameras(1, size=48)
    portrait = shown(planes, decoder, camera)
    grid = RenderSettings(steps=128, grid=64)
    distance = render_images(planes, decoder, camera, 1.0, grid).depth[0]
    normal = normals(camera, distance)
    lit = (portrait.color * (1 + 0.3 * normal[..., :1])).clamp(0, 1)
    cover = portrait.alpha[..., None]
    lit = Portrait(lit * cover + 1 - cover, portrait.alpha, camera)
    settings = LightSettings(direction=1.0, level=0.1, noise=0.05)
    light = find_light(lit, planes, decoder, settings)
    assert light[:, 1].mean() > 0.1
    assert light[:, 1].mean() > 2 * light[:, 2].abs().mean()
    even = evenly_lit(lit, light, planes, decoder)
    solid = portrait.alpha > 0.95
    before, after = ((p.color - portrait.color)[solid].square().mean() for p in (lit, even))
    assert after < 0.4 * before


def test_normals_of_a_ball_point_outwards():
    camera = orbit_cameras(1, size=64)
    distance, cover = ball(camera)
    origins, directions = camera.image_rays(0)
    points = (origins + directions * distance.reshape(-1, 1)).view(64, 64, 3)
    inner = ball(camera, 0.5)[1] > 0
    cosine = (normals(camera, distance) * points / RADIUS).sum(-1)[inner]
    assert cosine.min() > 0.99


def test_differences_are_carried_to_what_is_seen_again_only():
    camera = orbit_cameras(1, size=64)
    distance, cover = ball(camera)
    portrait = Portrait(torch.full((64, 64, 3), 0.75), cover, camera)
    seen = Rendered(torch.full((1, 64, 64, 3), 0.5), cover[None], distance[None])
    front = Front.of(portrait, seen, least_cosine=0.25)
    eye = camera.c2w[0, :3, 3]
    towards = eye / eye.norm()
    points = torch.stack([towards, -towards]) * RADIUS
    difference, trust = front.carried(points, tolerance=0.06)
    assert torch.allclose(difference[0], torch.full((3,), 0.25), atol=1e-4)
    assert trust[0] > 0.9
    assert trust[1] == 0


def test_what_is_hidden_takes_the_difference_of_what_looks_like_it():
    camera = orbit_cameras(1, size=64)
    distance, cover = ball(camera)
    left = (torch.arange(64) < 32).float()[None, :, None].expand(64, 64, 1)
    thought = left * torch.tensor([0.6, 0.3, 0.2]) + (1 - left) * torch.tensor([0.2, 0.3, 0.6])
    shown = thought + left * torch.tensor([0.1, -0.05, 0.0])
    seen = Rendered(thought[None], cover[None], distance[None])
    front = Front.of(Portrait(shown, cover, camera), seen, least_cosine=0.25)
    behind = -(camera.c2w[0, :3, 3] / camera.c2w[0, :3, 3].norm()) * RADIUS
    colors = torch.tensor([[0.6, 0.3, 0.2], [0.2, 0.3, 0.6], [0.0, 0.9, 0.0]])
    found = front.of_similar(behind.expand(3, 3), colors, SimilarSettings())
    assert torch.allclose(found[0], torch.tensor([0.1, -0.05, 0.0]), atol=0.02)
    assert found[1:].abs().max() < 0.01


def test_side_views_hold_the_planes_own_sides_where_the_portrait_agrees():
    planes, decoder = blob()
    portrait = shown(planes, decoder, orbit_cameras(1, size=64))
    settings = SideSettings(size=32, azimuths=(90.0,), elevations=(0.0,))
    (side,) = side_views(portrait, planes, decoder, settings)
    camera = turned(portrait.camera, [90.0], [0.0]).scaled_to(32, 32)
    seen = render_images(planes, decoder, camera, 1.0, RenderSettings(steps=256, grid=64))
    assert (side.color - seen.color[0]).abs().mean() < 0.01
    assert camera.c2w[0, 0, 3] > 1  # 90° is the subject's left, +x


def test_hull_keeps_what_the_portrait_may_show():
    camera = orbit_cameras(1, size=64)
    _, cover = ball(camera)
    portrait = Portrait(torch.ones(64, 64, 3), cover, camera)
    hull = silhouette_hull(portrait, torch.ones((16,) * 3, dtype=torch.bool))
    centres = (
        torch.stack(torch.meshgrid(*[torch.arange(16)] * 3, indexing="ij"), -1) + 0.5
    ) / 8 - 1
    assert hull[centres.norm(dim=-1) < RADIUS].all()
    assert 0.05 < hull.float().mean() < 0.7
    with pytest.raises(UserError, match="no place in space"):
        silhouette_hull(Portrait(portrait.color, torch.zeros(64, 64), camera), hull)


@pytest.fixture(scope="module")
def regression():
    """Learnt from discs of random colours that stand where heads do."""
    random = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(*[(torch.arange(64) + 0.5) / 64 - 0.5] * 2, indexing="ij")
    camera = orbit_cameras(1, size=64)
    pixels, sizes = [], []
    for _ in range(60):
        size = float(0.2 + 0.02 * torch.randn((), generator=random))
        color = torch.rand(3, generator=random) * 0.6
        cover = ((x**2 + (y - 0.05) ** 2).sqrt() < size).float()
        eyes = ((x.abs() - 0.08) ** 2 + y**2).sqrt() < 0.03
        picture = torch.where((cover > 0)[..., None], color, torch.ones(3))
        picture = torch.where(eyes[..., None], torch.zeros(3), picture)
        portrait = Portrait(picture, cover, camera)
        pixels.append(small_pixels(portrait))
        sizes.append((size - 0.2) / 0.02)
    known = torch.tensor(sizes)[:, None]
    return fit_regression(torch.stack(pixels), known, known[:, :0])[0], portrait


def test_regression_learns_what_pixels_tell(regression):
    learnt, portrait = regression
    assert learnt.spread[0] < 0.5
    assert learnt(portrait).shape == (1,)
    assert len(learnt.pixels.mean) == 4 * SIDE**2


def test_a_misplaced_head_is_put_back(regression):
    learnt, portrait = regression
    assert find_placement(portrait, learnt) == (1.0, 0.0, 0.0)
    wrong = placed(portrait, 0.8, 0.1, -0.08)
    assert learnt.surprise(wrong) > 2 * learnt.surprise(portrait)
    found = placed(wrong, *find_placement(wrong, learnt))
    assert learnt.surprise(found) < 0.5 * learnt.surprise(wrong)


def test_a_portrait_resized_keeps_its_camera():
    camera = orbit_cameras(1, size=64)
    portrait = Portrait(torch.rand(64, 64, 3), torch.rand(64, 64), camera)
    small = portrait.resized(16)
    assert small.camera.width == 16
    assert torch.allclose(small.alpha, portrait.alpha.view(16, 4, 16, 4).mean((1, 3)), atol=0.2)
    assert replace(small.camera, width=16).fx[0] == camera.fx[0] / 4

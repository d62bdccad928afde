"""From a portrait to planes, on things of few dimensions whose truth is known."""

import copy
from dataclasses import replace

import pytest
import torch

from captures.cameras import orbit_cameras
from likeness.coefficients import CoefficientSearch, Expected
from likeness.descent import Marcher
from likeness.fit import fit_likeness
from likeness.learned.guess import FirstGuess
from likeness.learned.likeness_model import LikenessModel, _curvature
from likeness.learned.prior import prior_of
from likeness.learned.regression import fit_regression, mirrored_pixels, small_pixels
from likeness.portrait.portrait import Portrait
from likeness.settings import LikenessSettings
from likeness.uncertainty import disagreement, heat
from renderer.decoder import decoder_hash
from renderer.render import RenderSettings, render_images
from runtime.errors import UserError
from tests.likeness.test_portrait import blob, shown

CAMERA = orbit_cameras(1, size=32, elevation_degrees=0.0)


def settings(level: str) -> LikenessSettings:
    """Small and without what needs a face: placement, camera, light."""
    found = LikenessSettings(level=level, size=32, place=False)
    found.camera.iterations, found.light.direction = 0, 0.0
    found.march = RenderSettings(steps=96, grid=24, threshold=0.02)
    found.coefficients.newton_steps, found.coefficients.steps = 6, 10
    found.coefficients.rays = 512
    found.planes.steps, found.planes.rays, found.planes.side_rays = 25, 512, 256
    found.planes.size, found.planes.free_space_points = 32, 200
    found.sides.size, found.sides.azimuths, found.sides.elevations = 24, (60, -60, 180), (0, 0, 0)
    return found


@pytest.fixture(scope="module")
def world():
    """(model, decoder, planes of a stranger) among blobs of five dimensions."""
    mean, decoder = blob()
    random = torch.Generator().manual_seed(5)
    low = torch.randn(5, 3, 6, 4, 4, generator=random)
    basis = torch.nn.functional.interpolate(
        low.flatten(0, 1), size=(32, 32), mode="bilinear", align_corners=True
    ).view(5, 3, 6, 32, 32)
    weights = torch.randn(41, 5, generator=random) * 0.12
    people = (mean + torch.einsum("nk,kpchw->npchw", weights, basis)).clamp(-1, 1)
    prior = prior_of(people[:40], 10, decoder_hash(decoder))
    pixels = torch.stack([small_pixels(shown(p, decoder, CAMERA)) for p in people[:40]])
    known = prior.coefficients(people[:40])
    mirrored = prior.mirrored(known)
    curvature = _curvature(
        torch.cat([pixels, mirrored_pixels(pixels)]), torch.cat([known, mirrored])
    )
    space = torch.ones((16,) * 3, dtype=torch.bool)
    regression, _ = fit_regression(pixels, *known.split([len(prior.even), len(prior.odd)], dim=1))
    # A patch of colour that no one else has: beyond the prior, so that planes must be tuned.
    truth = people[40].clone()
    truth[0, :4, 12:20, 12:20] *= -1
    return (
        LikenessModel(
            prior, FirstGuess(regression, (), 0.0, regression.spread), curvature, space, CAMERA
        ),
        decoder,
        truth,
    )


def error(planes, decoder, truth, azimuth: float) -> float:
    """Mean squared difference of one view of two triplanes."""
    camera = orbit_cameras(1, size=32, elevation_degrees=0.0, azimuth_degrees=azimuth)
    march = RenderSettings(steps=96, grid=24)
    a, b = (render_images(p, decoder, camera, 1.0, march).color for p in (planes, truth))
    return float((a - b).square().mean())


def test_each_level_shows_the_portrait_better(world):
    model, decoder, truth = world
    portrait = shown(truth, decoder, CAMERA)
    errors, sides = {}, {}
    for level in ("off", "guide", "full"):
        planes, record = fit_likeness(portrait, model, decoder, settings(level))
        errors[level] = error(planes, decoder, truth, 0.0)
        sides[level] = error(planes, decoder, truth, 90.0)
        measured = -10 * torch.tensor(errors[level]).log10().item()
        assert record.portrait_psnr == pytest.approx(measured, rel=0.1)
    mean = error(model.prior.mean, decoder, truth, 0.0)
    assert errors["guide"] < 0.5 * mean
    assert errors["full"] < errors["guide"] < errors["off"]
    assert sides["full"] < 1.3 * sides["guide"]


def test_newton_ends_where_many_steps_of_adam_do(world):
    model, decoder, truth = world
    portrait = shown(truth, decoder, CAMERA)
    chosen = settings("guide").coefficients
    expected = Expected(torch.zeros(10), torch.ones(10))
    pixels = torch.arange(32 * 32)

    def search() -> CoefficientSearch:
        marcher = Marcher(decoder, settings("guide").march)
        return CoefficientSearch(portrait, model, expected, marcher, chosen)

    fast = search().newton(torch.zeros(10), 12)
    slow = search().adam(torch.zeros(10), 150)
    start, a, b = (float(search().loss(z, pixels)) for z in (torch.zeros(10), fast, slow))
    assert a < 0.3 * start
    assert a < b + 0.1 * start


def test_samples_agree_on_the_portrait_and_differ_elsewhere(world):
    model, decoder, truth = world
    portrait = shown(truth, decoder, CAMERA)
    chosen = settings("guide")
    samples = [fit_likeness(portrait, model, decoder, chosen, sample=s)[0] for s in (1, 2, 3)]
    again, _ = fit_likeness(portrait, model, decoder, chosen, sample=2)
    assert torch.equal(again, samples[1])
    cameras = orbit_cameras(2, size=32, elevation_degrees=0.0)
    march = RenderSettings(steps=96, grid=24)
    front, back = disagreement(samples, decoder, cameras, march).mean(dim=(1, 2))
    assert 0 < front < back
    assert heat(torch.tensor([0.0, 0.2])).shape == (2, 3)


def test_model_round_trip(world, tmp_path):
    model, decoder, truth = world
    model.save(tmp_path)
    model.save(tmp_path / "twice")
    files = [p.relative_to(tmp_path / "twice") for p in (tmp_path / "twice").rglob("*.*")]
    assert len(files) == 5
    assert all((tmp_path / f).read_bytes() == (tmp_path / "twice" / f).read_bytes() for f in files)
    again = LikenessModel.load(tmp_path, decoder_hash(decoder))
    portrait = shown(truth, decoder, CAMERA)
    assert torch.allclose(again.regression(portrait), model.regression(portrait), atol=1e-4)
    assert torch.equal(again.space, model.space)
    replace(model, space=model.space[..., :1]).save(tmp_path / "twice")
    with pytest.raises(UserError, match="space of shape .* cube"):
        LikenessModel.load(tmp_path / "twice")
    assert torch.allclose(again.camera.c2w, model.camera.c2w)
    assert again.camera.fx[0] / again.camera.width == pytest.approx(float(CAMERA.fx[0] / 32))


def test_settings_are_not_changed(world):
    model, decoder, truth = world
    chosen = settings("off")
    before = copy.deepcopy(chosen)
    fit_likeness(
        Portrait.of(
            (torch.cat([truth.new_ones(32, 32, 3), truth.new_ones(32, 32, 1)], -1) * 255)
            .byte()
            .numpy(),
            CAMERA,
        ),
        model,
        decoder,
        chosen,
    )
    assert chosen == before

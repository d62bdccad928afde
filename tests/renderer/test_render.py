"""Rays and images through triplanes: physics, skipping, chunks, several triplanes at once."""

import math
import sys

import pytest
import torch

from captures.cameras import orbit_cameras
from renderer import backend
from renderer.backend import resolve
from renderer.cpu.backend import numba_obstacle
from renderer.occupancy import OccupancyGrid
from renderer.render import (
    RenderSettings,
    build_occupancy,
    render_image,
    render_images,
    render_rays,
)
from runtime.errors import UserError
from tests.scenes import constant_decoder, random_decoder, random_rays

IMPLS = ["reference", "torch", "numba"]
SETTINGS = RenderSettings(steps=96, grid=13)


def outputs(rendered):
    return rendered.color, rendered.opacity, rendered.depth


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("grad", [False, True])
def test_slab_of_constant_density(impl, grad):
    sigma, steps = 0.7, 2000
    planes = torch.zeros(3, 6, 4, 4, requires_grad=grad)
    origins = torch.tensor([[-3.0, 0.2, 0.1]])
    directions = torch.tensor([[1.0, 0.0, 0.0]])
    settings = RenderSettings(steps=steps)
    decoder = constant_decoder(sigma).requires_grad_(False)
    result = render_rays(
        planes, decoder, OccupancyGrid(4), origins, directions, 0.0, settings, impl=impl
    )
    opacity = 1 - math.exp(-sigma * 2)
    assert result.opacity.item() == pytest.approx(opacity, abs=1e-3)
    assert result.color[0].tolist() == pytest.approx([0.5 * opacity] * 3, abs=1e-3)
    # Mean distance of an exponential cut off after two units, from the box's face at 2.
    depth = 2 + 1 / sigma - 2 * math.exp(-sigma * 2) / opacity
    assert result.depth.item() == pytest.approx(depth, abs=2e-3)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_against_finite_differences_of_the_reference(impl):
    decoder = random_decoder(channels=4, color_channels=2, hidden=6)
    grid = OccupancyGrid(3)
    origins, directions = random_rays(8)
    planes = torch.rand(3, 4, 4, 4) - 0.5
    cotangent = torch.randn(8, 3)
    settings = RenderSettings(steps=24, stop=0.0)
    leaf = planes.clone().requires_grad_()
    color = render_rays(leaf, decoder, grid, origins, directions, 0.3, settings, impl=impl).color
    (gradient,) = torch.autograd.grad((color * cotangent).sum(), leaf)
    exact, double = planes.double(), random_decoder(4, 2, 6).double()
    direction = torch.randn(3, 4, 4, 4, dtype=torch.float64)

    def loss(shift: float) -> torch.Tensor:
        result = render_rays(
            exact + shift * direction, double, grid, origins.double(), directions.double(), 0.3,
            settings, impl="reference",
        )  # fmt: skip
        return (result.color * cotangent).sum()

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert (gradient.double() * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("shape", [(3, 6, 5, 9), (3, 6, 16, 16)])
@pytest.mark.parametrize("trained", [True, False])
def test_fast_equals_reference(shape, trained):
    decoder = random_decoder().requires_grad_(trained)
    planes = (torch.rand(shape) * 2 - 1).requires_grad_()
    grid = build_occupancy(planes.detach(), decoder, SETTINGS)
    origins, directions = random_rays(700)
    jitter, background = torch.rand(700), torch.rand(700, 3)
    cotangents = torch.randn(700, 3), torch.randn(700), torch.randn(700)
    wanted = [planes, *(decoder.parameters() if trained else ())]
    results = {}
    for impl in IMPLS:
        out = outputs(
            render_rays(
                planes, decoder, grid, origins, directions, background, SETTINGS, jitter, impl=impl
            )
        )
        loss = sum((a * b).sum() for a, b in zip(out, cotangents, strict=True))
        results[impl] = [*out, *torch.autograd.grad(loss, wanted)]
    assert (results["reference"][1] > 0.5).any() and (results["reference"][1] == 0).any()
    for impl in IMPLS[1:]:
        for fast, plain in zip(results[impl], results["reference"], strict=True):
            assert (fast - plain).norm() <= 1e-5 * plain.norm()


def _ray_gradients(impl="numba", channels=6):
    """Colour of random rays and its gradients to planes and decoder."""
    decoder = random_decoder()
    planes = (torch.rand(3, channels, 16, 16) * 2 - 1).requires_grad_()
    grid = build_occupancy(planes.detach(), decoder, SETTINGS)
    origins, directions = random_rays(2000)
    color = render_rays(planes, decoder, grid, origins, directions, 0.5, SETTINGS, impl=impl).color
    gradients = torch.autograd.grad(
        (color * torch.randn(2000, 3)).sum(), [planes, *decoder.parameters()]
    )
    return [color.detach(), *gradients]


@pytest.mark.parametrize("kept", [0, 1])
def test_what_is_computed_again_equals_what_is_kept(monkeypatch, kept):
    buffers = pytest.importorskip("renderer.cpu.buffers")
    torch.manual_seed(3)
    everything = _ray_gradients()
    for module in ("sweep", "field"):
        monkeypatch.setattr(f"renderer.cpu.{module}.chunks_to_keep", lambda *_: kept)
    assert buffers.CHUNK < 2000
    torch.manual_seed(3)
    for a, b in zip(everything, _ray_gradients(), strict=True):
        assert (a - b).norm() <= 1e-6 * a.norm()


def test_half_precision_products_stay_close(monkeypatch):
    """What a CPU with bf16 instructions would compute: rounded factors, sums in fp32.

    The scene is noise and so are the cotangents: gradients cancel, which rounding does not. On a
    fitted avatar with a loss's own gradient everything stays within 1e-2.
    """
    torch.manual_seed(4)
    exact = _ray_gradients("reference")
    product, add_product = torch.mm, torch.Tensor.addmm_

    def rounded(x):
        return x.bfloat16().float()

    calls = []
    monkeypatch.setattr(
        torch, "mm", lambda a, b, out: calls.append(1) or product(rounded(a), rounded(b), out=out)
    )
    monkeypatch.setattr(
        torch.Tensor, "addmm_", lambda s, a, b: add_product(s, rounded(a), rounded(b))
    )
    torch.manual_seed(4)
    for a, b, bound in zip(exact, _ray_gradients(), [1e-3, *[5e-2] * 8], strict=True):
        assert 1e-5 * a.norm() < (a - b).norm() <= bound * a.norm()
    assert calls


def test_without_gradients_equals_with():
    planes, decoder = torch.rand(3, 6, 8, 8) * 2 - 1, random_decoder()
    grid = build_occupancy(planes, decoder, SETTINGS)
    rays = random_rays(900)
    graph = render_rays(planes, decoder, grid, *rays, 0.5, SETTINGS)
    with torch.no_grad():
        plain = render_rays(planes, decoder, grid, *rays, 0.5, SETTINGS)
    for a, b in zip(outputs(graph), outputs(plain), strict=True):
        assert torch.allclose(a, b, atol=2e-6)


def test_gradients_repeat_exactly_and_planes_do_not_depend_on_threads():
    decoder = random_decoder()
    planes = (torch.rand(3, 6, 8, 8) * 2 - 1).requires_grad_()
    grid, rays = build_occupancy(planes.detach(), decoder, SETTINGS), random_rays(500)
    wanted = [planes, *decoder.parameters()]

    def gradients():
        color = render_rays(planes, decoder, grid, *rays, 0.5, SETTINGS).color
        return torch.autograd.grad(color.square().sum(), wanted)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        first, second = gradients(), gradients()
        torch.set_num_threads(1)
        alone = gradients()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for a, b in zip(first, alone, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("grad", [False, True])
def test_empty_grids_misses_and_no_rays(impl, grad):
    planes = torch.rand(3, 6, 8, 8, requires_grad=grad)
    decoder = random_decoder()
    empty = OccupancyGrid(5)
    empty.occupied[:] = False
    result = render_rays(planes, decoder, empty, *random_rays(6), 0.25, SETTINGS, impl=impl)
    assert torch.equal(result.color, torch.full((6, 3), 0.25)) and not result.opacity.any()
    if grad:
        (gradient,) = torch.autograd.grad(result.color.sum(), planes)
        assert not gradient.any()
    none = render_rays(
        planes, decoder, OccupancyGrid(5), torch.zeros(0, 3), torch.zeros(0, 3), 1.0, SETTINGS,
        impl=impl,
    )  # fmt: skip
    assert none.color.shape == (0, 3)


@pytest.mark.parametrize("impl", IMPLS)
def test_skipping_empty_cells_changes_nothing(impl):
    """A field that is (next to) zero outside a ball: dense and skipping renders agree."""
    decoder = random_decoder()
    with torch.no_grad():
        # Density from one channel alone: exp(30·f − 20), with f = −1 … 1 in the planes.
        decoder.density_in.weight.zero_()
        decoder.density_in.weight[0, 0] = 30.0
        decoder.density_in.bias.zero_()
        decoder.density_in.bias[0] = 40.0
        decoder.density_out.weight[0].zero_()
        decoder.density_out.weight[0, 0] = 1.0
        decoder.density_out.bias[0] = -60.0
    axis = torch.linspace(-1, 1, 33)
    distance = axis[:, None].square() + axis[None].square()
    planes = torch.rand(3, 6, 33, 33) * 2 - 1
    planes[:, 4] = 1.0 - 1.8 * distance  # mean over planes: 1 − 1.2·r²
    settings = RenderSettings(steps=128, grid=32)
    grid = build_occupancy(planes, decoder, settings)
    assert 0.001 < grid.occupied.float().mean() < 0.9
    rays = random_rays(300)
    skipping = render_rays(planes, decoder, grid, *rays, 1.0, settings, impl=impl)
    dense = render_rays(planes, decoder, OccupancyGrid(32), *rays, 1.0, settings, impl="reference")
    assert dense.opacity.max() > 0.9
    assert torch.allclose(skipping.color, dense.color, atol=3e-3)


@pytest.mark.parametrize("impl", IMPLS)
def test_images_do_not_depend_on_chunks(impl):
    planes, decoder = torch.rand(3, 6, 8, 8) * 2 - 1, random_decoder()
    cameras = orbit_cameras(3, size=17)
    whole = render_image(planes, decoder, cameras[1], settings=SETTINGS, impl=impl)
    parts = render_image(
        planes, decoder, cameras[1], settings=SETTINGS, rays_per_chunk=37, impl=impl
    )
    assert whole.color.shape == (17, 17, 3) and whole.opacity.shape == (17, 17)
    for a, b in zip(outputs(whole), outputs(parts), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    every = render_images(planes, decoder, cameras, settings=SETTINGS, impl=impl)
    assert every.color.shape == (3, 17, 17, 3)
    assert torch.allclose(every.color[1], whole.color, atol=1e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_several_triplanes_in_one_call(impl):
    decoder = random_decoder()
    planes = (torch.rand(3, 3, 6, 8, 8) * 2 - 1).requires_grad_()
    grids = [build_occupancy(p, decoder, SETTINGS) for p in planes.detach()]
    rays = [random_rays(60, seed=k) for k in range(3)]
    origins, directions = (torch.stack(x) for x in zip(*rays, strict=True))
    jitter = torch.rand(3, 60)
    packed = render_rays(
        planes, decoder, grids, origins, directions, 0.4, SETTINGS, jitter, impl=impl
    )
    (gradient,) = torch.autograd.grad(packed.color.square().sum(), planes)
    for b in range(3):
        leaf = planes[b].detach().requires_grad_()
        alone = render_rays(
            leaf, decoder, grids[b], origins[b], directions[b], 0.4, SETTINGS, jitter[b], impl=impl
        )
        assert torch.allclose(packed.color[b], alone.color, atol=1e-6)
        (expected,) = torch.autograd.grad(alone.color.square().sum(), leaf)
        assert torch.allclose(gradient[b], expected, atol=1e-4, rtol=1e-4)


def test_mismatched_batches_are_refused():
    planes, decoder = torch.rand(2, 3, 6, 8, 8), random_decoder()
    origins = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="as many grids"):
        render_rays(planes, decoder, [OccupancyGrid(4)], origins, origins, 1.0, SETTINGS)


@pytest.mark.parametrize("impl", ["auto", *IMPLS])
def test_mean_colour_for_faint_samples_stays_close(impl):
    planes, decoder = torch.rand(3, 6, 8, 8) * 2 - 1, random_decoder()
    camera = orbit_cameras(1, size=24)
    exact = render_image(planes, decoder, camera, settings=SETTINGS, impl=impl)
    settings = RenderSettings(steps=96, grid=13, color_threshold=1e-3)
    close = render_image(planes, decoder, camera, settings=settings, impl=impl)
    assert torch.allclose(exact.opacity, close.opacity, atol=1e-6)
    assert 1e-6 < (exact.color - close.color).abs().max() < 2e-2
    plain = render_image(planes, decoder, camera, settings=settings, impl="reference")
    assert torch.allclose(close.color, plain.color, atol=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
def test_colour_threshold_leaves_gradients_alone(impl):
    """It applies where nothing is recorded."""
    planes, decoder = (torch.rand(3, 6, 8, 8) * 2 - 1).requires_grad_(), random_decoder()
    settings = RenderSettings(steps=96, grid=13, color_threshold=0.1)
    grid, rays = build_occupancy(planes.detach(), decoder, SETTINGS), random_rays(50)
    colors = [
        render_rays(planes, decoder, grid, *rays, 1.0, given, impl=impl).color
        for given in (SETTINGS, settings)
    ]
    assert torch.equal(*colors)


@pytest.mark.parametrize("wanting", ["origins", "directions"])
def test_rays_that_want_gradients_get_all_of_them_or_a_refusal(wanting):
    planes, decoder = torch.rand(3, 6, 8, 8) * 2 - 1, random_decoder()
    grid = build_occupancy(planes, decoder, SETTINGS)
    results = {}
    for impl in ("auto", *IMPLS):
        origins, directions = random_rays(20)
        ray = {"origins": origins, "directions": directions}[wanting].requires_grad_()
        given = (planes, decoder, grid, origins, directions, 1.0, SETTINGS)
        if impl == "numba":
            with pytest.raises(ValueError, match="gives no gradient to points, origins and dir"):
                render_rays(*given, impl=impl)
            with torch.no_grad():
                render_rays(*given, impl=impl)
            continue
        color = render_rays(*given, impl=impl).color
        (results[impl],) = torch.autograd.grad(color.square().sum(), ray)
    assert results["reference"].abs().sum() > 0
    assert torch.equal(results["auto"], results["reference"])
    assert torch.allclose(results["torch"], results["reference"], atol=1e-3, rtol=1e-3)


def test_missing_numba_is_said_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    numba_obstacle.cache_clear()
    backend._warn_without_kernels.cache_clear()
    monkeypatch.setattr(backend.logger, "propagate", True)
    try:
        with caplog.at_level("WARNING", logger="triavatar.renderer"):
            assert resolve("auto", torch.zeros(1)).name == "torch"
            assert resolve("auto", torch.zeros(1)).name == "torch"
        assert caplog.text.count("pip install numba") == 1
        with pytest.raises(UserError, match="impl='numba' cannot run: numba cannot be imported"):
            resolve("numba", torch.zeros(1))
    finally:
        numba_obstacle.cache_clear()
        backend._warn_without_kernels.cache_clear()


def test_the_log_names_what_runs(monkeypatch, caplog):
    backend._announce.cache_clear()
    monkeypatch.setattr(backend.logger, "propagate", True)
    with caplog.at_level("INFO", logger="triavatar.renderer"):
        assert resolve("auto", torch.zeros(1)).name == "numba"
    assert "rendering on cpu with impl=numba" in caplog.text
    assert resolve("auto", torch.zeros(1, dtype=torch.float64)).name == "reference"


@pytest.mark.parametrize(
    "impl,tensor,said",
    [
        ("numba", torch.zeros(1, dtype=torch.float64), "it takes fp32 on the CPU"),
        ("numba", torch.zeros(1, device="meta"), "it takes fp32 on the CPU"),
        ("cuda", torch.zeros(1), "need a GPU"),
    ],
)
def test_what_cannot_run_is_refused_by_name(impl, tensor, said):
    with pytest.raises(UserError, match=f"impl='{impl}' cannot run: .*{said}"):
        resolve(impl, tensor)

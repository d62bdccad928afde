"""The benchmarks run, state what they measured, and measure the right things."""

import json
import math

import pytest
import torch

from captures.cameras import orbit_cameras
from fitting.subject_fit import FitSettings
from renderer.backend import auto_means, resolve
from renderer.render import RenderSettings, render_image
from studies.bench import bench_fit as fitting_bench
from studies.bench import bench_render as rendering_bench
from studies.bench.bench_fit import BenchFitConfig, bench_fit
from studies.bench.bench_render import BenchRenderConfig, bench_render
from studies.bench.bench_scene import make_scene
from studies.bench.timing import interleaved, peak_memory
from tests.scenes import write_spheres

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def known_limits(monkeypatch):
    limits = {"matmul_float32_tflops": 0.1, "copy_gb_per_s": 10.0}
    for module in (fitting_bench, rendering_bench):
        monkeypatch.setattr(module, "device_limits", lambda device: limits)


def test_render_report(tmp_path, capsys):
    config = BenchRenderConfig(
        device="cpu", plane_size=8, channels=6, color_channels=4, hidden=16, samples=500,
        image_size=12, steps=24, grid=8, repeats=1, json=tmp_path / "a.json",
        table=tmp_path / "a.md",
    )  # fmt: skip
    bench_render(config)
    report = json.loads((tmp_path / "a.json").read_text())
    cases = {(row["case"], row["side"]) for row in report["rows"]}
    assert ("rays, forward", "ours") in cases and ("field, forward", "plain reference") in cases
    assert ("image 12²", "dense sampling") in cases
    assert {"occupancy refresh", "field, forward + backward, decoder frozen"} <= {
        c for c, _ in cases
    }
    row = next(r for r in report["rows"] if r["case"] == "field, forward" and r["side"] == "ours")
    # Density 12·16 … by hand: first layer 10 → 16, density 16, colour (20 + 16) → 16 → 16 → 3.
    flops = 2 * (16 * 10 + 16 + 16 * 36 + 16 * 16 + 16 * 3)
    assert row["limit_share"] == pytest.approx(flops * row["rate"] / 0.1e12)
    assert report["machine"]["versions"]["torch"] == torch.__version__
    table = (tmp_path / "a.md").read_text()
    assert table in capsys.readouterr().out and "| field, forward | ours |" in table


def test_fit_report(tmp_path):
    root = write_spheres(tmp_path / "set")
    config = BenchFitConfig(
        device="cpu", root=root, plane_size=8, channels=6, color_channels=4, hidden=16,
        fit=FitSettings(rays=32, steps=24, grid=8, smoothness_points=8, free_space_points=8),
        warm_steps=1, repeats=1, target_psnr=1.0, target_every=1, json=tmp_path / "a.json",
    )  # fmt: skip
    bench_fit(config)
    report = json.loads((tmp_path / "a.json").read_text())
    assert [row["side"] for row in report["rows"]] == ["dense sampling", "plain reference", "ours"]
    assert sum("dB on held-out views" in note for note in report["notes"]) == 3


def test_the_ball_is_opaque_inside_and_nothing_outside():
    planes, decoder = make_scene(33, 6, 4, 16)
    image = render_image(
        planes, decoder, orbit_cameras(1, size=32), settings=RenderSettings(steps=256, grid=32)
    )
    assert image.opacity[16, 16] > 0.99 and image.opacity[0].max() < 0.05
    share = (image.opacity > 0.5).float().mean().item()
    # A ball of radius r at distance 4 covers π·f²·r² / (16 − r²) pixels.
    focal = 32 / (2 * math.tan(math.radians(28.84 / 2)))
    radius = math.sqrt(share * 32**2 * 16 / (math.pi * focal**2))
    assert 0.5 < radius < 0.8


def test_auto_can_be_told_what_it_means():
    x = torch.zeros(1)
    with auto_means("reference"):
        assert resolve("auto", x).name == "reference"
        assert resolve("torch", x).name == "torch"
    assert resolve("auto", x).name == "numba"


def test_sides_take_turns_and_the_first_turn_is_not_counted():
    order: list[str] = []
    seconds = interleaved({s: (lambda s=s: order.append(s)) for s in "ab"}, CPU, repeats=2)
    assert order == ["a", "b"] * 3 and set(seconds) == {"a", "b"}


def test_peak_memory_sees_what_a_call_allocates():
    peak = peak_memory(lambda: torch.ones(2**24).sum(), CPU)
    if peak is None:
        pytest.skip("this system does not let a process reset its peak")
    assert 50 < peak < 200

"""Statistics of triplane sets, against NumPy and closed forms."""

import numpy as np
import pytest
import torch

from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings
from runtime.errors import UserError
from runtime.files import read_json
from studies.triplane_stats import TriplaneStatsConfig, measure, triplane_stats
from tests.scenes import random_decoder, write_spheres

SHAPE = (3, 6, 16, 16)


def made(folder, planes: dict[str, torch.Tensor]) -> FittedSet:
    fitted = FittedSet.create(folder, random_decoder(), SHAPE)
    for name, value in planes.items():
        fitted.put(name, value)
    return fitted


def test_figures_match_numpy(tmp_path):
    random = torch.Generator().manual_seed(0)
    common = torch.randn(SHAPE, generator=random) * 0.2
    planes = {f"s{k}": common + torch.randn(SHAPE, generator=random) * 0.1 for k in range(4)}
    fitted = made(tmp_path / "set", planes)
    stored = np.stack([fitted.load(name).double().numpy() for name in fitted.names])
    found = measure(fitted, fitted.names)
    assert found["range"]["min"] == pytest.approx(stored.min())
    assert found["range"]["max"] == pytest.approx(stored.max())
    # Of the variance 0.04 + 0.01, the mean of four keeps 0.04 + 0.01/4.
    assert found["alike"]["common_share"] == pytest.approx(0.0425 / 0.05, rel=0.03)
    spread = stored.var(axis=(0, 3, 4))
    np.testing.assert_allclose(np.square(found["channels"]["std"]), spread, rtol=1e-4)
    across, down = np.diff(stored, axis=4) ** 2, np.diff(stored, axis=3) ** 2
    assert found["smoothness"]["tv"] == pytest.approx((across.mean() + down.mean()) / 2, rel=1e-4)
    # White noise: neighbours differ by twice its variance, and shrinking loses nearly all.
    assert found["smoothness"]["tv_relative"] == pytest.approx(2, rel=0.03)
    assert found["smoothness"]["fine_share"] > 0.9


def test_smooth_planes_of_one_kind(tmp_path):
    ramp = torch.linspace(-1, 1, 16).expand(SHAPE).contiguous()
    found = measure(made(tmp_path / "set", {"a": ramp, "b": ramp}), ["a", "b"])
    assert found["alike"]["common_share"] == pytest.approx(1, abs=1e-3)
    assert found["alike"]["std_spread"] == pytest.approx(1)
    assert found["smoothness"]["fine_share"] < 0.02
    assert found["range"]["at_limit"] == pytest.approx(2 / 16)


def test_report_with_held_out_views(tmp_path, capsys):
    write_spheres(tmp_path / "views", subjects=2, views=4, size=12)
    planes = {f"subject_{k:03d}": torch.rand(SHAPE) - 0.5 for k in range(2)}
    fitted = made(tmp_path / "set", planes)
    config = TriplaneStatsConfig(
        triplanes=fitted.folder,
        root=tmp_path / "views",
        march=RenderSettings(steps=32, grid=8),
        device="cpu",
        json=tmp_path / "stats.json",
    )
    triplane_stats(config)
    table = capsys.readouterr().out
    report = read_json(tmp_path / "stats.json")
    errors = report["errors"]["mean"]
    assert errors["fp16"] == pytest.approx(errors["clean"])
    assert f"| noise 0.05 | {errors['noise 0.05']:.2f} dB |" in table
    assert set(report["errors"]["subjects"]) == set(planes)
    strangers = made(tmp_path / "others", {"nobody": torch.zeros(SHAPE)})
    config.triplanes = strangers.folder
    with pytest.raises(UserError, match="no held-out views"):
        triplane_stats(config)

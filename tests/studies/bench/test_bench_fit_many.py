"""The extrapolation to many subjects adds up."""

import pytest

from fitting.subject_fit import FitSettings
from renderer.fitted_set import FittedSet
from runtime.errors import UserError
from runtime.files import read_json
from studies.bench.bench_fit_many import BenchFitManyConfig, bench_fit_many
from tests.scenes import random_decoder, write_spheres


def test_extrapolation(tmp_path):
    write_spheres(tmp_path / "set", subjects=2, views=4, size=12)
    FittedSet.create(tmp_path / "stage1", random_decoder(), (3, 6, 8, 8))
    config = BenchFitManyConfig(
        root=tmp_path / "set",
        decoder=tmp_path / "stage1",
        measured_steps=4,
        iterations=1000,
        init="random",
        fit=FitSettings(rays=64, steps=32, grid=8, smoothness_weight=0.0, free_space_points=16),
        subjects_at_once=(1,),
        job=1000,
        device="cpu",
        json=tmp_path / "report.json",
        table=tmp_path / "report.md",
    )
    bench_fit_many(config)
    report = read_json(tmp_path / "report.json")
    (row,) = report["rows"]
    around = sum(row["seconds_around"].values())
    expected = 1000 / row["steps_per_second_each"] + around
    assert row["seconds_per_subject"] == pytest.approx(expected)
    assert report["disk_gb"]["float16"] == pytest.approx(1000 * 3 * 6 * 8 * 8 * 2 / 1e9)
    assert f"| {row['seconds_per_subject']:.1f} |" in (tmp_path / "report.md").read_text()
    config.subjects = 3
    with pytest.raises(UserError, match="has 2 subjects"):
        bench_fit_many(config)

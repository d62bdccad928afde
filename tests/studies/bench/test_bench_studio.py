"""The studio's benchmark measures what lies on disk, and its extrapolation adds up."""

import pytest

from runtime.errors import UserError
from runtime.files import read_json
from studies.bench.bench_studio import BenchStudioConfig, bench_studio


def test_impossible_settings_are_refused_before_anything_is_read(tmp_path):
    for key in ("views", "size", "supersampling"):
        with pytest.raises(UserError, match=key):
            bench_studio(BenchStudioConfig(assets=tmp_path, **{key: 0}))


@pytest.mark.assets
def test_figures_add_up(assets, tmp_path, capsys):
    pytest.importorskip("numba", reason="the rasteriser needs numba")
    common = {"assets": assets, "size": 32, "maps": ("label",), "workers": 1}
    report = tmp_path / "report.json"
    bench_studio(
        BenchStudioConfig(hair=("bald", "crop"), views=3, jobs=(10,), json=report, **common)
    )
    content = read_json(report)
    assert [row["hair"] for row in content["rows"]] == ["bald", "crop"]
    for row, job in zip(content["rows"], content["sets"], strict=True):
        assert row["seconds"] == pytest.approx(row["build_seconds"] + 3 / row["views_per_second"])
        assert 0 < row["cpu_seconds"] and 500 < row["bytes_per_view"] < 32 * 32 * 4 + 2000
        assert job["hours"] == pytest.approx(10 * row["seconds"] / 3600)
        assert job["gb"] == pytest.approx(10 * 3 * row["bytes_per_view"] / 1e9)
    assert content["peak_mib"] > 50
    assert "| crop | 10 |" in capsys.readouterr().out
    with pytest.raises(UserError, match="no hair style 'mohawk'.*buzz"):
        bench_studio(BenchStudioConfig(hair=("mohawk",), **common))

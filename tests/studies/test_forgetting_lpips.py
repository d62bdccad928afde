"""LPIPS in the study of forgetting, with a stand-in for the lpips package and its weights."""

import sys
from types import ModuleType

import pytest
import torch

from runtime.errors import UserError
from runtime.files import read_json
from studies.forgetting import study_forgetting
from tests.scenes import write_spheres
from tests.studies.test_forgetting import config, run_of


class Distance(torch.nn.Module):
    """Called like lpips.LPIPS, on pictures [N, 3, H, W] in -1..1; returns [N, 1, 1, 1]."""

    def __init__(self, net: str, verbose: bool):
        super().__init__()
        assert net == "alex" and not verbose

    def forward(self, a, b):
        assert a.shape[1] == 3 and min(a.min(), b.min()) >= -1 and max(a.max(), b.max()) <= 1
        return (a - b).square().mean(dim=(1, 2, 3), keepdim=True)


def install(monkeypatch, network) -> None:
    package = ModuleType("lpips")
    package.LPIPS = network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_spheres(tmp_path_factory.mktemp("set") / "set", subjects=3)


def test_it_is_measured_with_the_others(root, tmp_path, monkeypatch):
    install(monkeypatch, Distance)
    study_forgetting(config(root, tmp_path / "run", methods=["naive"], rounds=1, lpips="alex"))
    run = run_of(tmp_path / "run", "naive")
    for name in run.order:
        # Pictures in -1..1 have four times the squared error that PSNR is made of.
        row = run.rows[-1]
        assert row[f"lpips/{name}"] == pytest.approx(4 * 10 ** (-row[f"psnr/{name}"] / 10), rel=0.5)
        assert run.quality[name]["lpips"] > 0
    assert "| LPIPS |" in (tmp_path / "run" / "table.md").read_text()
    table = read_json(tmp_path / "run" / "table.json")["methods"]["naive"]
    expected = sum(q["lpips"] for q in run.quality.values()) / len(run.quality)
    assert table["lpips"]["mean"] == pytest.approx(expected)


def test_without_weights_it_says_what_to_fetch(root, tmp_path, monkeypatch):
    def offline(**_):
        raise OSError("no route to host")

    install(monkeypatch, offline)
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79\.pth .*checkpoints"):
        study_forgetting(config(root, tmp_path / "run", lpips="alex"))
    assert not (tmp_path / "run").exists()


def test_it_is_imported_only_when_asked_for(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)  # importing it now fails
    study_forgetting(config(root, tmp_path / "run", methods=["naive"], rounds=1))
    assert "lpips" not in run_of(tmp_path / "run", "naive").quality["subject_000"]
    with pytest.raises(UserError, match="pip install lpips"):
        study_forgetting(config(root, tmp_path / "other", lpips="vgg"))

"""The scene that the kernels are timed on."""

import importlib.util
from types import ModuleType

import torch


def load(project) -> ModuleType:
    """``benchmarks/cuda_kernels.py``, which is a script."""
    path = project / "benchmarks" / "cuda_kernels.py"
    spec = importlib.util.spec_from_file_location("cuda_kernels", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rays_cover_the_whole_picture(project, monkeypatch):
    kernels = load(project)
    monkeypatch.setattr(kernels, "DEVICE", "cpu")
    _, _, _, origins, directions = kernels.scene(4096, size=4)
    x, y = origins[:, 0], origins[:, 1]
    assert (directions.norm(dim=1) == 1).all()
    assert torch.corrcoef(torch.stack([x, y]))[0, 1].abs() < 0.1
    cells = ((origins[:, :2] + 0.65) / 1.3 * 8).long().clamp(0, 7)
    assert len(torch.unique(cells, dim=0)) == 64

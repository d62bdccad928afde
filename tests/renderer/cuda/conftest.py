"""Runs the kernels on the host, where there is a host compiler."""

import shutil
from pathlib import Path

import pytest

from renderer.cuda import modules
from tests.renderer.cuda.host_module import HostModule, loader


@pytest.fixture(scope="session")
def host_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the kernels compiled for the host."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here to compile the kernels for the host")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["forward", "reversed"])
def host(request: pytest.FixtureRequest, host_libraries: Path, monkeypatch: pytest.MonkeyPatch):
    """CPU tensors go to the kernels' sources, run by fibres in one order and in the other."""
    monkeypatch.setitem(modules.LOADERS, "cpu", loader(host_libraries))
    monkeypatch.setattr(modules, "_loaded", {})
    monkeypatch.setattr(HostModule, "reversed", request.param == "reversed")

"""Decides once which marked tests run, and where the optional inputs lie."""

import os
from pathlib import Path

import pytest
import torch

REQUIRE_CUDA = "TRIAVATAR_REQUIRE_CUDA"
ASSETS = "TRIAVATAR_ASSETS"
PROJECT = Path(__file__).resolve().parent.parent

# Tests compare small tensors; more threads only get into each other's way. Stages that tests start
# as processes do the same, so that their results agree to the bit with those of this one.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def _assets_folder() -> Path | None:
    named = os.environ.get(ASSETS)
    return Path(named) if named and Path(named).is_dir() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_cuda = pytest.mark.skip(reason="no GPU here")
    no_assets = pytest.mark.skip(reason=f"{ASSETS} does not name the avatar assets' folder")
    has_cuda = torch.cuda.is_available()
    has_assets = _assets_folder() is not None
    for item in items:
        # Keywords would do, but folders' names are among them.
        if item.get_closest_marker("cuda"):
            item.user_properties.append(("cuda", True))
            if not has_cuda:
                item.add_marker(no_cuda)
        if item.get_closest_marker("assets") and not has_assets:
            item.add_marker(no_assets)
        item.add_marker(pytest.mark.xdist_group(_group(item.path)))


def _group(path: Path) -> str:
    """Tests for one process to run: those of a folder whose fixtures are dear, or of a file."""
    parts = path.relative_to(PROJECT / "tests").parts
    for shared in (("stages",), ("diffusion",), ("triavatar", "export")):
        if parts[: len(shared)] == shared:
            return "/".join(shared)
    return "/".join(parts)


_ran_cuda: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # Properties travel from the processes that run tests to the one that reports.
    marked = ["cuda", True] in [list(pair) for pair in report.user_properties]
    if report.when == "call" and marked and not report.skipped:
        _ran_cuda.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that was asked to use the GPU and skipped every GPU test has failed."""
    reports = not hasattr(session.config, "workerinput")
    if reports and os.environ.get(REQUIRE_CUDA) == "1" and not _ran_cuda:
        print(f"\n{REQUIRE_CUDA}=1, but no test marked cuda has run.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def assets() -> Path:
    """The avatar assets' folder; tests that use it are marked ``assets``."""
    folder = _assets_folder()
    if folder is None:
        pytest.skip(f"{ASSETS} does not name the avatar assets' folder")
    return folder


@pytest.fixture
def project() -> Path:
    """The project's root folder."""
    return PROJECT

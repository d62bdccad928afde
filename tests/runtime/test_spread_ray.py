"""The same work on a Ray cluster: two nodes on this machine, one of which is killed part-way."""

import os
import threading
import time

import pytest

from runtime.errors import UserError
from runtime.spread import SpreadSettings, spread
from tests.toy_work import ToyConfig, outcome, toy_job

ray = pytest.importorskip("ray")

NAMES = [f"s{k:02d}" for k in range(24)]


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    cluster = Cluster()
    cluster.add_node(num_cpus=1, include_dashboard=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_one_of_which_dies(cluster, tmp_path):
    """Nothing is lost, failures are listed, and the results are those of this process."""
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    settings = SpreadSettings(engine="ray", engine_address=cluster.address)
    config = ToyConfig(tmp_path / "ray", seconds=0.5, damaged=("s07",), faulty=("s11",))

    def kill_later() -> None:
        while len(outcome(tmp_path / "ray")) < 6:
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_later)
    killer.start()
    report = spread(toy_job(config), NAMES, settings)
    killer.join()
    assert report.failures.keys() == {"s07", "s11"}
    here = ToyConfig(tmp_path / "here", damaged=("s07",), faulty=("s11",))
    same = spread(toy_job(here), NAMES, SpreadSettings())
    assert same.failures == report.failures
    assert outcome(tmp_path / "here") == outcome(tmp_path / "ray") and len(NAMES) == 24
    lines = [file.read_text().splitlines() for file in (tmp_path / "ray" / "calls").iterdir()]
    workers = {line.split()[0] for subject in lines for line in subject}
    assert len(workers) >= 2 and str(os.getpid()) not in workers
    # At most what the killed node was at work on has been begun twice.
    assert sum(len(subject) - 1 for subject in lines) <= 2
    assert not (tmp_path / "ray" / "turns").exists()


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"triavatar\[cluster\]"):
        spread(toy_job(ToyConfig(tmp_path)), NAMES, SpreadSettings(engine="ray"))

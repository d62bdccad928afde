"""The chain's folders with captures, meshes and photographs of others beside them."""

import pytest

from tests.stages.damage.foreign import add_foreign_files
from tests.stages.damage.worker import Worker
from tests.stages.damage.world import World, own_world


@pytest.fixture(scope="session")
def foreign(chain, tmp_path_factory) -> World:
    """A place of its own, so that what is damaged is a copy of copies."""
    world = own_world(chain, tmp_path_factory.mktemp("damaged") / "world", "")
    add_foreign_files(world)
    return world


@pytest.fixture(scope="session")
def worker(foreign, tmp_path_factory):
    """A process that damages the files in copies and runs commands on them."""
    worker = Worker(foreign, tmp_path_factory.mktemp("worker") / "worker.log")
    yield worker
    worker.close()

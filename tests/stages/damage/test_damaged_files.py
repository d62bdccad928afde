"""Damaged files of every format through the real main function.

Whatever is in a file: no traceback, one sentence without a library's words, no wait, no run on
memory, no code of the file run, nothing lost that was there, nothing silently wrong.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.stages.damage.case import GOOD
from tests.stages.damage.targets import TARGETS
from tests.stages.damage.worker import Worker

PARTS = {"number": st.integers(0, len(TARGETS) - 1), "seed": st.integers(0, 2**32)}
COMMON = dict(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def check(worker: Worker, number: int, seed: int) -> None:
    outcome = worker.ask(number, seed)
    assert outcome.kind in GOOD, outcome


@settings(max_examples=40, **COMMON)
@given(**PARTS)
def test_a_sample_of_damaged_files(worker, number, seed):
    check(worker, number, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=1000, **COMMON)
@given(**PARTS)
def test_many_damaged_files(worker, number, seed):
    check(worker, number, seed)

"""Damaged files of every format through the real main function.

Whatever is in a file: no traceback, one sentence without a library's words, no wait, no run on
memory, no code of the file run, nothing lost that was there, nothing silently wrong.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.stages.damage.case import GOOD, run_case
from tests.stages.damage.targets import TARGETS
from tests.stages.damage.worker import load_whole

NUMBERS = range(len(TARGETS))
CHEAP = [number for number in NUMBERS if not TARGETS[number].dear]
SEEDS = st.integers(0, 2**32)
COMMON = dict(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@settings(max_examples=25, **COMMON)
@given(number=st.sampled_from(CHEAP), seed=SEEDS)
def test_a_sample_of_damaged_files(foreign, number, seed):
    outcome = run_case(foreign, number, seed, load_whole(foreign, number))
    assert outcome.kind in GOOD, outcome


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=1000, **COMMON)
@given(number=st.sampled_from(NUMBERS), seed=SEEDS)
def test_many_damaged_files(worker, number, seed):
    outcome = worker.ask(number, seed)
    assert outcome.kind in GOOD, outcome

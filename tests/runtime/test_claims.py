"""Claims: one holder at a time, the dead are followed, the living left alone."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.claims import Claims


@pytest.fixture
def claims(tmp_path) -> Claims:
    return Claims(tmp_path / "claims", stale_after=0.3)


def leave_claim(claims: Claims, key: str, **changes) -> None:
    """A claim of a process of this machine that has ended, with some of its content changed."""
    code = "import sys; from pathlib import Path; from runtime.claims import Claims; "
    code += "Claims(Path(sys.argv[1])).take(sys.argv[2], 'start')"
    subprocess.run([sys.executable, "-c", code, str(claims.folder), key], check=True)
    file = claims.file(key, 0)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_one_holder_until_released(claims):
    held = claims.take("a")
    assert held is not None and held.held()
    assert Claims(claims.folder).take("a") is None
    assert Claims(claims.folder).take("b.0") is not None
    held.release()
    again = claims.take("a")
    assert again is not None and again.generation == 0 and again.deaths == 0


def test_many_at_once_one_wins(claims):
    for round_ in range(20):
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _, key=f"k{round_}": claims.take(key), range(8)))
        assert sum(claim is not None for claim in taken) == 1


def test_dead_process_of_this_machine_is_followed_at_once(claims):
    leave_claim(claims, "a")
    assert claims.take("a", take_over=False) is None
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: claims.take("a", "start"), range(8)))
    (taken_over,) = [claim for claim in taken if claim is not None]
    assert taken_over.generation == 1 and taken_over.deaths == 1
    taken_over.release()
    assert os.listdir(claims.folder) == []


def test_deaths_count_only_without_progress(claims):
    leave_claim(claims, "a", deaths=3)
    leave_claim(claims, "b", deaths=3)
    stuck, moved = claims.take("a", "start"), claims.take("b", "further")
    assert stuck is not None and stuck.deaths == 4
    assert moved is not None and moved.deaths == 0


def test_a_number_used_again_is_no_life(claims):
    """The process of the claim's number lives, but began at another time."""
    leave_claim(claims, "a", pid=os.getpid())
    assert claims.take("a") is not None


def test_another_machine_is_dead_when_it_stops_touching(claims):
    leave_claim(claims, "a", machine="elsewhere")
    file = claims.file("a", 0)
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        os.utime(file)
        assert claims.take("a") is None
        time.sleep(0.05)
    time.sleep(0.35)
    assert claims.take("a") is not None


def test_holders_touch_their_claims_and_notice_loss(claims):
    held = claims.take("a")
    before = held.path.stat().st_mtime_ns
    time.sleep(0.2)
    assert held.path.stat().st_mtime_ns > before
    claims.file("a", 1).write_text("{}")  # another machine believed this one dead
    assert not held.held()
    held.release()
    assert claims.newest("a") == 1


def test_without_hard_links(claims, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert claims.take("a") is not None and claims.take("a") is None


def test_close_keeps_what_the_living_hold(claims):
    held = claims.take("a")
    leave_claim(claims, "b")
    claims.close()
    assert held.held()
    held.release()
    claims.close()
    assert not claims.folder.exists()

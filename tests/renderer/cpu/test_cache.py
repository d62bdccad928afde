"""Compiled code from the cache computes what the process that compiled it computed."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba", reason="the CPU kernels need numba")

SCRIPT = """
import hashlib
import torch
from renderer.decoder import TriplaneDecoder
from renderer.field import query_density

torch.set_num_threads(1)
torch.manual_seed(0)
decoder = TriplaneDecoder(8, 5, 16)
planes = torch.randn(3, 8, 16, 16)
density = query_density(planes, decoder, torch.rand(500, 3) * 2 - 1, impl="numba")
print(hashlib.sha256(density.detach().numpy().tobytes()).hexdigest())
"""


def test_the_first_process_and_later_ones_agree_to_the_bit(tmp_path, project):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(project)}

    def run() -> str:
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    compiled = run()
    assert list(tmp_path.rglob("*.nbc"))
    assert run() == compiled

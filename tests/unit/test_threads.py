"""Torch and Numba share one number of threads, whichever of them starts its own first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = """
import torch
from backend.threads import configure, prepare_environment
prepare_environment()
count = configure(torch.device("cpu"))
before = torch.get_num_threads()
import numba, numpy
@numba.njit(parallel=True)
def double(x):
    for i in numba.prange(len(x)):
        x[i] *= 2
double(numpy.ones(1000))
print(count, before, torch.get_num_threads(), numba.get_num_threads())
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs 2 CPUs; this machine has one")
@pytest.mark.parametrize("threads", [1, 2])
def test_torch_and_numba_use_the_threads_they_are_given(threads: int) -> None:
    environment = {**os.environ, "DREAMLATHE_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == [str(threads)] * 4

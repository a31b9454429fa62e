"""The test of an environment: what it tells, and what it says is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backend import doctor

ROOT = Path(__file__).resolve().parents[2]


def test_it_tells_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLATHE_THREADS", str(torch.get_num_threads()))
    found = doctor.examine("cpu", steps=False)
    torch.use_deterministic_algorithms(False)
    assert "error" not in found
    assert (found["torch"], found["device"]) == (torch.__version__, "CPU")
    assert found["tinycudann"] is False or found["tinycudann"] is True
    assert (found["engine"], found["engines_missing"]) == ("numba", {})
    assert found.get("memory", 1) >= found.get("memory_free", 0)


def test_a_device_that_is_not_there_is_named() -> None:
    assert "'cuda:77' is not available" in doctor.examine("cuda:77", steps=False)["error"]


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "diffusers" in doctor.examine("cpu", steps=False)["error"]


def test_a_step_is_timed() -> None:
    """In a process of its own, as Blender starts it."""
    command = [sys.executable, "-m", "backend.doctor", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0.001 < json.loads(done.stdout)["step_seconds"] < 60

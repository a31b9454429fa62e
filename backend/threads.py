"""Threads, determinism and caches of the process, set once and in one place; and the versions it runs on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch


def prepare_environment() -> None:
    """Set what libraries read when they are imported; call before torch and numba are. Keeps what the user has set."""
    # Torch's and Numba's OpenMP pools take turns; threads that spin after their turn would slow the other pool.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # But the next turn of the same pool comes within microseconds, and to be woken for it takes longer than to wait.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    # An installed extension's folder may be read-only, so compiled kernels are kept in the user's cache.
    if "NUMBA_CACHE_DIR" not in os.environ:
        folder = cache_folder() / "numba"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            os.environ["NUMBA_CACHE_DIR"] = str(folder)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def cache_folder() -> Path:
    """The folder for what can be made anew: DREAMLATHE_CACHE, or the system's place for caches."""
    if chosen := os.environ.get("DREAMLATHE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "dreamlathe" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dreamlathe"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreamlathe"


def configure(device: torch.device) -> int:
    """Give torch and numba the same number of threads and make the CPU's results repeatable; returns the number.

    The number is DREAMLATHE_THREADS, or the CPUs this process may use (at most 16: a step is too small for more).
    """
    import numba as untyped_numba  # noqa: PLC0415  (after prepare_environment, and never for --help)
    import torch as untyped_torch  # noqa: PLC0415

    numba, torch = cast("Any", untyped_numba), cast("Any", untyped_torch)

    count = _thread_count()
    # Numba first: when its threads start, they tell OpenMP, which torch asks as well, to use all CPUs.
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)
    # On a GPU some kernels have no repeatable form; there a warning would only say so at each step.
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False
    return count


def _thread_count() -> int:
    chosen = os.environ.get("DREAMLATHE_THREADS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, 16)


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide the result."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("torch", "numpy", "numba", "diffusers", "transformers", "xatlas", "scikit-image"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found

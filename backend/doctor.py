"""What a Python can do as the backend: ``python -m backend.doctor``, one line of JSON.

Standard library alone until it is known what is installed: a library that is missing is an answer, not a crash.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .errors import Cancelled
from .threads import configure, prepare_environment

_LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "numba", "scikit-image")
_STEPS = 12
"""Steps that are timed; the first half compiles and warms up."""


def examine(device: str = "auto", *, steps: bool = True) -> dict[str, Any]:
    """Versions, device, free memory and the time of a step, as plain JSON; ``error`` says what is missing."""
    found: dict[str, Any] = {"python": platform.python_version()}
    prepare_environment()
    try:
        found |= _libraries()
        found |= _device(device)
        found |= _engine(device)
        if steps:
            found["step_seconds"] = time_step(device)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, that is the answer
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return found


def _libraries() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _LIBRARIES:
        module = importlib.import_module({"scikit-image": "skimage"}.get(name, name))
        found[name] = str(module.__version__)
    found["tinycudann"] = importlib.util.find_spec("tinycudann") is not None
    return found


def _device(name: str) -> dict[str, Any]:
    """Its name, and its free and whole memory in bytes."""
    from .devices import choose_device, described  # noqa: PLC0415

    device = choose_device(name)
    configure(device)
    return described(device)


def _engine(name: str) -> dict[str, Any]:
    """The hash-grid engine that a run takes on the device; of faster ones that cannot be had, why."""
    from .devices import choose_device  # noqa: PLC0415
    from .field import GridLayout, HashGridConfig, automatic_engine  # noqa: PLC0415

    engine, passed_over = automatic_engine(GridLayout(HashGridConfig(2, 2, 8)), choose_device(name))
    return {"engine": engine.name, "engines_missing": passed_over}


def time_step(device: str) -> float:
    """Seconds that one step of the standard preset takes with the built-in model: the median of a few."""
    from .guidance import load_guidance  # noqa: PLC0415
    from .job import choose_device  # noqa: PLC0415
    from .optimize import optimize  # noqa: PLC0415
    from .request import preset  # noqa: PLC0415

    request = preset("standard", "a red duck")
    request = request.replace(optimize=dataclasses.replace(request.optimize, coarse_share=0.0))  # a later step's size
    chosen = choose_device(device)
    moments: list[float] = []

    def stop() -> bool:  # asked before each step
        moments.append(time.perf_counter())
        return len(moments) > _STEPS

    guidance = load_guidance(request.model, request.prompt, "", request.guidance, chosen)
    with tempfile.TemporaryDirectory(prefix="dreamlathe-") as folder, contextlib.suppress(Cancelled):
        optimize(request, Path(folder), guidance, chosen, lambda _: None, stop)
    steps = [after - before for before, after in itertools.pairwise(moments)]
    return round(statistics.median(steps[_STEPS // 2 :]), 4)


def main() -> int:
    """Print what was found; the device may be named."""
    arguments = [each for each in sys.argv[1:] if each != "--quick"]
    found = examine(arguments[0] if arguments else "auto", steps="--quick" not in sys.argv)
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main())

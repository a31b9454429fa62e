"""(f) Start-up: the add-on's Blender side, the backend's libraries, model, first preview, in fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .cases import ROOT, Row

BLENDER_SIDE = """
import importlib.util, json, sys, time
import bpy, numpy, addon_utils  # Blender has them already
place = sys.argv[1]
spec = importlib.util.spec_from_file_location("dreamlathe", place + "/__init__.py", submodule_search_locations=[place])
module = importlib.util.module_from_spec(spec)
sys.modules["dreamlathe"] = module
started, busy = time.perf_counter(), time.process_time()
spec.loader.exec_module(module)
print(json.dumps([time.perf_counter() - started, time.process_time() - busy]))
"""
"""Imports the extension as Blender does, and says how long it took."""
BACKEND = """
import json, time
started, busy = time.perf_counter(), time.process_time()
from backend.threads import prepare_environment
prepare_environment()
import backend.meshing, backend.optimize
print(json.dumps([time.perf_counter() - started, time.process_time() - busy]))
"""
MODEL = """
import json, time
from backend.threads import prepare_environment
prepare_environment()
import torch, backend.optimize
from backend.guidance import load_guidance
from backend.request import GuidanceSettings
started, busy = time.perf_counter(), time.process_time()
load_guidance("toybox", "a yellow duck", "", GuidanceSettings(), torch.device("cpu"))
print(json.dumps([time.perf_counter() - started, time.process_time() - busy]))
"""
PREVIEW = """
import json, sys, time
from pathlib import Path
started, busy = time.perf_counter(), time.process_time()
from backend.events import Preview
from backend.job import run_job
from backend.errors import Cancelled
from backend.request import preset
seen = []
def report(event):
    if isinstance(event, Preview):
        seen.append(time.perf_counter() - started)
try:
    run_job(preset("standard", "a yellow duck", device="cpu"), Path(sys.argv[1]), report, lambda: bool(seen))
except Cancelled:
    pass
print(json.dumps([seen[0], time.process_time() - busy]))
"""


def startup_rows(bpy_python: Path | None, *, quick: bool) -> list[Row]:
    """All of them; the Blender side only with the interpreter of an environment that has bpy."""
    runs = 1 if quick else 5
    rows: list[Row] = []
    if bpy_python is not None:
        rows.append(_row("import the Blender side", "bpy", bpy_python, BLENDER_SIDE, [str(ROOT)], runs))
    own = Path(sys.executable)
    rows.append(_row("import the backend", "torch", own, BACKEND, [], runs))
    if not quick:
        rows.append(_row("load the model", "toybox", own, MODEL, [], runs))
        with tempfile.TemporaryDirectory(prefix="dreamlathe-") as folder:
            places = [str(Path(folder) / str(run)) for run in range(3)]
            rows.append(_medians("first preview", "toybox", [_seconds(own, PREVIEW, [place]) for place in places]))
    return rows


def _row(name: str, engine: str, python: Path, program: str, arguments: list[str], runs: int) -> Row:
    times = [_seconds(python, program, arguments) for _ in range(runs + 1)]
    return _medians(name, engine, times[1:])  # the first may write byte code


def _medians(name: str, engine: str, times: list[tuple[float, float]]) -> Row:
    wall, cpu = (statistics.median(each) for each in zip(*times, strict=True))
    return Row(name, engine, {}, wall, len(times), None, {}, cpu)


def _seconds(python: Path, program: str, arguments: list[str]) -> tuple[float, float]:
    """What the program says on its last line: wall and processor."""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Blender and the worker do write it
    command = [str(python), "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    wall, cpu = json.loads(done.stdout.strip().splitlines()[-1])
    return float(wall), float(cpu)

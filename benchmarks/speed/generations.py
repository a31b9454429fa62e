"""(d) Whole generations by preset: time, peak memory, and quality (volume IoU with Toybox's true object)."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from backend.job import run_job
from backend.meshing import read_mesh
from backend.request import MeshSettings, OptimizeSettings, PresetName, RefineSettings, preset
from backend.toybox.captions import caption
from backend.toybox.world import Look, make_object

from ..truth import shape_score
from .cases import Row, peak_bytes

LOOK = Look("duck", "purple")


def generation_row(name: PresetName, *, quick: bool) -> Row:
    """From the words to the files, in this process, which should be a fresh one; ``quick`` is a few steps only."""
    request = preset(name, caption(LOOK), device="cpu")
    if quick:
        short = OptimizeSettings(iterations=3, resolution=16, samples_per_ray=8)
        mesh = MeshSettings(grid_resolution=24, faces=300, texture_size=64)
        request = request.replace(optimize=short, refine=RefineSettings(iterations=0), mesh=mesh)
    with tempfile.TemporaryDirectory(prefix="dreamlathe-") as folder:
        started, busy = time.perf_counter(), time.process_time()
        made = run_job(request, Path(folder) / "job", lambda _: None, lambda: False)
        seconds, cpu = time.perf_counter() - started, time.process_time() - busy
        metrics = json.loads((made / "metrics.json").read_text(encoding="utf-8"))
        score = shape_score(read_mesh(made / "mesh.glb"), make_object(LOOK))
    whole = peak_bytes()
    peak = None if whole is None else round(whole / 2**20, 1)
    size = {"steps": metrics["optimize"]["steps"], "faces": metrics["mesh"]["faces"]}
    more = {
        "prompt": request.prompt,
        "iou": round(score["iou"], 4),
        "chamfer": round(score["chamfer"], 4),
        "parts": metrics["seconds"],
    }
    return Row("generation", f"toybox, {name}", size, seconds, 1, peak, more, cpu)

"""One asset: made in a process of its own, and measured.

The heavy imports wait inside the functions, so that a process can set its threads first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .subjects import Asset, has_face


def make(asset: Asset, folder: Path, preset: str, model: str, changes: list[str]) -> float:
    """Generate one asset; returns the seconds it took, over all attempts. Runs in a process of its own."""
    from backend.job import run_job

    run_job(asset.request(preset, model, changes), folder, lambda _: None, lambda: False)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return round(sum(metrics["seconds"].values()), 1)


def judged(asset: Asset, folder: Path, seconds: float, judge: Any) -> dict[str, Any]:
    """Measure a finished asset and keep what was found beside it."""
    from backend.meshing import read_mesh

    from .measures import AZIMUTHS, measure, views
    from .report import strip

    mesh = read_mesh(folder / "mesh.glb")
    row: dict[str, Any] = {"kind": asset.look.kind, "face": has_face(asset.look), "seconds": seconds}
    seen = views(mesh)
    row |= measure(mesh, seen, asset.look, judge)
    strip(seen, AZIMUTHS).save(folder / "views.png")
    (folder / "janus").touch() if row["janus"] else (folder / "janus").unlink(missing_ok=True)
    (folder / "measured.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    return row

"""One object: made in a process of its own, and measured.

The heavy imports wait inside the functions, so that a process can set its threads first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from .baselines import Made, MeanShapes
    from .subjects import Subject

STAND_INS = ("job", "truth", "hull")
"""What is measured as ours: the job's mesh, or (to check the benchmark itself) the true mesh or the hull."""


def make(subject: Subject, arguments: argparse.Namespace) -> float:
    """Reconstruct one object; returns the seconds it took, over all attempts. Runs in a process of its own."""
    from backend.job import run_job

    folder = arguments.out / subject.name
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "picture.png"
    if not image.exists():
        subject.save_picture(image)
    if arguments.made != "job":
        return 0.0
    request = subject.request(image.absolute(), arguments.preset, arguments.view_model, arguments.seed, arguments.set)
    run_job(request, folder / "job", lambda _: None, lambda: False)
    metrics = json.loads((folder / "job" / "metrics.json").read_text(encoding="utf-8"))
    return round(sum(metrics["seconds"].values()), 1)


def measured(subject: Subject, folder: Path, seconds: float, made: str, means: MeanShapes) -> dict[str, Any]:
    """Measure a finished object and both baselines, and keep what was found, and the pictures, beside it."""
    from .baselines import visual_hull
    from .measures import SHOWN, Truth
    from .report import strip

    truth, hull = Truth(subject), visual_hull(subject)
    shapes = {"ours": _ours(truth, hull, folder, made), "hull": hull, "mean_shape": means.of(subject)}
    scores = {name: truth.score(shape) for name, shape in shapes.items()}
    white = subject.picture[..., :3] * subject.picture[..., 3:] + 1 - subject.picture[..., 3:]
    views = [truth.views, *(views for _, views in scores.values())]
    strip([white, *(shown[i] for shown in views for i in SHOWN)]).save(folder / "views.png")
    azimuth, elevation = subject.pose
    row: dict[str, Any] = {
        "name": subject.name,
        "kind": subject.kind,
        "group": subject.group,
        "azimuth": azimuth,
        "elevation": elevation,
        "seconds": seconds,
        **{name: {k: round(v, 5) for k, v in figures.items()} for name, (figures, _) in scores.items()},
        "true_mesh": truth.control(),
    }
    (folder / "measured.json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    return row


def _ours(truth: Any, hull: Made, folder: Path, made: str) -> Made:
    from backend.meshing import read_mesh

    from .measures import made_of

    if made == "job":
        return made_of(read_mesh(folder / "job" / "mesh.glb"))
    return hull if made == "hull" else made_of(truth.mesh)

"""Every kind of the built-in model, generated once and compared with its true shape.

``python -m benchmarks.toybox_shapes --out out/shapes`` runs what is missing there (jobs resume, finished ones stay),
prints a table, and writes ``results.json`` and a contact sheet: per kind, 8 azimuths, the true object beneath.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.cameras import orbit_cameras
from backend.events import Event, Message
from backend.job import run_job
from backend.meshing import read_mesh, render_mesh
from backend.meshing.mesh import Mesh
from backend.picture.colour import linear_to_srgb
from backend.request import Request, preset
from backend.toybox.captions import caption
from backend.toybox.kinds import KINDS
from backend.toybox.raycast import Light, render
from backend.toybox.shapes import Solids
from backend.toybox.world import COLOURS, Look, make_object

from .truth import shape_score

VIEW_SIZE = 128
AZIMUTHS = tuple(range(0, 360, 45))
ELEVATION, DISTANCE, FIELD_OF_VIEW = 15.0, 3.0, 40.0


def look_of(kind: str) -> Look:
    """What is asked for of one kind; colours go round so that every one is seen."""
    return Look(kind, tuple(COLOURS)[tuple(KINDS).index(kind) % len(COLOURS)])


def request_for(kind: str, arguments: argparse.Namespace) -> Request:
    """The request of one kind."""
    request = preset(arguments.preset, caption(look_of(kind)), seed=arguments.seed, model=arguments.model)
    return request.with_assignments(arguments.set).validated()


def pictures(mesh: Mesh, solids: Solids) -> NDArray[np.uint8]:
    """Two rows of 8 azimuths: the mesh, and the true object."""
    cameras = orbit_cameras(np.array(AZIMUTHS, float), ELEVATION, DISTANCE, FIELD_OF_VIEW)
    rgba = render_mesh(mesh, cameras, VIEW_SIZE, VIEW_SIZE)
    ours = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    true: list[NDArray[np.floating]] = []
    for pose, focal in zip(cameras.camera_to_world, cameras.focal.tolist(), strict=True):
        x, y, z = pose[:3, 3].tolist()
        linear, cover = render(solids, pose, (focal[0], focal[1]), (0.0, 0.0), VIEW_SIZE, Light((x, y, z + 1), 0.4))
        shown = linear_to_srgb(np.clip(linear, 0, 1))
        true.append(shown * cover[..., None] + 1 - cover[..., None])
    rows = [np.concatenate(list(row), axis=1) for row in (ours, np.stack(true))]
    return np.rint(np.concatenate(rows) * 255).astype(np.uint8)


def run_kind(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Generate (or take the finished job), score, and keep the pictures beside the job."""
    request, folder = request_for(kind, arguments), arguments.out / kind

    def report(event: Event) -> None:
        if isinstance(event, Message):
            print(f"  {kind}: {event.text}", flush=True)

    start = time.monotonic()
    run_job(request, folder, report, lambda: False)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    mesh = read_mesh(folder / "mesh.glb")
    solids = make_object(look_of(kind))
    Image.fromarray(pictures(mesh, solids)).save(folder / "compared.png")
    result: dict[str, Any] = {
        "kind": kind,
        "prompt": request.prompt,
        **shape_score(mesh, solids),
        "faces": len(mesh.faces),
    }
    result["seconds"] = round(sum(metrics.get("seconds", {}).values()) or time.monotonic() - start, 1)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as in the generate command")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    print(f"{'prompt':28} {'IoU':>6} {'Chamfer':>8} {'faces':>7} {'seconds':>8}")
    for kind in arguments.kinds:
        row = run_kind(kind, arguments)
        rows.append(row)
        print(
            f"{row['prompt']:28} {row['iou']:6.3f} {row['chamfer']:8.4f} {row['faces']:7d} {row['seconds']:8.1f}",
            flush=True,
        )
    mean = {name: float(np.mean([row[name] for row in rows])) for name in ("iou", "chamfer", "seconds")}
    print(f"{'mean':28} {mean['iou']:6.3f} {mean['chamfer']:8.4f} {'':7} {mean['seconds']:8.1f}")
    sheet = [np.asarray(Image.open(arguments.out / row["kind"] / "compared.png")) for row in rows]
    Image.fromarray(np.concatenate(sheet)).save(arguments.out / "shapes.png")
    (arguments.out / "results.json").write_text(
        json.dumps({"mean": mean, "kinds": rows}, indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

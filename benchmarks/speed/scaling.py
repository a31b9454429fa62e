"""(e) How cost grows with rays, samples, levels, batch, views, texture and faces: c · sizeᵏ, with the fitted k."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from backend.cameras import orbit_cameras
from backend.meshing import extract_mesh
from backend.rendering import Renderer, Shading
from backend.request import MeshSettings, OptimizeSettings

from .cases import Action, Case, Row, measure
from .parts import encoding, shell

OCCUPIED = 0.3


def view(side: int = 64, samples: int = 64, views: int = 1) -> dict[str, Action]:
    """Forth and back through so many views of so many rays and samples."""
    settings = dataclasses.replace(OptimizeSettings(), samples_per_ray=samples)
    field, grid = shell(OCCUPIED, settings)
    renderer, rng = Renderer(field, grid, samples), np.random.default_rng(0)
    cameras = orbit_cameras(np.linspace(-180, 180, views, endpoint=False), 15.0, 3.0, 40.0)

    def both() -> None:
        light = torch.from_numpy(cameras.position.astype(np.float32))
        shading = Shading("lambertian", light)
        out = renderer.render(cameras, side, side, shading=shading, background=torch.ones(3), rng=rng)
        out.rgb.square().mean().backward()

    return {"step": both}


def grid_both(points: int = 1 << 16, levels: int = 8) -> dict[str, Action]:
    """Forth and back through the hash grid."""
    actions = encoding("numba", points, levels)

    def both() -> None:
        for action in actions.values():
            action()

    return {"step": both}


def meshing(texture: int = 512, faces: int = 4000, quick: bool = False) -> dict[str, Action]:
    """A ball's mesh; its texture, or its number of faces."""
    field, grid = shell(OCCUPIED, OptimizeSettings())
    with torch.no_grad():
        field.density_weight.mul_(0.0)  # the prior alone: a ball
    settings = MeshSettings(grid_resolution=32 if quick else 96, faces=faces, texture_size=texture)
    del grid
    return {"step": lambda: extract_mesh(field, None, settings, lambda *_: None)}


AXES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "rays": ("view", "side", (32, 48, 64, 96, 128)),
    "samples": ("view", "samples", (32, 64, 128, 256)),
    "views": ("view", "views", (1, 2, 4, 8)),
    "points": ("grid_both", "points", (1 << 12, 1 << 14, 1 << 16, 1 << 18)),
    "levels": ("grid_both", "levels", (4, 8, 12, 16)),
    "texture": ("meshing", "texture", (256, 512, 1024, 2048)),
    "faces": ("meshing", "faces", (1000, 2000, 4000, 8000)),
}
"""What grows: by which function and argument, and through which values."""


def scaling_rows(axis: str, *, quick: bool, timed: Callable[[Case], list[Row]] = measure) -> list[Row]:
    """A row for each value, and in the last one the exponent that fits all of them best."""
    function, argument, values = AXES[axis]
    rows: list[Row] = []
    for value in values[:2] if quick else values:
        arguments = {argument: value} | ({"quick": True} if quick and function == "meshing" else {})
        shown = value**2 if axis == "rays" else value
        runs = 1 if quick else (3 if function == "meshing" else 9)
        case = Case(f"{__name__}:{function}", arguments, "numba", {axis: shown}, runs)
        rows += [dataclasses.replace(row, name=f"scaling by {axis}") for row in timed(case)]
    fitted = exponent([row.size[axis] for row in rows], [row.median_s for row in rows])
    return [*rows[:-1], dataclasses.replace(rows[-1], more={"exponent": round(fitted, 3)})]


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The k of the c · sizeᵏ that fits best, by least squares of the logarithms."""
    slope, _ = np.polyfit([math.log(s) for s in sizes], [math.log(t) for t in seconds], 1)
    return float(slope)

"""Looking through a camera of the scene shows what the optimizer saw from there: a render and our cameras agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend import cameras as plain
from backend.request import Request
from tests.bpy.blender import Euler, Matrix, bpy
from tests.bpy.glb_fixture import triangles, write_result

SIDE = 200


def rendered(camera: Any, path: Path, width: int, height: int) -> NDArray[np.bool_]:
    """Where Blender's own render shows the object, [height, width], row 0 at the top."""
    scene = bpy.context.scene
    scene.camera, scene.render.filepath = camera, str(path)
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.device = 4, False, "CPU"
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = width, height, 100
    scene.render.film_transparent = True
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGBA"
    bpy.ops.render.render(write_still=True)
    picture = bpy.data.images.load(str(path))
    alpha = np.array(picture.pixels[:], np.float32).reshape(height, width, 4)[::-1, :, 3]
    return alpha > 0.5


def seen(camera: Any, side: int) -> NDArray[np.bool_]:
    """Where rays of the optimizer's camera meet the mesh of the job's file, [side, side]."""
    origins, directions = plain.rays(plain.fixed_cameras([camera]), side, side)
    start, rays = origins[0].astype(np.float64), directions[0].reshape(-1, 3).astype(np.float64)
    hit = np.zeros(len(rays), bool)
    for corner, second, third in np.array(triangles(), np.float64):  # Möller and Trumbore
        u, v = second - corner, third - corner
        across = np.cross(rays, v)
        determinant = across @ u
        inverse = 1.0 / np.where(np.abs(determinant) < 1e-12, np.inf, determinant)
        a = across @ (start - corner) * inverse
        turned = np.cross(start - corner, u)
        b = rays @ turned * inverse
        hit |= (a >= 0) & (b >= 0) & (a + b <= 1) & (turned @ v * inverse > 0)
    return hit.reshape(side, side)


@pytest.mark.parametrize(("width", "height"), [(SIDE, SIDE), (SIDE, 120), (120, SIDE)])
def test_a_render_shows_what_the_optimizer_saw(
    extension: Any, settings: Any, tmp_path: Path, width: int, height: int
) -> None:
    """A turned, moved, scaled rig; the cameras it makes; the result placed by the job's record."""
    rig_module, generation = extension("bridge.rig"), extension("bridge.generation")
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y = width, height
    turn = Euler((0.2, -0.1, 1.0)).to_quaternion()
    settings.rig = rig_module.add_rig(scene, Matrix.LocRotScale((3, -2, 1), turn, (1.7, 1.7, 1.7)))
    settings.orbit.elevation, settings.prompt = (10, 30), "a red duck"
    bpy.context.view_layer.update()
    bpy.ops.dreamlathe.cameras_add(count=3)
    plan = generation.make_plan(bpy.context, folder=tmp_path / "job", python="python")
    write_result(tmp_path / "job", json.loads(plan.request.to_json()))
    extension("bridge.result").import_result(tmp_path / "job", scene, plan.placement)
    for index, camera in enumerate(Request.from_json(plan.request.to_json()).cameras):
        there = rendered(bpy.data.objects[camera.name], tmp_path / f"{index}.png", width, height)
        here = seen(camera, SIDE)
        down, right = (SIDE - height) // 2, (SIDE - width) // 2
        here = here[down : down + height, right : right + width]
        assert there.mean() > 0.02
        overlap = (here & there).sum() / (here | there).sum()
        assert overlap >= 0.95, (camera.name, overlap)

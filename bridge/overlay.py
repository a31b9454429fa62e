"""The rig drawn in the viewport: the object's front, and where the orbit's cameras stand. The empty draws the ball."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy
import gpu
from bpy.types import SpaceView3D
from gpu_extras.batch import batch_for_shader

from ..properties import orbit_of, settings_of
from . import frames
from .blender import scene_of
from .rig import find_rig, rig_matrix
from .rig_shape import Segments, front_arrow, orbit_range

_FRONT = (1.0, 0.6, 0.15, 1.0)
_RANGE = (0.35, 0.75, 1.0, 0.55)
_handler: Any = None
_batches: dict[object, Any] = {}


@frames.timed("draw rig")
def _draw() -> None:
    context: Any = bpy.context
    scene = scene_of(context)
    settings = settings_of(scene)
    space = context.space_data
    if not settings.show_orbit or not space.overlay.show_overlays or not space.overlay.show_extras:
        return
    rig = find_rig(scene, settings.rig)
    if rig is None or not rig.visible_get():
        return
    graphics: Any = gpu  # the stubs say that its functions return nothing
    shader = graphics.shader.from_builtin("UNIFORM_COLOR")  # Blender has it at hand: nothing to compile
    shader.bind()
    gpu.state.blend_set("ALPHA")
    gpu.state.depth_test_set("LESS_EQUAL")
    with graphics.matrix.push_pop():
        gpu.matrix.multiply_matrix(rig_matrix(rig))
        _lines(shader, "front", front_arrow, _FRONT, 2.5)
        if settings.camera_source == "ORBIT":
            orbit = orbit_of(settings)
            _lines(shader, orbit, lambda: orbit_range(orbit), _RANGE, 1.5)
    gpu.state.line_width_set(1.0)
    gpu.state.depth_test_set("NONE")
    gpu.state.blend_set("NONE")


def _lines(shader: Any, key: object, make: Callable[[], Segments], colour: tuple[float, ...], width: float) -> None:
    """Draw segments; those that were drawn before are on the GPU still."""
    if key not in _batches:
        if len(_batches) > 8:
            _batches.clear()
        _batches[key] = batch_for_shader(shader, "LINES", {"pos": make().tolist()})
    gpu.state.line_width_set(width)
    shader.uniform_float("color", colour)
    _batches[key].draw(shader)


def register() -> None:
    """Draw from now on, where there is a window."""
    global _handler  # noqa: PLW0603 - the handle is needed to take it back
    if not bpy.app.background:
        _handler = SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    """Draw no more."""
    global _handler  # noqa: PLW0603
    if _handler is not None:
        SpaceView3D.draw_handler_remove(_handler, "WINDOW")
    _handler = None
    _batches.clear()

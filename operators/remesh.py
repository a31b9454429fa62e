"""Quads in place of a dense result."""

from __future__ import annotations

from typing import Any, cast

from bpy.props import BoolProperty, IntProperty
from bpy.types import Context, Event, Operator

from ..backend.errors import DreamlatheError
from ..bridge.blender import OperatorReturn, window_manager, with_properties
from ..bridge.remesh import RemeshSettings, is_result, quad_remesh


class DREAMLATHE_OT_quad_remesh(Operator):
    """Make a mesh of quads of the active result, and bake its colours and its normals onto it. Takes some seconds."""

    bl_idname = "dreamlathe.quad_remesh"
    bl_label = "Quad Remesh and Rebake"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.mode != "OBJECT":
            cls.poll_message_set("Go to object mode")
        elif not is_result(context.active_object):
            cls.poll_message_set("Make a result the active object")
        else:
            return True
        return False

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Ask how fine."""
        return window_manager().invoke_props_dialog(self)

    def execute(self, context: Context) -> OperatorReturn:
        values, dense = cast("Any", self), context.active_object
        assert dense is not None
        settings = RemeshSettings(values.faces, values.texture_size, values.hide_dense)
        try:
            quads = quad_remesh(context, dense, settings)
        except DreamlatheError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"{len(cast('Any', quads.data).polygons)} faces baked")
        return {"FINISHED"}


with_properties(
    DREAMLATHE_OT_quad_remesh,
    {
        "faces": IntProperty(name="Faces", description="About how many quads", default=4000, min=20, max=500_000),
        "texture_size": IntProperty(
            name="Texture Size", description="Side of the pictures, in pixels", default=1024, min=64, max=8192
        ),
        "hide_dense": BoolProperty(name="Hide the Dense Mesh", description="Show the quads alone", default=True),
    },
)

CLASSES = (DREAMLATHE_OT_quad_remesh,)

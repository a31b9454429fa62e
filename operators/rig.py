"""The rig: the ball the object will live in, and real cameras around it."""

from __future__ import annotations

from typing import Any, cast

from bpy.props import IntProperty
from bpy.types import Context, Operator
from mathutils import Matrix

from ..bridge.blender import OperatorReturn, layer_of, scene_of, with_properties
from ..bridge.rig import add_cameras, add_rig, find_rig, rig_matrix
from ..properties import orbit_of, settings_of


class DREAMLATHE_OT_rig_add(Operator):
    """Add an empty at the 3D cursor, drawn as the ball the object will live in. Move, turn and scale it at will."""

    bl_idname = "dreamlathe.rig_add"
    bl_label = "Add Rig"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.mode != "OBJECT":
            cls.poll_message_set("Rigs are added in object mode")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        scene = scene_of(context)
        rig = add_rig(scene, Matrix.Translation(scene.cursor.location))
        settings_of(scene).rig = rig
        for each in context.selected_objects:
            each.select_set(False)
        rig.select_set(True)
        layer_of(context).objects.active = rig
        return {"FINISHED"}


class DREAMLATHE_OT_cameras_add(Operator):
    """Add cameras around the rig, in the middle of the orbit's ranges, and look from them."""

    bl_idname = "dreamlathe.cameras_add"
    bl_label = "Add Cameras"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if context.mode != "OBJECT":
            cls.poll_message_set("Cameras are added in object mode")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        scene = scene_of(context)
        settings = settings_of(scene)
        matrix = rig_matrix(find_rig(scene, settings.rig))
        count = int(cast("Any", self).count)
        settings.camera_collection = add_cameras(scene, orbit_of(settings), matrix, count)
        settings.camera_source = "COLLECTION"
        return {"FINISHED"}


with_properties(
    DREAMLATHE_OT_cameras_add,
    {"count": IntProperty(name="Count", description="How many cameras", default=8, min=1, max=256)},
)

CLASSES = (DREAMLATHE_OT_rig_add, DREAMLATHE_OT_cameras_add)

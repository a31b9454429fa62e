"""The rig: the ball the object will live in, and real cameras around it."""

from __future__ import annotations

from typing import Any, cast

from bpy.props import IntProperty, StringProperty
from bpy.types import Camera, Context, Object, Operator
from mathutils import Matrix, Vector

from ..bridge.blender import OperatorReturn, areas, layer_of, scene_of, with_properties
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
    """Add real cameras around the rig, in the middle of the orbit's ranges, and look from them."""

    bl_idname = "dreamlathe.cameras_add"
    bl_label = "Cameras from Rig"
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


class OnCamera:
    """An operator on one camera of the scene, which it names."""

    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> OperatorReturn:
        operator = cast("Any", self)
        camera = scene_of(context).objects.get(operator.name)
        if camera is None or camera.type != "CAMERA":
            operator.report({"WARNING"}, f"There is no camera {operator.name}")
            return {"CANCELLED"}
        self.apply(context, camera)
        return {"FINISHED"}

    def apply(self, context: Context, camera: Object) -> None:
        """What is done to the camera."""
        raise NotImplementedError


def name_their_camera(*operators: type[OnCamera]) -> None:
    """Give operators the property by which they name their camera."""
    for operator in operators:
        with_properties(operator, {"name": StringProperty(name="Camera", description="The camera's name")})


class DREAMLATHE_OT_camera_look(OnCamera, Operator):
    """Make this the scene's camera, and look through it."""

    bl_idname = "dreamlathe.camera_look"
    bl_label = "Look Through"

    def apply(self, context: Context, camera: Object) -> None:
        scene_of(context).camera = camera
        for area in areas("VIEW_3D"):
            cast("Any", area.spaces.active).region_3d.view_perspective = "CAMERA"


class DREAMLATHE_OT_camera_mend(OnCamera, Operator):
    """Give this camera the perspective that views are made with."""

    bl_idname = "dreamlathe.camera_mend"
    bl_label = "Set to Perspective"

    def apply(self, context: Context, camera: Object) -> None:
        cast("Camera", camera.data).type = "PERSP"


class DREAMLATHE_OT_rig_even(Operator):
    """Give the rig the same positive scale along all axes, so that cameras can be seen from it."""

    bl_idname = "dreamlathe.rig_even"
    bl_label = "Even the Rig's Scale"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> OperatorReturn:
        rig = find_rig(scene_of(context), settings_of(scene_of(context)).rig)
        if rig is None:
            self.report({"WARNING"}, "There is no rig")
            return {"CANCELLED"}
        place, turn, scale = rig.matrix_world.decompose()
        size = (abs(scale.x) + abs(scale.y) + abs(scale.z)) / 3.0 or 1.0
        rig.matrix_world = Matrix.LocRotScale(place, turn, Vector((size, size, size)))
        return {"FINISHED"}


name_their_camera(DREAMLATHE_OT_camera_look, DREAMLATHE_OT_camera_mend)

CLASSES = (
    DREAMLATHE_OT_rig_add,
    DREAMLATHE_OT_cameras_add,
    DREAMLATHE_OT_camera_look,
    DREAMLATHE_OT_camera_mend,
    DREAMLATHE_OT_rig_even,
)

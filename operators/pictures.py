"""The scene's list of pictures: open some, take the one behind a camera, take one off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import bpy
from bpy.props import BoolProperty, CollectionProperty, IntProperty, StringProperty
from bpy.types import Context, Event, FileHandler, Object, Operator, OperatorFileListElement

from ..bridge.blender import OperatorReturn, layer_of, scene_of, window_manager, with_properties
from ..bridge.callbacks import CAMERA_PROMPT
from ..bridge.pictures import has_picture, straighten
from ..properties import Settings, settings_of, uses_pictures
from .rig import OnCamera, name_their_camera

_UNSAVED: Any = {"SKIP_SAVE"}
"""Of what one button says: the next one does not mean it as well."""
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""Of the pictures that the backend reads."""


class DREAMLATHE_OT_picture_add(Operator):
    """Open one or more pictures of the object; each is seen from the front until it is told otherwise."""

    bl_idname = "dreamlathe.picture_add"
    bl_label = "Open Pictures"
    bl_options = {"REGISTER", "UNDO"}

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Let a person choose files; those that were dropped on the sidebar are chosen already."""
        values = cast("Any", self)
        if values.filepath or any(each.name for each in values.files):
            return self.execute(context)
        window_manager().fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> OperatorReturn:
        settings = settings_of(scene_of(context))
        values = cast("Any", self)
        names = [each.name for each in values.files if each.name]
        paths = [str(Path(values.directory) / name) for name in names] or list(filter(None, [values.filepath]))
        added = 0
        for path in paths:
            try:
                image = bpy.data.images.load(path, check_existing=True)
            except RuntimeError:
                self.report({"WARNING"}, f"Blender cannot open {Path(path).name}")
                continue
            index = values.index + added if values.index >= 0 else -1
            item = settings.pictures[index] if 0 <= index < len(settings.pictures) else settings.pictures.add()
            item.image = image
            added += 1
        if not added:
            return {"CANCELLED"}
        if values.index < 0:
            settings.picture = len(settings.pictures) - 1
        if not uses_pictures(settings):  # who drops pictures means to make something of them
            settings.source = "BOTH" if settings.prompt.strip() else "PICTURE"
        return {"FINISHED"}


with_properties(
    DREAMLATHE_OT_picture_add,
    {
        "filepath": StringProperty(name="File", description="The picture", subtype="FILE_PATH", options=_UNSAVED),
        "directory": StringProperty(name="Folder", description="Where the pictures are", subtype="DIR_PATH"),
        "files": CollectionProperty(
            name="Files", description="The pictures' names", type=OperatorFileListElement, options=_UNSAVED
        ),
        "index": IntProperty(
            name="Picture", description="The picture of the list to replace; -1: add", default=-1, options=_UNSAVED
        ),
        "filter_image": BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"}),
        "filter_folder": BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"}),
    },
)


class DREAMLATHE_FH_pictures(FileHandler):
    """Pictures that are dropped on the Dreamlathe tab. On the view itself, Blender has drops of its own."""

    bl_idname = "DREAMLATHE_FH_pictures"
    bl_label = "Pictures of the Object"
    bl_import_operator = "dreamlathe.picture_add"
    bl_file_extensions = ";".join(_ENDINGS)

    @classmethod
    def poll_drop(cls, context: Context) -> bool:
        place = cast("Any", context)
        area, region = place.area, place.region
        if area is None or area.type != "VIEW_3D" or region is None or region.type != "UI":
            return False
        return getattr(region, "active_panel_category", "Dreamlathe") == "Dreamlathe"


class DREAMLATHE_OT_picture_from_camera(Operator):
    """Add the picture that lies behind the active camera, or the scene's, as it is seen from there."""

    bl_idname = "dreamlathe.picture_from_camera"
    bl_label = "From Camera"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        camera = _camera(context)
        if camera is None:
            cls.poll_message_set("The scene has no camera")
        elif not has_picture(camera):
            cls.poll_message_set(f"Give {camera.name} a background image first")
        elif any(item.camera == camera for item in settings_of(scene_of(context)).pictures):
            cls.poll_message_set(f"The picture of {camera.name} is in the list already")
        else:
            return True
        return False

    def execute(self, context: Context) -> OperatorReturn:
        settings = settings_of(scene_of(context))
        settings.pictures.add().camera = _camera(context)
        settings.picture = len(settings.pictures) - 1
        return {"FINISHED"}


class _OnPicture:
    """An operator on one picture of the list."""

    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not settings_of(scene_of(context)).pictures:
            cast("Any", cls).poll_message_set("The list has no picture")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        settings, values = settings_of(scene_of(context)), cast("Any", self).properties
        index = values.index if values.is_property_set("index") else settings.picture
        if not 0 <= index < len(settings.pictures):
            return {"CANCELLED"}
        self.apply(settings, index)
        return {"FINISHED"}

    def apply(self, settings: Settings, index: int) -> None:
        """What is done to the picture that is meant: the named one, or the chosen one."""
        raise NotImplementedError


class DREAMLATHE_OT_picture_remove(_OnPicture, Operator):
    """Take this picture off the list; the image stays in the file."""

    bl_idname = "dreamlathe.picture_remove"
    bl_label = "Remove Picture"

    def apply(self, settings: Settings, index: int) -> None:
        settings.pictures.remove(index)
        settings.picture = max(0, min(settings.picture, len(settings.pictures) - 1))


class DREAMLATHE_OT_picture_maps_clear(_OnPicture, Operator):
    """Leave out the depth and the normals of this picture."""

    bl_idname = "dreamlathe.picture_maps_clear"
    bl_label = "Leave Out Depth and Normals"

    def apply(self, settings: Settings, index: int) -> None:
        settings.pictures[index].depth = settings.pictures[index].normals = ""


for _operator in (DREAMLATHE_OT_picture_remove, DREAMLATHE_OT_picture_maps_clear):
    _index = IntProperty(name="Picture", description="Its place in the list; unset: the chosen one", options=_UNSAVED)
    with_properties(_operator, {"index": _index})


class DREAMLATHE_OT_background_straighten(OnCamera, Operator):
    """Put the picture behind this camera back: no offset, no rotation, not mirrored."""

    bl_idname = "dreamlathe.background_straighten"
    bl_label = "Straighten Background"

    def apply(self, context: Context, camera: Object) -> None:
        straighten(camera)


class DREAMLATHE_OT_camera_prompt_clear(OnCamera, Operator):
    """Let the scene's prompt say what is seen from this camera."""

    bl_idname = "dreamlathe.camera_prompt_clear"
    bl_label = "Clear Camera Prompt"

    def apply(self, context: Context, camera: Object) -> None:
        setattr(camera, CAMERA_PROMPT, "")


name_their_camera(DREAMLATHE_OT_background_straighten, DREAMLATHE_OT_camera_prompt_clear)


def _camera(context: Context) -> Object | None:
    active = layer_of(context).objects.active
    return active if active is not None and active.type == "CAMERA" else scene_of(context).camera


CLASSES = (
    DREAMLATHE_OT_picture_add,
    DREAMLATHE_OT_picture_from_camera,
    DREAMLATHE_OT_picture_remove,
    DREAMLATHE_OT_picture_maps_clear,
    DREAMLATHE_OT_background_straighten,
    DREAMLATHE_OT_camera_prompt_clear,
    DREAMLATHE_FH_pictures,
)

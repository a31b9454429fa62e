"""Cameras: from where to look."""

from __future__ import annotations

from bpy.types import Context, Panel

from ..bridge.blender import scene_of
from ..bridge.rig import camera_objects, find_rig
from .common import SidebarPanel, columns, layout_of, shown


class DREAMLATHE_PT_cameras(SidebarPanel, Panel):
    bl_label = "Cameras"
    bl_order = 1

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        row = layout.row(align=True)
        row.prop(settings, "rig")
        row.operator("dreamlathe.rig_add", text="", icon="ADD")
        if settings.rig is None:
            found = find_rig(scene_of(context))
            layout.label(text=f"Around {found.name if found else 'the world origin'}", icon="INFO")
        layout.prop(settings, "camera_source")
        if settings.camera_source == "ORBIT":
            return
        if settings.camera_source == "COLLECTION":
            layout.prop(settings, "camera_collection")
        count = len(camera_objects(context, settings.camera_source, settings.camera_collection))
        text = "1 camera" if count == 1 else f"{count} cameras"
        layout.label(text=text, icon="OUTLINER_DATA_CAMERA" if count else "ERROR")


class DREAMLATHE_PT_orbit(SidebarPanel, Panel):
    bl_label = "Orbit"
    bl_parent_id = "DREAMLATHE_PT_cameras"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        for name in ("azimuth", "elevation", "distance", "field_of_view"):
            layout.column(align=True).prop(settings.orbit, name)
        column = layout.column(align=True)
        for name in ("jitter_position", "jitter_target", "jitter_up"):
            column.prop(settings.orbit, name)
        layout.prop(settings.orbit, "area_share")
        layout.operator("dreamlathe.cameras_add", icon="OUTLINER_OB_CAMERA")


CLASSES = (DREAMLATHE_PT_cameras, DREAMLATHE_PT_orbit)

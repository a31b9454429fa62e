"""Cameras: from where to look."""

from __future__ import annotations

from typing import Any

from bpy.types import Context, Panel, UILayout

from ..bridge.blender import scene_of
from ..bridge.callbacks import CAMERA_PROMPT
from ..bridge.pictures import has_picture
from ..bridge.rig import camera_objects, find_rig
from ..properties import uses_pictures, uses_prompt
from .common import SidebarPanel, columns, layout_of, shown

_SHOWN = 8
"""Cameras that are listed by name."""


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
        _draw_cameras(context, layout)


class DREAMLATHE_PT_orbit(SidebarPanel, Panel):
    bl_label = "Orbit"
    bl_parent_id = "DREAMLATHE_PT_cameras"
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header_preset(self, context: Context) -> None:
        layout_of(self).prop(shown(context), "show_orbit", text="", icon="HIDE_OFF", emboss=False)

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        for name in ("azimuth", "elevation", "distance", "field_of_view"):
            layout.column(align=True).prop(settings.orbit, name)
        column = layout.column(align=True)
        for name in ("jitter_position", "jitter_target", "jitter_up"):
            column.prop(settings.orbit, name)
        layout.prop(settings.orbit, "area_share")
        column = layout.column(align=True)
        column.prop(settings, "camera_count", text="Cameras")
        add: Any = column.operator("dreamlathe.cameras_add", icon="OUTLINER_OB_CAMERA")
        add.count = settings.camera_count


def _draw_cameras(context: Context, layout: UILayout) -> None:
    """How many there are, and a button to look through each."""
    settings = shown(context)
    cameras = camera_objects(context, settings.camera_source, settings.camera_collection)
    text = "1 camera" if len(cameras) == 1 else f"{len(cameras)} cameras"
    layout.label(text=text, icon="OUTLINER_DATA_CAMERA" if cameras else "ERROR")
    column = layout.column(align=True)
    for camera in cameras[:_SHOWN]:
        row = column.row(align=True)
        pictured = uses_pictures(settings) and has_picture(camera)
        row.label(text=camera.name, icon="IMAGE_DATA" if pictured else "BLANK1")
        if uses_prompt(settings):
            row.prop(camera, CAMERA_PROMPT, text="", placeholder="as the scene's")
        row.operator("dreamlathe.camera_look", text="", icon="VIEW_CAMERA").name = camera.name
    if len(cameras) > _SHOWN:
        column.label(text=f"and {len(cameras) - _SHOWN} more")


CLASSES = (DREAMLATHE_PT_cameras, DREAMLATHE_PT_orbit)

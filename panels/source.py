"""Source: what to make the object from, and which models say what it looks like."""

from __future__ import annotations

from typing import Any

from bpy.types import Context, Panel, UILayout, UIList

from ..bridge.picture_group import POSE
from ..bridge.pictures import unlisted_cameras
from ..bridge.rig import camera_objects
from ..bridge.vocabulary import shown as sorted_words
from ..bridge.vocabulary import vocabulary
from ..properties import Settings, uses_pictures, uses_prompt
from .common import SidebarPanel, columns, draw_text, layout_of, shown
from .models import draw_model

_PREVIEW = 7.0
"""Height of the chosen picture, in rows."""


class DREAMLATHE_UL_pictures(UIList):
    """One row a picture: what it shows, and from where."""

    def draw_item(
        self,
        context: Context,
        layout: UILayout,
        data: Any,
        item: Any,
        icon: int | None,
        active_data: Any,
        active_property: str | None,
        index: int | None = 0,
        flt_flag: int | None = 0,
    ) -> None:
        image = picture_of(item)
        row = layout.row()
        if image is None:
            row.label(text="No image", icon="ERROR")
        else:
            row.label(text=image.name, icon_value=layout.icon(image))
        if item.camera is not None:
            row.label(text=item.camera.name, icon="CAMERA_DATA")
        else:
            row.label(text=f"{item.azimuth:.0f}°, {item.elevation:.0f}° up", icon="ORIENTATION_GIMBAL")


class DREAMLATHE_PT_source(SidebarPanel, Panel):
    bl_label = "Source"
    bl_order = 0

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        layout.row(align=True).prop(settings, "source", expand=True)
        if uses_prompt(settings):
            _draw_prompt(settings, layout.column())
        if uses_pictures(settings):
            _draw_pictures(context, settings, layout.column())
        columns(layout)
        layout.prop(settings.optimize, "symmetry")


def _draw_prompt(settings: Settings, layout: UILayout) -> None:
    layout.prop(settings, "prompt", text="", icon="OUTLINER_DATA_FONT", placeholder="a red duck")
    columns(layout)
    layout.prop(settings, "negative_prompt", placeholder="nothing")
    draw_model(layout, settings, "model")


def _draw_pictures(context: Context, settings: Settings, layout: UILayout) -> None:
    """The list, the chosen one, what lies behind the cameras, and the model that is shown them all."""
    row = layout.row()
    row.template_list("DREAMLATHE_UL_pictures", "", settings, "pictures", settings, "picture", rows=3, maxrows=6)
    column = row.column(align=True)
    column.operator("dreamlathe.picture_add", text="", icon="ADD")
    column.operator("dreamlathe.picture_remove", text="", icon="REMOVE")
    column.separator()
    column.operator("dreamlathe.picture_from_camera", text="", icon="OUTLINER_OB_CAMERA")
    if 0 <= settings.picture < len(settings.pictures):
        _draw_picture(layout, settings.pictures[settings.picture])
    columns(layout)
    if settings.camera_source != "ORBIT":
        cameras = camera_objects(context, settings.camera_source, settings.camera_collection)
        layout.prop(settings, "camera_pictures")
        count = len(unlisted_cameras(settings, cameras))
        if count:
            text = "1 camera has a picture behind it" if count == 1 else f"{count} cameras have pictures behind them"
            layout.label(text=text, icon="CAMERA_DATA")
    draw_model(layout, settings, "view_model")


def _draw_picture(layout: UILayout, item: Any) -> None:
    """One picture, large, with what is to be said of it."""
    image = picture_of(item)
    box = layout.box()
    if image is not None:
        box.template_icon(icon_value=layout.icon(image), scale=_PREVIEW)
    box.template_ID(item, "image", open="image.open")
    columns(box)
    box.prop(item, "camera")
    if item.camera is None:
        column = box.column(align=True)
        for name in POSE:
            column.prop(item, name)
        box.prop(item, "framing")
    box.prop(item, "cutout")
    box.prop(item, "weight")


class DREAMLATHE_PT_picture_maps(SidebarPanel, Panel):
    bl_label = "Depth and Normals"
    bl_parent_id = "DREAMLATHE_PT_source"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        settings = shown(context)
        return uses_pictures(settings) and 0 <= settings.picture < len(settings.pictures)

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        item = settings.pictures[settings.picture]
        layout.prop(item, "depth", placeholder="none")
        layout.prop(item, "normals", placeholder="none")


class DREAMLATHE_PT_words(SidebarPanel, Panel):
    bl_label = "Words It Knows"
    bl_parent_id = "DREAMLATHE_PT_source"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        settings = shown(context)
        return uses_prompt(settings) and bool(sorted_words(vocabulary(settings.model)))

    def draw(self, context: Context) -> None:
        layout = layout_of(self)
        for name, words in sorted_words(vocabulary(shown(context).model)).items():
            column = layout.column(align=True)
            column.label(text=name.capitalize())
            draw_text(context, column, ", ".join(words))


def picture_of(item: Any) -> Any:
    """The image of a picture of the list: its own, or what lies behind its camera."""
    if item.image is not None or item.camera is None:
        return item.image
    behind = item.camera.data.background_images
    return next((each.image for each in behind if each.show_background_image and each.image is not None), None)


CLASSES = (DREAMLATHE_UL_pictures, DREAMLATHE_PT_source, DREAMLATHE_PT_picture_maps, DREAMLATHE_PT_words)

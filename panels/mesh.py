"""Mesh: how fine the result is, how large, and where it goes."""

from __future__ import annotations

from bpy.types import Context, Panel

from ..bridge.remesh import is_result
from .common import SidebarPanel, columns, layout_of, shown


class DREAMLATHE_PT_mesh(SidebarPanel, Panel):
    bl_label = "Mesh"
    bl_order = 3
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        for name in ("faces", "texture_size", "grid_resolution"):
            layout.prop(settings.mesh, name)
        row = layout.row(heading="Real-World Size")
        row.prop(settings, "use_real_size", text="")
        field = row.row()
        field.active = settings.use_real_size
        field.prop(settings, "real_size", text="")
        layout.prop(settings, "result_collection")
        layout.prop(settings, "mark_asset")
        if is_result(context.active_object):
            layout.operator("dreamlathe.quad_remesh", icon="MOD_REMESH")


CLASSES = (DREAMLATHE_PT_mesh,)

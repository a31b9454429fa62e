"""Mesh: how fine the result is."""

from __future__ import annotations

import dataclasses

from bpy.types import Context, Panel

from ..backend.request import MeshSettings
from .common import SidebarPanel, columns, layout_of, shown


class DREAMLATHE_PT_mesh(SidebarPanel, Panel):
    bl_label = "Mesh"
    bl_order = 3
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        for item in dataclasses.fields(MeshSettings):
            layout.prop(settings.mesh, item.name)


CLASSES = (DREAMLATHE_PT_mesh,)

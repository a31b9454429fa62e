"""Prompt: what to make."""

from __future__ import annotations

from bpy.types import Context, Panel

from .common import SidebarPanel, columns, layout_of, shown


class DREAMLATHE_PT_prompt(SidebarPanel, Panel):
    bl_label = "Prompt"
    bl_order = 0

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        layout.prop(settings, "prompt", text="", icon="OUTLINER_DATA_FONT", placeholder="a red duck")
        columns(layout)
        layout.prop(settings, "negative_prompt")
        layout.prop(settings, "seed")
        layout.prop(settings, "model")


CLASSES = (DREAMLATHE_PT_prompt,)

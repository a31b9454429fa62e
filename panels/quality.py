"""Quality: how long to work, and how closely to follow the prompt."""

from __future__ import annotations

import dataclasses

from bpy.types import Context, Panel

from ..backend.request import GuidanceSettings, OptimizeSettings
from .common import SidebarPanel, columns, layout_of, shown


class DREAMLATHE_PT_quality(SidebarPanel, Panel):
    bl_label = "Quality"
    bl_order = 2

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        layout.row(align=True).prop(settings, "preset", expand=True)
        columns(layout)
        layout.prop(settings.optimize, "iterations")
        layout.prop(settings.guidance, "guidance_scale")
        layout.prop(settings.guidance, "perp_neg")
        row = layout.row()
        row.active = settings.guidance.perp_neg != "off"
        row.prop(settings.guidance, "perp_neg_strength")


class DREAMLATHE_PT_guidance(SidebarPanel, Panel):
    bl_label = "Guidance"
    bl_parent_id = "DREAMLATHE_PT_quality"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        above = {"guidance_scale", "perp_neg", "perp_neg_strength"}
        for item in dataclasses.fields(GuidanceSettings):
            if item.name not in above:
                layout.column(align=True).prop(settings.guidance, item.name)


class DREAMLATHE_PT_optimization(SidebarPanel, Panel):
    bl_label = "Optimization"
    bl_parent_id = "DREAMLATHE_PT_quality"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        for item in dataclasses.fields(OptimizeSettings):
            if item.name != "iterations":
                layout.prop(settings.optimize, item.name)


CLASSES = (DREAMLATHE_PT_quality, DREAMLATHE_PT_guidance, DREAMLATHE_PT_optimization)

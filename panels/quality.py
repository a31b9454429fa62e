"""Quality: how long to work, and how closely to follow the prompt."""

from __future__ import annotations

import dataclasses
from typing import Any

from bl_ui.utils import PresetPanel
from bpy.types import Context, Panel, UILayout

from ..backend.request import (
    GuidanceSettings,
    OptimizeSettings,
    ReferenceSettings,
    RefineSettings,
    SketchSettings,
    ViewGuidanceSettings,
)
from ..operators.presets import SUBFOLDER
from ..properties import uses_pictures
from .common import SidebarPanel, columns, layout_of, shown

_SHADING = ("albedo_share", "shaded_share", "textureless_share")
_ADVANCED = {
    "guidance": {"guidance_scale", "camera_scale", "perp_neg", "perp_neg_strength", "timestep_range", "timestep_end"},
    "optimize": {"iterations", "batch_size", "resolution", "symmetry", *_SHADING},
    "refine": {"iterations", "strength", "strength_end"},
}


class DREAMLATHE_PT_quality_presets(PresetPanel, Panel):
    bl_label = "Quality Presets"
    preset_subdir = SUBFOLDER
    preset_operator = "script.execute_preset"
    preset_add_operator = "dreamlathe.quality_preset_add"


class DREAMLATHE_PT_quality(SidebarPanel, Panel):
    bl_label = "Quality"
    bl_order = 2

    def draw_header_preset(self, context: Context) -> None:
        DREAMLATHE_PT_quality_presets.draw_panel_header(layout_of(self))

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        layout.row(align=True).prop(settings, "preset", expand=True)
        columns(layout)
        row = layout.row(align=True)
        row.prop(settings, "seed")
        row.operator("dreamlathe.seed_roll", text="", icon="FILE_REFRESH")


class DREAMLATHE_PT_advanced(SidebarPanel, Panel):
    bl_label = "Advanced"
    bl_parent_id = "DREAMLATHE_PT_quality"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        column = layout.column(align=True)
        column.prop(settings.optimize, "iterations", text="Steps")
        column.prop(settings.optimize, "resolution")
        column.prop(settings.optimize, "batch_size", text="Views a Step")
        column = layout.column(align=True)
        column.prop(settings.guidance, "guidance_scale")
        column.prop(settings.guidance, "camera_scale")
        column = layout.column()
        column.prop(settings.guidance, "perp_neg")
        row = column.row()
        row.active = settings.guidance.perp_neg in ("stable-dreamfusion", "threestudio")
        row.prop(settings.guidance, "perp_neg_strength", text="Strength")
        _range(layout, settings.guidance, "timestep_range", "Timesteps From")
        _range(layout, settings.guidance, "timestep_end", "Timesteps To")
        column = layout.column(align=True)
        column.prop(settings.refine, "iterations", text="Painting Steps")
        row = column.row(align=True)
        row.active = settings.refine.iterations > 0
        row.prop(settings.refine, "strength", slider=True)
        row.prop(settings.refine, "strength_end", text="", slider=True)
        column = layout.column(align=True, heading="Shading")
        for name in _SHADING:
            column.prop(settings.optimize, name, text=name.partition("_")[0].capitalize(), slider=True)


class DREAMLATHE_PT_guidance(SidebarPanel, Panel):
    bl_label = "More of the Guidance"
    bl_parent_id = "DREAMLATHE_PT_advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        _draw_rest(layout_of(self), shown(context).guidance, GuidanceSettings, _ADVANCED["guidance"])


class DREAMLATHE_PT_optimization(SidebarPanel, Panel):
    bl_label = "More of the Optimization"
    bl_parent_id = "DREAMLATHE_PT_advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        _draw_rest(layout_of(self), shown(context).optimize, OptimizeSettings, _ADVANCED["optimize"])


class DREAMLATHE_PT_painting(SidebarPanel, Panel):
    bl_label = "More of the Painting"
    bl_parent_id = "DREAMLATHE_PT_advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        _draw_rest(layout_of(self), shown(context).refine, RefineSettings, _ADVANCED["refine"])


class DREAMLATHE_PT_sketches(SidebarPanel, Panel):
    bl_label = "Sketches"
    bl_parent_id = "DREAMLATHE_PT_advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        _draw_rest(layout_of(self), shown(context).sketch, SketchSettings, set())


class _OfPictures(SidebarPanel):
    """A panel that is there where there are pictures."""

    @classmethod
    def poll(cls, context: Context) -> bool:
        return uses_pictures(shown(context))


class DREAMLATHE_PT_pictures(_OfPictures, Panel):
    bl_label = "Pictures"
    bl_parent_id = "DREAMLATHE_PT_advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        _draw_rest(layout_of(self), shown(context).reference, ReferenceSettings, set())


class DREAMLATHE_PT_novel_views(_OfPictures, Panel):
    bl_label = "Novel Views"
    bl_parent_id = "DREAMLATHE_PT_advanced"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Context) -> None:
        _draw_rest(layout_of(self), shown(context).view_guidance, ViewGuidanceSettings, set())


def _range(layout: UILayout, group: Any, name: str, text: str) -> None:
    """Both ends of a range, one above the other."""
    column = layout.column(align=True)
    column.prop(group, name, index=0, text=text, slider=True)
    column.prop(group, name, index=1, text=" ", slider=True)


def _draw_rest(layout: UILayout, group: Any, kind: type[Any], above: set[str]) -> None:
    """Every setting of a group but those that stand above."""
    columns(layout)
    for item in dataclasses.fields(kind):
        if item.name not in above:
            layout.column(align=True).prop(group, item.name)


CLASSES = (
    DREAMLATHE_PT_quality_presets,
    DREAMLATHE_PT_quality,
    DREAMLATHE_PT_advanced,
    DREAMLATHE_PT_guidance,
    DREAMLATHE_PT_optimization,
    DREAMLATHE_PT_painting,
    DREAMLATHE_PT_sketches,
    DREAMLATHE_PT_pictures,
    DREAMLATHE_PT_novel_views,
)

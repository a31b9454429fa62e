"""What every panel of the sidebar shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bpy.types import Context, Panel, UILayout

from ..bridge.blender import scene_of
from ..properties import Settings, settings_of

Mixed = Panel if TYPE_CHECKING else object  # a mix-in that were a panel itself would have to be registered


class SidebarPanel(Mixed):
    """A panel of the Dreamlathe tab in the 3D view's sidebar."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Dreamlathe"


def layout_of(panel: Panel) -> UILayout:
    """Where a panel draws."""
    return cast("UILayout", panel.layout)


def columns(layout: UILayout) -> None:
    """Labels on the left, fields on the right, no dots for animation."""
    layout.use_property_split = True
    layout.use_property_decorate = False


def shown(context: Context) -> Settings:
    """The settings of the scene that is shown."""
    return settings_of(scene_of(context))

"""What every panel of the sidebar shares."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from bpy.types import Context, Panel, UILayout

from ..bridge import frames
from ..bridge.blender import scene_of
from ..properties import Settings, settings_of

Mixed = Panel if TYPE_CHECKING else object  # a mix-in that were a panel itself would have to be registered

_POINTS_A_LETTER = 6.0
"""Of Blender's interface font, on the average."""


class SidebarPanel(Mixed):
    """A panel of the Dreamlathe tab in the 3D view's sidebar. How long it draws is counted."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Dreamlathe"

    def __init_subclass__(cls, **values: Any) -> None:
        super().__init_subclass__(**values)
        if "draw" in cls.__dict__:
            setattr(cls, "draw", _timed_draw(cls.__name__, cls.draw))  # noqa: B010 - types see another signature


def _timed_draw(name: str, draw: Callable[[Any, Context], None]) -> Callable[[Any, Context], None]:
    timed = frames.timed(f"draw {name}")(draw)

    def counted(self: Any, context: Context) -> None:  # Blender counts the arguments
        timed(self, context)

    return counted


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


def draw_text(context: Context, layout: UILayout, text: str, icon: Any = "NONE", indent: int = 0) -> None:
    """Text in as many lines as it takes in the sidebar's width."""
    place = cast("Any", context)
    scale = place.preferences.system.ui_scale
    width = (place.region.width / scale - 50 - indent) if place.region is not None else 280
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(text, max(12, int(width / _POINTS_A_LETTER)))):
        if icon == "NONE":
            column.label(text=line)
        else:
            column.label(text=line, icon=icon if number == 0 else "BLANK1")

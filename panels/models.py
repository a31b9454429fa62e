"""Loading: how models that did not come with the extension are loaded, and what is added to them."""

from __future__ import annotations

from typing import Any

from bpy.types import Context, Panel, UILayout

from ..bridge.models import has_loading, is_foreign, read_loras
from ..properties import Settings, uses_pictures, uses_prompt
from .common import SidebarPanel, columns, layout_of, shown

_PLAIN = ("precision", "memory")


def draw_model(layout: UILayout, settings: Any, name: str, which: str = "", placeholder: str = "") -> None:
    """A field for a model, with the button that chooses a folder."""
    row = layout.row(align=True)
    row.prop(settings, name, placeholder=placeholder)
    row.operator("dreamlathe.model_open", text="", icon="FILE_FOLDER").which = which or name  # pyright: ignore[reportAttributeAccessIssue]


def asks_foreign(settings: Settings) -> bool:
    """The prompt goes to a model that did not come with the extension."""
    return uses_prompt(settings) and is_foreign(settings.model)


class DREAMLATHE_PT_loading(SidebarPanel, Panel):
    bl_label = "Loading"
    bl_parent_id = "DREAMLATHE_PT_source"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        settings = shown(context)
        return asks_foreign(settings) or uses_pictures(settings) or has_loading(settings)

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        columns(layout)
        for name in _PLAIN:
            layout.prop(settings.loading, name)
        row = layout.row(align=True)
        row.prop(settings.loading, "image_size")
        if not settings.loading.image_size:
            row.label(text="", icon="AUTO")
        draw_model(layout, settings.loading, "tiny_vae", placeholder="the model's own")
        draw_model(layout, settings.loading, "depth_model")
        if asks_foreign(settings) or settings.loading.loras.strip():
            _draw_loras(layout, settings.loading)


def _draw_loras(layout: UILayout, loading: Any) -> None:
    """The text, the button that adds to it, and a row for each of them."""
    row = layout.row(align=True)
    row.prop(loading, "loras", placeholder="none")
    row.operator("dreamlathe.lora_add", text="", icon="ADD")
    column = layout.column(align=True)
    for index, lora in enumerate(read_loras(loading.loras)):
        row = column.row(align=True)
        row.label(text=lora.name, icon="ERROR" if lora.weight is None else "DOT")
        weight: Any = row.operator("dreamlathe.lora_weight", text="?" if lora.weight is None else f"{lora.weight:.2f}")
        weight.index = index
        remove: Any = row.operator("dreamlathe.lora_remove", text="", icon="X")
        remove.index = index


CLASSES = (DREAMLATHE_PT_loading,)

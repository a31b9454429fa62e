"""Source: what to make, and which model says what it looks like."""

from __future__ import annotations

from bpy.types import Context, Panel

from ..bridge.vocabulary import shown as sorted_words
from ..bridge.vocabulary import vocabulary
from .common import SidebarPanel, columns, draw_text, layout_of, shown


class DREAMLATHE_PT_source(SidebarPanel, Panel):
    bl_label = "Source"
    bl_order = 0

    def draw(self, context: Context) -> None:
        settings, layout = shown(context), layout_of(self)
        layout.prop(settings, "prompt", text="", icon="OUTLINER_DATA_FONT", placeholder="a red duck")
        columns(layout)
        layout.prop(settings, "negative_prompt", placeholder="nothing")
        layout.prop(settings, "model")


class DREAMLATHE_PT_words(SidebarPanel, Panel):
    bl_label = "Words It Knows"
    bl_parent_id = "DREAMLATHE_PT_source"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return bool(sorted_words(vocabulary(shown(context).model)))

    def draw(self, context: Context) -> None:
        layout = layout_of(self)
        for name, words in sorted_words(vocabulary(shown(context).model)).items():
            column = layout.column(align=True)
            column.label(text=name.capitalize())
            draw_text(context, column, ", ".join(words))


CLASSES = (DREAMLATHE_PT_source, DREAMLATHE_PT_words)

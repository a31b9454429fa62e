"""Past jobs: a list with pictures, and what can be done with the one that is chosen."""

from __future__ import annotations

import time
from typing import Any

from bpy.types import Context, Panel, UILayout, UIList

from ..bridge import job_list, queue, thumbnails
from ..bridge.blender import window_manager
from ..bridge.history import Past
from ..bridge.job import duration
from .common import SidebarPanel, draw_text, layout_of

_ICONS: dict[str, Any] = {
    "finished": "CHECKMARK",
    "unfinished": "RECOVER_LAST",
    "cancelled": "CANCEL",
    "failed": "ERROR",
    "waiting": "SORTTIME",
    "running": "PLAY",
    "placing": "PLAY",
    "paused": "PAUSE",
}
_PICTURE = 6.0
"""Height of the chosen job's picture, in rows."""


class DREAMLATHE_UL_jobs(UIList):
    """One row a job: its picture, its prompt, and what became of it."""

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
        past = job_list.past_of(item)
        if past is None:
            layout.label(text=item.name, icon="TRASH")
            return
        row = layout.row(align=True)
        picture = thumbnails.icon(past.picture)
        if picture:
            row.label(text=past.title, icon_value=picture)
        else:
            row.label(text=past.title, icon="BLANK1")
        ticket = queue.find(past.folder)
        row.label(text="", icon=_ICONS[past.state if ticket is None else ticket.state])


class DREAMLATHE_PT_past_jobs(SidebarPanel, Panel):
    bl_label = "Past Jobs"
    bl_parent_id = "DREAMLATHE_PT_jobs"

    def draw(self, context: Context) -> None:
        layout, manager = layout_of(self), window_manager()
        row = layout.row()
        row.template_list(
            "DREAMLATHE_UL_jobs", "", manager, "dreamlathe_jobs", manager, "dreamlathe_job", rows=3, maxrows=6
        )
        past = job_list.active()
        column = row.column(align=True)
        column.operator("dreamlathe.jobs_refresh", text="", icon="FILE_REFRESH")
        column.operator("dreamlathe.result_import", text="", icon="IMPORT")
        column.operator("dreamlathe.results_open", text="", icon="FILE_FOLDER")
        column.separator()
        column.operator("dreamlathe.job_remove", text="", icon="TRASH")
        if past is not None:
            _draw_chosen(context, layout, past)


def _draw_chosen(context: Context, layout: UILayout, past: Past) -> None:
    picture = thumbnails.icon(past.picture)
    if picture:
        layout.template_icon(icon_value=picture, scale=_PICTURE)
    taken = f" · {duration(past.seconds)}" if past.seconds else ""
    when = time.strftime("%d %b %H:%M", time.localtime(past.created))
    draw_text(context, layout, f"{past.request.preset.capitalize()} · seed {past.request.seed}{taken} · {when}")
    if past.note:
        draw_text(context, layout, past.note, "ERROR")
    ticket = queue.find(past.folder)
    grid = layout.grid_flow(columns=2, align=True, even_columns=True)
    if past.state == "finished":
        grid.operator("dreamlathe.job_import", icon="IMPORT")
    elif ticket is None or ticket.state == "paused":
        grid.operator("dreamlathe.resume", text="Resume", icon="PLAY").folder = str(past.folder)
    grid.operator("dreamlathe.job_recall", icon="LOOP_BACK")
    grid.operator("dreamlathe.job_vary", icon="DUPLICATE")
    grid.operator("dreamlathe.job_continue", icon="TRACKING_FORWARDS")
    grid.operator("dreamlathe.job_open", icon="FILE_FOLDER")


CLASSES = (DREAMLATHE_UL_jobs, DREAMLATHE_PT_past_jobs)

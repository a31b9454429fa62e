"""Job: start it, watch it, stop it, see how it ended."""

from __future__ import annotations

import textwrap

from bpy.types import Context, Panel, UILayout

from ..bridge import supervisor
from ..bridge.job import Status, duration
from .common import SidebarPanel, layout_of

_WIDTH = 44


class DREAMLATHE_PT_job(SidebarPanel, Panel):
    bl_label = "Job"
    bl_order = 4

    def draw(self, context: Context) -> None:
        layout, job = layout_of(self), supervisor.job()
        if job is not None and job.status.active:
            _draw_running(layout, job.status)
        else:
            row = layout.row()
            row.scale_y = 1.4
            row.operator("dreamlathe.generate", icon="PLAY")
            if job is not None:
                _draw_end(layout, job.status)
        row = layout.row(align=True)
        row.operator("dreamlathe.results_open", icon="FILE_FOLDER")
        row.operator("dreamlathe.result_import", text="", icon="IMPORT")


def _draw_running(layout: UILayout, status: Status) -> None:
    row = layout.row(align=True)
    row.progress(factor=status.factor, text=status.text, type="BAR")
    row.operator("dreamlathe.cancel", text="", icon="X")
    if status.total > 0 and status.message:
        _draw_text(layout, status.message)


def _draw_end(layout: UILayout, status: Status) -> None:
    box = layout.box()
    row = box.row()
    icon = "CHECKMARK" if status.state == "finished" else "CANCEL" if status.state == "cancelled" else "ERROR"
    row.label(text=f"{status.state.capitalize()} after {duration(status.seconds)}", icon=icon)
    row.operator("dreamlathe.dismiss", text="", icon="X", emboss=False)
    if status.state == "failed":
        _draw_text(box, status.failure)
        if status.error is not None and status.error.code == "environment":
            box.operator("dreamlathe.environment_test", icon="CHECKMARK")
    for warning in status.warnings:
        _draw_text(box, warning)


def _draw_text(layout: UILayout, text: str) -> None:
    """Text in as many lines as it takes."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    for line in textwrap.wrap(text, _WIDTH):
        column.label(text=line)


CLASSES = (DREAMLATHE_PT_job,)

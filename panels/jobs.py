"""Jobs: start one, watch it, hold it, stop it, see how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bpy.types import Context, Panel, UILayout

from ..bridge import job_list, queue, supervisor, thumbnails
from ..bridge.job import Status, duration
from ..bridge.problems import Problem, find_problems
from .common import SidebarPanel, draw_text, layout_of

_PREVIEW_SCALE = 8.0


class DREAMLATHE_PT_jobs(SidebarPanel, Panel):
    bl_label = "Jobs"
    bl_order = 4

    def draw(self, context: Context) -> None:
        layout, ticket = layout_of(self), queue.current()
        row = layout.row()
        row.scale_y = 1.4
        row.operator("dreamlathe.generate", text="Generate" if ticket is None else "Add to Queue", icon="PLAY")
        if ticket is not None and ticket.status is not None:
            _draw_running(context, layout, ticket, ticket.status)
        for problem in find_problems(context):
            if ticket is None or problem.blocking:
                _draw_problem(context, layout, problem)
        _draw_waiting(layout)
        job = supervisor.job()
        if job is not None and not job.status.active and ticket is None:
            _draw_end(context, layout, job.status)
        elif supervisor.complaint():
            draw_text(context, layout.box(), supervisor.complaint(), "ERROR")
        _draw_interrupted(layout)


def _draw_problem(context: Context, layout: UILayout, problem: Problem) -> None:
    box = layout.box()
    draw_text(context, box, problem.text, "ERROR" if problem.blocking else "INFO", indent=40)
    column = box.column(align=True)
    for repair in problem.repairs:
        icon: Any = repair.icon
        button = column.operator(repair.operator, text=repair.label, icon=icon)
        for name, value in repair.values.items():
            setattr(button, name, value)


def _draw_running(context: Context, layout: UILayout, ticket: queue.Ticket, status: Status) -> None:
    box = layout.box()
    box.label(text=ticket.plan.request.title, icon="RENDER_STILL")
    row = box.row(align=True)
    row.progress(factor=status.factor, text=status.steps, type="BAR")
    row.operator("dreamlathe.pause", text="", icon="PAUSE")
    row.operator("dreamlathe.cancel", text="", icon="X")
    left = f"{duration(status.seconds_left)} left, " if status.seconds_left > 0 else ""
    draw_text(context, box, f"{left}{duration(status.seconds)} so far")
    if status.total > 0 and status.message:
        draw_text(context, box, status.message)
    picture = thumbnails.icon(Path(status.preview) if status.preview else None)
    if picture:
        box.template_icon(icon_value=picture, scale=_PREVIEW_SCALE)


def _draw_waiting(layout: UILayout) -> None:
    """Jobs that wait for their turn, or until they are resumed."""
    rest = [ticket for ticket in queue.tickets() if ticket.state in ("waiting", "paused")]
    if not rest:
        return
    column = layout.box().column(align=True)
    for ticket in rest:
        paused = ticket.state == "paused"
        row = column.row(align=True)
        row.label(text=ticket.plan.request.title, icon="PAUSE" if paused else "SORTTIME")
        folder = str(ticket.plan.folder)
        if paused:
            row.operator("dreamlathe.resume", text="", icon="PLAY").folder = folder
        else:
            row.operator("dreamlathe.pause", text="", icon="PAUSE").folder = folder
        row.operator("dreamlathe.cancel", text="", icon="X").folder = folder


def _draw_end(context: Context, layout: UILayout, status: Status) -> None:
    box = layout.box()
    row = box.row()
    icon = {"finished": "CHECKMARK", "cancelled": "CANCEL"}.get(status.state, "ERROR")
    row.label(text=f"{status.state.capitalize()} after {duration(status.seconds)}", icon=icon)  # pyright: ignore[reportArgumentType]
    row.operator("dreamlathe.dismiss", text="", icon="X", emboss=False)
    if status.state == "finished" and context.mode != "OBJECT":
        box.operator("dreamlathe.result_select", icon="RESTRICT_SELECT_OFF")
    if status.state == "failed":
        draw_text(context, box, status.failure)
        if status.error is not None and status.error.code == "environment":
            box.operator("dreamlathe.environment_test", icon="CHECKMARK")
    for warning in status.warnings:
        draw_text(context, box, warning)


def _draw_interrupted(layout: UILayout) -> None:
    """What Blender did not live to see the end of is offered again."""
    for past in job_list.interrupted()[:3]:
        row = layout.box().row(align=True)
        row.label(text=f"Interrupted: {past.title}", icon="RECOVER_LAST")
        row.operator("dreamlathe.resume", text="", icon="PLAY").folder = str(past.folder)
        row.operator("dreamlathe.job_forget", text="", icon="X").folder = str(past.folder)


CLASSES = (DREAMLATHE_PT_jobs,)

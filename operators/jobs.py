"""The jobs of this session: stop, hold, go on; and put the last one's end out of sight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bpy.props import StringProperty
from bpy.types import Context, Event, Operator

from ..backend.errors import DreamlatheError
from ..bridge import history, job_list, queue, supervisor
from ..bridge.blender import OperatorReturn, redraw_sidebars, scene_of, window_manager, with_properties
from ..bridge.generation import plan_again

_LONG = 60.0
"""Seconds after which a stray key does not stop a job without asking."""


def _folder() -> dict[str, Any]:
    """The property that says which job is meant."""
    return {
        "folder": StringProperty(
            name="Folder", description="The job's folder; empty: the job that runs", options={"SKIP_SAVE"}
        )
    }


def _told(operator: Operator, tell: Callable[[queue.Ticket], None]) -> bool:
    """Tell the job that is meant; False, with a warning, if it is over."""
    folder = str(cast("Any", operator).folder)
    ticket = queue.find(Path(folder)) if folder else queue.current()
    if ticket is None:
        operator.report({"WARNING"}, "This job is over")
        return False
    tell(ticket)
    return True


class DREAMLATHE_OT_cancel(Operator):
    """Stop the job; its folder is kept, and it can be resumed. Press twice to stop at once."""

    bl_idname = "dreamlathe.cancel"
    bl_label = "Cancel"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not queue.tickets():
            cls.poll_message_set("No job is running")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        if not _told(self, queue.cancel):
            return {"CANCELLED"}
        supervisor.changed()
        return {"FINISHED"}


class DREAMLATHE_OT_cancel_key(Operator):
    """Stop the job that runs; asks first when it has been running for more than a minute."""

    bl_idname = "dreamlathe.cancel_key"
    bl_label = "Stop the Dreamlathe job?"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        ticket = queue.current()
        return ticket is not None and ticket.state == "running"

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Ask, when there is something to lose."""
        ticket = queue.current()
        if ticket is not None and ticket.status is not None and ticket.status.seconds > _LONG:
            return window_manager().invoke_confirm(self, event)
        return self.execute(context)

    def execute(self, context: Context) -> OperatorReturn:
        ticket = queue.current()
        if ticket is None:
            return {"CANCELLED"}
        queue.cancel(ticket)
        self.report({"INFO"}, "Stopping the job; its folder is kept")
        redraw_sidebars()
        return {"FINISHED"}


class DREAMLATHE_OT_pause(Operator):
    """Hold the job: its worker writes a checkpoint and goes, and all the memory it took is free."""

    bl_idname = "dreamlathe.pause"
    bl_label = "Pause"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not any(ticket.state in ("running", "waiting") for ticket in queue.tickets()):
            cls.poll_message_set("No job is running")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        if not _told(self, queue.pause):
            return {"CANCELLED"}
        redraw_sidebars()
        return {"FINISHED"}


class DREAMLATHE_OT_resume(Operator):
    """Go on with a job that was held, stopped or interrupted, from its last checkpoint."""

    bl_idname = "dreamlathe.resume"
    bl_label = "Resume"
    bl_options = {"REGISTER"}

    def execute(self, context: Context) -> OperatorReturn:
        folder = Path(str(cast("Any", self).folder))
        ticket, past = queue.find(folder), history.look(folder)
        try:
            if ticket is not None:
                queue.resume(ticket)
            elif past is not None and past.state != "finished":
                queue.add(plan_again(past, scene_of(context)))
            else:
                self.report({"WARNING"}, "There is nothing to go on with in this folder")
                return {"CANCELLED"}
        except DreamlatheError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        job_list.refresh()
        return {"FINISHED"}


class DREAMLATHE_OT_dismiss(Operator):
    """Show the last job no more; its folder is kept."""

    bl_idname = "dreamlathe.dismiss"
    bl_label = "Dismiss"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        return supervisor.job() is not None and not supervisor.running()

    def execute(self, context: Context) -> OperatorReturn:
        supervisor.forget()
        return {"FINISHED"}


for _operator in (DREAMLATHE_OT_cancel, DREAMLATHE_OT_pause, DREAMLATHE_OT_resume):
    with_properties(_operator, _folder())

CLASSES = (
    DREAMLATHE_OT_cancel,
    DREAMLATHE_OT_cancel_key,
    DREAMLATHE_OT_pause,
    DREAMLATHE_OT_resume,
    DREAMLATHE_OT_dismiss,
)

"""Cancel: stop the job that runs. Dismiss: show the last one no more."""

from __future__ import annotations

from bpy.types import Context, Operator

from ..bridge import supervisor
from ..bridge.blender import OperatorReturn, redraw_sidebars


class DREAMLATHE_OT_cancel(Operator):
    """Stop the job; its folder is kept. Press twice to stop at once."""

    bl_idname = "dreamlathe.cancel"
    bl_label = "Cancel"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not supervisor.running():
            cls.poll_message_set("No job is running")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        job = supervisor.job()
        if job is not None:
            job.cancel()
        redraw_sidebars()
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


CLASSES = (DREAMLATHE_OT_cancel, DREAMLATHE_OT_dismiss)

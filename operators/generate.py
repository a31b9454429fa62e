"""Generate: run the scene's request and place the result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import bpy
from bpy.types import Context, Event, Operator

from ..backend.errors import DreamlatheError
from ..bridge import job_list, queue
from ..bridge.blender import OperatorReturn, window_manager
from ..bridge.generation import make_plan, place_result, start_job
from ..bridge.job import Job, Status, duration, run
from ..bridge.problems import first_blocking


class DREAMLATHE_OT_generate(Operator):
    """Make a textured mesh from the prompt. Blender stays usable meanwhile; while a job runs, others wait for it."""

    bl_idname = "dreamlathe.generate"
    bl_label = "Generate"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        problem = first_blocking(context)
        if problem is not None:
            cls.poll_message_set(problem.text)
            return False
        return True

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Start the job and come back at once; a timer goes on with it. Timers need a window."""
        if bpy.app.background:
            return self.execute(context)
        try:
            plan = make_plan(context)
            ticket = queue.add(plan)
        except DreamlatheError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        job_list.refresh()
        self.report({"INFO"}, f"{'Waiting' if ticket.state == 'waiting' else 'Generating'}: {plan.request.title}")
        return {"FINISHED"}

    def execute(self, context: Context) -> OperatorReturn:
        """Run the job to its end and place its result."""
        try:
            plan = make_plan(context)
            job = start_job(plan)
            status = _run(job)
            if status.state == "finished":
                result = place_result(plan, job)
                self.report({"INFO"}, f"{result.name} made in {duration(status.seconds)}")
                return {"FINISHED"}
        except DreamlatheError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"WARNING"} if status.state == "cancelled" else {"ERROR"}, status.failure)
        return {"CANCELLED"}


def _run(job: Job) -> Status:
    """Run the job with its progress at the mouse pointer; however this ends, the worker does not outlive it."""
    try:
        with _progress() as show:
            return run(job, show)
    finally:
        job.kill()


@contextmanager
def _progress() -> Generator[Callable[[Status], None]]:
    manager = window_manager()
    manager.progress_begin(0.0, 1.0)
    try:
        yield lambda status: manager.progress_update(status.factor)
    finally:
        manager.progress_end()


CLASSES = (DREAMLATHE_OT_generate,)

"""What runs in the background of a window: one persistent timer that steps tasks, none while nothing runs.

Timers never fire without a window; there, :func:`..job.run` steps the job in a loop.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Protocol

import bpy

from ..backend.errors import DreamlatheError
from . import frames
from .blender import areas, redraw_sidebars
from .job import Job
from .setup import SetUp
from .worker_client import kill_all

_INTERVAL = 0.1


class Task(Protocol):
    """Something that is stepped until it is done."""

    def step(self) -> bool:
        """Do a little, without blocking; False once done."""
        ...

    def kill(self) -> None:
        """End it now."""
        ...


_tasks: list[tuple[Task, Callable[[], None]]] = []
_last_job: Job | None = None
_complaint = ""
listeners: list[Callable[[], None]] = []
"""Called, from the timer, when a job has ended."""


def job() -> Job | None:
    """The job that runs, or the last one that did."""
    return _last_job


def running() -> bool:
    """A job runs."""
    return _last_job is not None and _last_job.status.active


def setting_up() -> SetUp | None:
    """The set-up of the backend's environment that runs."""
    return next((task for task, _ in _tasks if isinstance(task, SetUp)), None)


def watch(new: Job) -> None:
    """Make ``new`` the job that panels show and Cancel cancels."""
    global _last_job, _complaint
    _last_job, _complaint = new, ""


def forget() -> None:
    """Show no job any more."""
    global _last_job, _complaint
    if not running():
        _last_job, _complaint = None, ""


def complain(error: DreamlatheError) -> None:
    """Keep an error that no operator can report any more, for the panel to show."""
    global _complaint  # noqa: PLW0603
    _complaint = str(error)


def complaint() -> str:
    """The error that was kept, or nothing."""
    return _complaint


def changed() -> None:
    """A job has ended, or another change was made that the list of jobs shows."""
    for listener in listeners:
        listener()


def start(task: Task, done: Callable[[], None]) -> None:
    """Step ``task`` from the timer, and call ``done`` once when it has ended."""
    _tasks.append((task, done))
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=_INTERVAL, persistent=True)


def shutdown() -> None:
    """Kill every task and stop the timer."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    kill_all()  # they are asked first, and leave a checkpoint
    for task, _ in _tasks:
        task.kill()
    _tasks.clear()
    if _last_job is not None:
        _last_job.kill()
    forget()


@frames.timed("timer")
def _tick() -> float | None:
    for entry in list(_tasks):
        if entry not in _tasks:  # another one's end took it away
            continue
        task, done = entry
        if task.step():
            continue
        _tasks.remove(entry)
        try:
            done()
        except Exception:  # noqa: BLE001 - a timer that raises is taken away by Blender, and with it every other task
            traceback.print_exc()
    redraw_sidebars()
    for area in areas("PREFERENCES"):
        area.tag_redraw()
    return _INTERVAL if _tasks else None

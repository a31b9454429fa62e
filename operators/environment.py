"""The backend's Python: set up, removed, tested."""

from __future__ import annotations

import bpy
from bpy.types import Context, Event, Operator

from ..backend.errors import DreamlatheError
from ..bridge import queue, supervisor
from ..bridge.blender import OperatorReturn, window_manager
from ..bridge.environment import Probe, ready_environment, run
from ..bridge.job import duration
from ..bridge.setup import SetUp, make_plan
from ..bridge.setup import run as run_set_up
from ..bridge.storage import Removal
from ..preferences import (
    environment,
    environments_folder,
    installer_environment,
    may_go_online,
    note_set_up,
    note_test,
    preferences,
)


class DREAMLATHE_OT_environment_set_up(Operator):
    """Download PyTorch and what goes with it, and make the backend's Python of them, in a folder of the extension's."""

    bl_idname = "dreamlathe.environment_set_up"
    bl_label = "Set Up"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if supervisor.setting_up() is not None:
            cls.poll_message_set("It is being set up")
        elif not may_go_online():
            cls.poll_message_set("Allow Online Access first, in Preferences › System")
        else:
            return True
        return False

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Start and come back at once; the preferences show how far it is."""
        if bpy.app.background:
            return self.execute(context)
        try:
            task = _set_up()
        except DreamlatheError as error:
            return self._failed(error)
        note_set_up("")
        supervisor.start(task, lambda: note_set_up(_ended(task)))
        self.report({"INFO"}, f"Setting up {task.plan.about}")
        return {"FINISHED"}

    def execute(self, context: Context) -> OperatorReturn:
        """Set up and wait."""
        try:
            task = _set_up()
            run_set_up(task)
        except DreamlatheError as error:
            return self._failed(error)
        note_set_up(_ended(task))
        self.report({"INFO"}, _ended(task))
        return {"FINISHED"}

    def _failed(self, error: DreamlatheError) -> OperatorReturn:
        note_set_up(str(error))
        self.report({"ERROR"}, str(error))
        return {"CANCELLED"}


class DREAMLATHE_OT_environment_cancel(Operator):
    """Stop the set-up; what it has installed so far is deleted."""

    bl_idname = "dreamlathe.environment_cancel"
    bl_label = "Cancel"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if supervisor.setting_up() is None:
            cls.poll_message_set("Nothing is being set up")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        task = supervisor.setting_up()
        if task is not None:
            task.cancel()
        return {"FINISHED"}


class DREAMLATHE_OT_environment_remove(Operator):
    """Delete the Python that was set up. An existing Python that was chosen is left alone."""

    bl_idname = "dreamlathe.environment_remove"
    bl_label = "Delete What Was Set Up?"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if supervisor.setting_up() is not None:
            cls.poll_message_set("It is being set up")
        elif queue.busy():
            cls.poll_message_set("A job is running")
        elif ready_environment(environments_folder()) is None:
            cls.poll_message_set("Nothing was set up")
        else:
            return True
        return False

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Ask first."""
        return window_manager().invoke_confirm(self, event)

    def execute(self, context: Context) -> OperatorReturn:
        removal = Removal(environments_folder())
        if bpy.app.background:
            while removal.step():
                pass
            note_set_up("Deleted.")
        else:
            note_set_up("Deleting …")
            supervisor.start(removal, lambda: note_set_up("Deleted."))
        return {"FINISHED"}


def _set_up() -> SetUp:
    return SetUp(make_plan(environments_folder(), preferences().build), installer_environment())


def _ended(task: SetUp) -> str:
    """How it ended, in a few lines."""
    if task.error is not None:
        return f"{task.error.message}\n{task.error.hint}"
    if task.cancelled:
        return "Stopped; nothing was left behind."
    note = f"{task.note}\n" if task.note else ""
    return f"{note}Set up in {duration(task.seconds)}. Test it."


class DREAMLATHE_OT_environment_test(Operator):
    """Start the backend's Python, see whether it has what the backend needs, and time a step. Takes half a minute."""

    bl_idname = "dreamlathe.environment_test"
    bl_label = "Test the Backend"
    bl_options = {"REGISTER"}

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Test without blocking; the preferences show what was found."""
        if bpy.app.background:
            return self.execute(context)
        try:
            probe = _probe()
        except DreamlatheError as error:
            return self._failed(error)
        note_test("Testing …")
        supervisor.start(probe, lambda: _finish(probe))
        return {"FINISHED"}

    def execute(self, context: Context) -> OperatorReturn:
        """Test and wait."""
        try:
            facts = run(_probe())
        except DreamlatheError as error:
            return self._failed(error)
        note_test("\n".join(facts.lines))
        self.report({"INFO"}, facts.text)
        return {"FINISHED"}

    def _failed(self, error: DreamlatheError) -> OperatorReturn:
        note_test(str(error))
        self.report({"ERROR"}, str(error))
        return {"CANCELLED"}


def _probe() -> Probe:
    chosen = preferences()
    return Probe(chosen.find_python(), environment(), device=chosen.device)


def _finish(probe: Probe) -> None:
    try:
        note_test("\n".join(probe.facts().lines))
    except DreamlatheError as error:
        note_test(str(error))


CLASSES = (
    DREAMLATHE_OT_environment_set_up,
    DREAMLATHE_OT_environment_cancel,
    DREAMLATHE_OT_environment_remove,
    DREAMLATHE_OT_environment_test,
)

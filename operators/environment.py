"""The test of the backend's Python."""

from __future__ import annotations

import bpy
from bpy.types import Context, Event, Operator

from ..backend.errors import DreamlatheError
from ..bridge import supervisor
from ..bridge.blender import OperatorReturn
from ..bridge.environment import Probe, run
from ..preferences import environment, note_test, preferences


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


CLASSES = (DREAMLATHE_OT_environment_test,)

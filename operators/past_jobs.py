"""What can be done with a job of the past: the one that is chosen in the list."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bpy.props import IntProperty, StringProperty
from bpy.types import Context, Event, Operator

from ..backend.errors import DreamlatheError
from ..bridge import history, job_list, queue, record
from ..bridge.blender import OperatorReturn, scene_of, to_object_mode, window_manager, with_properties
from ..bridge.generation import make_placement, new_folder, plan_again
from ..bridge.pictures import list_pictures
from ..bridge.result import import_result
from ..bridge.rig import find_rig, rig_matrix
from ..preferences import preferences
from ..properties import from_request, settings_of
from .results import open_folder

Mixed = Operator if TYPE_CHECKING else object


class _OfChosen(Mixed):
    """An operator on the chosen job."""

    bl_options = {"REGISTER"}
    wanted = "any"

    @classmethod
    def poll(cls, context: Context) -> bool:
        past = job_list.active()
        if past is None:
            cls.poll_message_set("Choose a job in the list")
        elif cls.wanted == "finished" and past.state != "finished":
            cls.poll_message_set("This job is not finished")
        else:
            return True
        return False

    def execute(self, context: Context) -> OperatorReturn:
        past = job_list.active()
        assert past is not None
        try:
            return self.do(context, past)
        except DreamlatheError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}

    def do(self, context: Context, past: history.Past) -> OperatorReturn:
        """The work; may raise what is ours to say."""
        raise NotImplementedError


class DREAMLATHE_OT_job_import(_OfChosen, Operator):
    """Place the result of the chosen job again, where its rig stood."""

    bl_idname = "dreamlathe.job_import"
    bl_label = "Import Again"
    bl_options = {"REGISTER", "UNDO"}
    wanted = "finished"

    def do(self, context: Context, past: history.Past) -> OperatorReturn:
        to_object_mode(context)
        scene = scene_of(context)
        noted = record.read_record(past.folder)
        here = make_placement(scene, rig_matrix(find_rig(scene, settings_of(scene).rig)))
        result = import_result(past.folder, scene, here if noted is None else noted.placement)
        self.report({"INFO"}, f"{result.name} imported")
        return {"FINISHED"}


class DREAMLATHE_OT_job_recall(_OfChosen, Operator):
    """Make the scene's settings those of the chosen job."""

    bl_idname = "dreamlathe.job_recall"
    bl_label = "Recall Settings"
    bl_options = {"REGISTER", "UNDO"}

    def do(self, context: Context, past: history.Past) -> OperatorReturn:
        scene = scene_of(context)
        settings = settings_of(scene)
        from_request(settings, past.request)
        lost = list_pictures(scene, settings, past.request.references)
        if lost:
            self.report({"WARNING"}, f"Blender cannot open {', '.join(lost)}")
            return {"FINISHED"}
        self.report({"INFO"}, f"The settings are those of “{past.title}”")
        return {"FINISHED"}


class DREAMLATHE_OT_job_vary(_OfChosen, Operator):
    """Run the chosen job once more with another seed."""

    bl_idname = "dreamlathe.job_vary"
    bl_label = "New Seed"

    def do(self, context: Context, past: history.Past) -> OperatorReturn:
        request = past.request.replace(seed=random.randrange(2**31))
        folder = new_folder(preferences().results_folder(), request)
        queue.add(plan_again(past, scene_of(context), request, folder))
        job_list.refresh()
        self.report({"INFO"}, f"Generating with seed {request.seed}: {past.title}")
        return {"FINISHED"}


class DREAMLATHE_OT_job_continue(_OfChosen, Operator):
    """Go on from the end of the chosen job for more steps, as a job of its own."""

    bl_idname = "dreamlathe.job_continue"
    bl_label = "More Steps"
    wanted = "finished"

    @classmethod
    def poll(cls, context: Context) -> bool:
        if not super().poll(context):
            return False
        past = job_list.active()
        if past is None or not past.resumable:
            cls.poll_message_set("This job has no checkpoint any more")
            return False
        return True

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Ask how many."""
        return window_manager().invoke_props_dialog(self)

    def do(self, context: Context, past: history.Past) -> OperatorReturn:
        optimize = past.request.optimize
        more = optimize.iterations + int(cast("Any", self).steps)
        request = past.request.replace(optimize=dataclasses.replace(optimize, iterations=more)).validated()
        folder = new_folder(preferences().results_folder(), request)
        plan = plan_again(past, scene_of(context), request, folder)
        queue.add(plan._replace(start_from=past.folder))
        job_list.refresh()
        self.report({"INFO"}, f"Going on to step {more}: {past.title}")
        return {"FINISHED"}


with_properties(
    DREAMLATHE_OT_job_continue,
    {"steps": IntProperty(name="Steps", description="How many more", default=500, min=1, max=1_000_000)},
)


class DREAMLATHE_OT_job_open(_OfChosen, Operator):
    """Open the chosen job's folder in the file browser of the system."""

    bl_idname = "dreamlathe.job_open"
    bl_label = "Open Folder"

    def do(self, context: Context, past: history.Past) -> OperatorReturn:
        return open_folder(self, past.folder)


class DREAMLATHE_OT_job_remove(_OfChosen, Operator):
    """Delete what the chosen job wrote. Objects that were imported from it stay."""

    bl_idname = "dreamlathe.job_remove"
    bl_label = "Delete This Job?"

    @classmethod
    def poll(cls, context: Context) -> bool:
        past = job_list.active()
        if past is not None and queue.find(past.folder) is not None:
            cls.poll_message_set("This job is still at work; cancel it first")
            return False
        return super().poll(context)

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Ask first: this cannot be undone."""
        return window_manager().invoke_confirm(self, event)

    def do(self, context: Context, past: history.Past) -> OperatorReturn:
        history.remove(past.folder)
        job_list.refresh()
        return {"FINISHED"}


class DREAMLATHE_OT_job_forget(Operator):
    """Do not offer this job any more; it stays in the list and can be resumed from there."""

    bl_idname = "dreamlathe.job_forget"
    bl_label = "Forget"
    bl_options = {"REGISTER"}

    def execute(self, context: Context) -> OperatorReturn:
        folder = Path(str(cast("Any", self).folder))
        past = history.look(folder)
        if past is None:
            return {"CANCELLED"}
        if record.read_record(folder) is None:
            record.write_record(folder, record.Record(past.request, created=past.created))
        record.note_end(folder, "cancelled")
        job_list.refresh()
        return {"FINISHED"}


with_properties(DREAMLATHE_OT_job_forget, {"folder": StringProperty(name="Folder", description="The job's folder")})


class DREAMLATHE_OT_jobs_refresh(Operator):
    """Look into the folder of results again."""

    bl_idname = "dreamlathe.jobs_refresh"
    bl_label = "Refresh"
    bl_options = {"REGISTER"}

    def execute(self, context: Context) -> OperatorReturn:
        job_list.refresh()
        return {"FINISHED"}


CLASSES = (
    DREAMLATHE_OT_job_import,
    DREAMLATHE_OT_job_recall,
    DREAMLATHE_OT_job_vary,
    DREAMLATHE_OT_job_continue,
    DREAMLATHE_OT_job_open,
    DREAMLATHE_OT_job_remove,
    DREAMLATHE_OT_job_forget,
    DREAMLATHE_OT_jobs_refresh,
)

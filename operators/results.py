"""Results: the folders of jobs, and their import."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import bpy
from bpy.props import StringProperty
from bpy.types import Context, Event, Operator

from ..backend.errors import DreamlatheError
from ..bridge import supervisor
from ..bridge.blender import OperatorReturn, absolute, scene_of, to_object_mode, window_manager, with_properties
from ..bridge.generation import make_placement
from ..bridge.record import read_record
from ..bridge.result import import_result, last_result, read_request, select_only
from ..bridge.rig import find_rig, rig_matrix
from ..preferences import preferences
from ..properties import from_request, settings_of


class DREAMLATHE_OT_result_import(Operator):
    """Import the mesh of a finished job from its folder, where its rig stood."""

    bl_idname = "dreamlathe.result_import"
    bl_label = "Import Result"
    bl_options = {"REGISTER", "UNDO"}

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Ask for the folder."""
        values = cast("Any", self)
        if not values.directory:
            values.directory = f"{preferences().results_folder()}/"
        window_manager().fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Context) -> OperatorReturn:
        values = cast("Any", self)
        folder, scene = absolute(values.directory), scene_of(context)
        noted = read_record(folder)
        here = make_placement(scene, rig_matrix(find_rig(scene, settings_of(scene).rig)))
        to_object_mode(context)
        try:
            result = import_result(folder, scene, here if noted is None else noted.placement)
            if values.use_settings:
                from_request(settings_of(scene), read_request(folder))
        except DreamlatheError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"{result.name} imported")
        return {"FINISHED"}


with_properties(
    DREAMLATHE_OT_result_import,
    {
        "directory": StringProperty(name="Folder", description="The job's folder", subtype="DIR_PATH"),
        "filter_folder": bpy.props.BoolProperty(default=True, options={"HIDDEN"}),
        "use_settings": bpy.props.BoolProperty(
            name="Take Over Settings", description="Also make the scene's settings those of the job", default=False
        ),
    },
)


class DREAMLATHE_OT_results_open(Operator):
    """Open the last job's folder, or the folder of all jobs, in the file browser of the system."""

    bl_idname = "dreamlathe.results_open"
    bl_label = "Open Results Folder"
    bl_options = {"REGISTER"}

    def execute(self, context: Context) -> OperatorReturn:
        job = supervisor.job()
        folder = job.folder if job is not None and job.folder.is_dir() else preferences().results_folder()
        return open_folder(self, folder)


class DREAMLATHE_OT_result_select(Operator):
    """Go to object mode, select the last result and make it active. It came while something else was being edited."""

    bl_idname = "dreamlathe.result_select"
    bl_label = "Select the Result"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: Context) -> bool:
        if last_result(context) is None:
            cls.poll_message_set("There is no result in this scene")
            return False
        return True

    def execute(self, context: Context) -> OperatorReturn:
        result = last_result(context)
        if result is None:
            return {"CANCELLED"}
        to_object_mode(context)
        select_only(scene_of(context), result)
        return {"FINISHED"}


def open_folder(operator: Operator, folder: Path) -> OperatorReturn:
    """Open a folder in the file browser of the system."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        bpy.ops.wm.path_open(filepath=str(folder))
    except (OSError, RuntimeError):
        operator.report({"ERROR"}, f"{folder} cannot be opened. Choose another results folder in the preferences.")
        return {"CANCELLED"}
    return {"FINISHED"}


CLASSES = (DREAMLATHE_OT_result_import, DREAMLATHE_OT_results_open, DREAMLATHE_OT_result_select)

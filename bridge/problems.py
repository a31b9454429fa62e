"""What stands between the settings and a job, each with the button that repairs it. Cheap: panels ask as they draw."""

from __future__ import annotations

import os
import shutil

import bpy
from bpy.types import Context, Object
from mathutils import Matrix

from ..backend.errors import DreamlatheError
from ..preferences import Preferences, preferences
from ..properties import Settings, settings_of, uses_pictures, uses_prompt
from . import supervisor, vocabulary
from .blender import scene_of
from .callbacks import CAMERA_PROMPT
from .environment import VARIABLE
from .model_problems import loading_problems, model_problem, view_model_problem
from .picture_problems import camera_problems, picture_problems, rig_problem
from .repairs import ALLOW_ONLINE, PREFERENCES, SET_UP, USE_ORBIT, Problem, Repair, set_choice, set_text
from .rig import camera_objects, find_rig, rig_matrix

NEEDED_BYTES = 300e6
"""Room on the disk that a job may take."""


def find_problems(context: Context) -> list[Problem]:
    """Everything that is wrong now, what a person can put right most easily first."""
    settings, chosen = settings_of(scene_of(context)), preferences()
    matrix = rig_matrix(find_rig(scene_of(context), settings.rig))
    fixed = settings.camera_source != "ORBIT"
    cameras = camera_objects(context, settings.camera_source, settings.camera_collection) if fixed else []
    found: list[Problem] = []
    if uses_prompt(settings):
        found += [*_prompt(settings, cameras), *model_problem(settings.model, chosen)]
    if uses_pictures(settings):
        found += [*picture_problems(settings, cameras, matrix), *view_model_problem(settings.view_model, chosen)]
    found += loading_problems(settings, chosen)
    if fixed:
        found += _cameras(cameras, matrix)
    found += [*_environment(chosen), *_disk(chosen)]
    return list({each.text: each for each in found}.values())


def first_blocking(context: Context) -> Problem | None:
    """The first one a job cannot start with."""
    return next((problem for problem in find_problems(context) if problem.blocking), None)


def _prompt(settings: Settings, cameras: list[Object]) -> list[Problem]:
    if not settings.prompt.strip():
        repairs = [set_text("Try “a red duck”", "prompt", "a red duck", "LIGHT")]
        if uses_pictures(settings):
            repairs.append(set_choice("Use the Pictures Alone", "source", "PICTURE", "IMAGE_DATA"))
        return [Problem("Say what to make: the prompt is empty", tuple(repairs))]
    lists = vocabulary.vocabulary(settings.model)
    strange = vocabulary.unknown(settings.prompt, lists)
    found = [_strange_words(settings.prompt, strange, lists)] if strange else []
    for camera in cameras:
        words = vocabulary.unknown(getattr(camera, CAMERA_PROMPT, ""), lists)
        if words:
            named = ", ".join(f"“{word}”" for word in words)
            clear = Repair("dreamlathe.camera_prompt_clear", "Clear It", {"name": camera.name}, "X")
            text = f"The model does not know {named} in the prompt of {camera.name}"
            found.append(Problem(text, (clear,), blocking=False))
    return found


def _strange_words(prompt: str, strange: list[str], lists: vocabulary.Lists) -> Problem:
    """Words the model does not know, with a button for each that is like one it knows."""
    near = {word: vocabulary.nearest(word, lists) for word in strange[:3]}
    repairs = [
        set_text(f"Use “{known}”", "prompt", vocabulary.replaced(prompt, word, known))
        for word, known in near.items()
        if known
    ]
    named = ", ".join(f"“{word}”" for word in strange)
    return Problem(f"The model does not know {named}", tuple(repairs), blocking=False)


def _cameras(cameras: list[Object], matrix: Matrix) -> list[Problem]:
    if not cameras:
        add = Repair("dreamlathe.cameras_add", "Cameras from Rig", icon="OUTLINER_OB_CAMERA")
        return [Problem("There is no camera to look from", (add, USE_ORBIT))]
    return [*rig_problem(matrix, USE_ORBIT), *camera_problems(cameras, matrix, USE_ORBIT)]


def _environment(chosen: Preferences) -> list[Problem]:
    try:
        chosen.find_python()
    except DreamlatheError as error:
        task = supervisor.setting_up()
        if task is not None:
            return [Problem(f"The backend is being set up: {task.factor:.0%}", (PREFERENCES,))]
        named = chosen.python.strip() or os.environ.get(VARIABLE, "").strip()  # it would still be asked first
        first = () if named else (SET_UP if bpy.app.online_access else ALLOW_ONLINE,)
        return [Problem(error.message.rstrip("."), (*first, PREFERENCES))]
    return []


def _disk(chosen: Preferences) -> list[Problem]:
    folder = chosen.results_folder()
    nearest = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return [Problem("The results folder cannot be written", (PREFERENCES,))]
    if shutil.disk_usage(nearest).free < NEEDED_BYTES:
        clear = Repair("dreamlathe.cache_clear", "Clear the Cache", icon="TRASH")
        return [Problem("There is no room on the disk of the results", (clear, PREFERENCES))]
    return []

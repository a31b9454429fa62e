"""What stands between the settings and a job, each with the button that repairs it. Cheap: panels ask as they draw."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
from bpy.types import Context

from ..backend.errors import DreamlatheError
from ..backend.request import BUILT_IN_MODEL
from ..preferences import Preferences, preferences
from ..properties import Settings, settings_of
from . import vocabulary
from .blender import PACKAGE, scene_of
from .rig import camera_objects, find_rig, is_even, rig_matrix

NEEDED_BYTES = 300e6
"""Room on the disk that a job may take."""


@dataclass(frozen=True)
class Repair:
    """A button: an operator with its values."""

    operator: str
    label: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    icon: str = "NONE"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and how it may be put right."""

    text: str
    repairs: tuple[Repair, ...] = ()
    blocking: bool = True
    """The job cannot start; otherwise the worker will likely refuse it."""


PREFERENCES = Repair("preferences.addon_show", "Preferences", {"module": PACKAGE}, "PREFERENCES")
_TOYBOX = Repair(
    "wm.context_set_string", "Use Toybox", {"data_path": "scene.dreamlathe.model", "value": BUILT_IN_MODEL}, "MESH_CUBE"
)
_ORBIT = Repair(
    "wm.context_set_enum",
    "Use the Orbit",
    {"data_path": "scene.dreamlathe.camera_source", "value": "ORBIT"},
    "ORIENTATION_GIMBAL",
)


def find_problems(context: Context) -> list[Problem]:
    """Everything that is wrong now, what a person can put right most easily first."""
    settings, chosen = settings_of(scene_of(context)), preferences()
    return [
        *_prompt(settings),
        *_model(settings, chosen),
        *_cameras(context, settings),
        *_environment(chosen),
        *_disk(chosen),
    ]


def first_blocking(context: Context) -> Problem | None:
    """The first one a job cannot start with."""
    return next((problem for problem in find_problems(context) if problem.blocking), None)


def _prompt(settings: Settings) -> list[Problem]:
    if not settings.prompt.strip():
        example = {"data_path": "scene.dreamlathe.prompt", "value": "a red duck"}
        repair = Repair("wm.context_set_string", "Try “a red duck”", example, "LIGHT")
        return [Problem("Say what to make: the prompt is empty", (repair,))]
    lists = vocabulary.vocabulary(settings.model)
    strange = vocabulary.unknown(settings.prompt, lists)
    return [_strange_words(settings.prompt, strange, lists)] if strange else []


def _strange_words(prompt: str, strange: list[str], lists: vocabulary.Lists) -> Problem:
    """Words the model does not know, with a button for each that is like one it knows."""
    near = {word: vocabulary.nearest(word, lists) for word in strange[:3]}
    repairs = [
        Repair(
            "wm.context_set_string",
            f"Use “{known}”",
            {"data_path": "scene.dreamlathe.prompt", "value": vocabulary.replaced(prompt, word, known)},
        )
        for word, known in near.items()
        if known
    ]
    named = ", ".join(f"“{word}”" for word in strange)
    return Problem(f"The model does not know {named}", tuple(repairs), blocking=False)


def _model(settings: Settings, chosen: Preferences) -> list[Problem]:
    model = settings.model.strip()
    if model == BUILT_IN_MODEL:
        return []
    if not model:
        return [Problem("No model is chosen", (_TOYBOX,))]
    path = Path(bpy.path.abspath(model)).expanduser()
    if path.is_dir():
        if (path / "model_index.json").is_file():
            return []
        return [Problem("The model's folder has no model_index.json", (_TOYBOX,))]
    if path.suffix == ".safetensors" and path.is_file():
        return []
    name = model.partition("@")[0]  # a revision may stand behind it
    if path.is_absolute() or name.count("/") != 1:
        return [Problem("The model's folder does not exist", (_TOYBOX,))]
    if bpy.app.online_access or chosen.has_hub_model(name):
        return []
    allow = Repair("extensions.userpref_allow_online", "Allow Online Access", icon="INTERNET")
    return [Problem("The model is not here, and Blender may not go online", (allow, _TOYBOX))]


def _cameras(context: Context, settings: Settings) -> list[Problem]:
    if settings.camera_source == "ORBIT":
        return []
    cameras = camera_objects(context, settings.camera_source, settings.camera_collection)
    if not cameras:
        add = Repair("dreamlathe.cameras_add", "Cameras from Rig", icon="OUTLINER_OB_CAMERA")
        return [Problem("There is no camera to look from", (add, _ORBIT))]
    found = [
        Problem(f"{each.name} has no perspective", (Repair("dreamlathe.camera_mend", "Mend", {"name": each.name}),))
        for each in cameras
        if getattr(each.data, "type", "PERSP") != "PERSP"
    ]
    matrix = rig_matrix(find_rig(scene_of(context), settings.rig))
    if not is_even(matrix):
        even = Repair("dreamlathe.rig_even", "Even Its Scale", icon="CON_SIZELIKE")
        return [*found, Problem("The rig is stretched or mirrored", (even, _ORBIT))]
    place, _, scale = matrix.decompose()
    inside = [each for each in cameras if (each.matrix_world.translation - place).length <= abs(scale.x)]
    return [*found, *(Problem(f"{each.name} stands inside the rig's ball", (_ORBIT,)) for each in inside[:3])]


def _environment(chosen: Preferences) -> list[Problem]:
    try:
        chosen.find_python()
    except DreamlatheError as error:
        return [Problem(error.message.rstrip("."), (PREFERENCES,))]
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

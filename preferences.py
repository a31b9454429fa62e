"""The extension's preferences: where the backend's Python lives, on what it runs, where results and models go."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import bpy
from bpy.props import EnumProperty, StringProperty
from bpy.types import AddonPreferences, Context, UILayout

from .bridge import supervisor
from .bridge.blender import (
    PACKAGE,
    absolute,
    areas,
    is_installed,
    register_classes,
    unregister_classes,
    user_folder,
    user_preferences,
    with_properties,
)
from .bridge.callbacks import LOGGER, apply_log_level
from .bridge.environment import find_python, worker_environment
from .bridge.job import duration
from .bridge.setup import Build

_LEVELS = (
    ("WARNING", "Warnings", "Only what went wrong"),
    ("INFO", "Info", "What begins and what ends, too"),
    ("DEBUG", "Debug", "Everything the worker says"),
)
_BUILDS = (
    ("AUTO", "What Is Found", "CUDA if there is an NVIDIA driver, else the processor"),
    ("CPU", "Processor", "The smaller build, without CUDA"),
    ("CUDA", "CUDA", "The build for NVIDIA's GPUs, about 3 GB"),
)


class Preferences(NamedTuple):
    """The values; the defaults stand when the extension is run from its sources by a script."""

    python: str = ""
    device: str = "auto"
    results: str = ""
    models_folder: str = ""
    build: Build = "AUTO"
    package_index: str = ""

    def find_python(self) -> Path:
        """The backend's interpreter; SetupError when it is not known."""
        return find_python(str(absolute(self.python)) if self.python.strip() else "", made=environments_folder())

    def results_folder(self) -> Path:
        """Where jobs keep their folders."""
        return absolute(self.results) if self.results.strip() else user_folder("jobs")

    def models(self) -> list[str]:
        """The diffusers folders in the models' folder, as paths, and the Hub's models there, by their ids."""
        folder = self._models_folder()
        try:
            inside = sorted(folder.iterdir()) if folder is not None else []
        except OSError:
            return []
        hub = [each.name.removeprefix("models--").replace("--", "/") for each in inside if _is_hub_model(each)]
        return [str(each) for each in inside if (each / "model_index.json").is_file()] + hub

    def has_hub_model(self, name: str) -> bool:
        """Whether a model of the Hub lies in the cache that the worker looks in."""
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        cache = self._models_folder() or Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
        return (cache / f"models--{name.replace('/', '--')}" / "snapshots").is_dir()

    def _models_folder(self) -> Path | None:
        return absolute(self.models_folder) if self.models_folder.strip() else None


def preferences() -> Preferences:
    """The present preferences."""
    addon = user_preferences().addons.get(PACKAGE)
    if addon is None or addon.preferences is None:
        return Preferences()
    values = cast("Any", addon.preferences)
    device = values.device.strip() or "auto"
    return Preferences(values.python, device, values.results, values.models, values.build, values.package_index)


def environment() -> dict[str, str]:
    """The environment of worker processes: their caches outside the extension, downloads only if Blender may."""
    found = worker_environment(cache_folder(), online=bpy.app.online_access)
    models = preferences().models_folder
    if models.strip():
        found["HF_HUB_CACHE"] = str(absolute(models))
    return found


def may_go_online() -> bool:
    """Whether the user lets Blender go online."""
    return bpy.app.online_access


def installer_environment() -> dict[str, str]:
    """The environment of a set-up: a worker's, with the package index that the preferences name."""
    found = worker_environment(cache_folder())
    index = preferences().package_index.strip()
    if index:
        found["PIP_EXTRA_INDEX_URL"] = index
    return found


def environments_folder() -> Path:
    """Where environments are set up; updates of the extension leave it alone."""
    return user_folder("environment")


def cache_folder() -> Path | None:
    """Where workers keep compiled files; None when the extension is run from its sources."""
    return user_folder("cache") if is_installed() else None


_told = {"test": "", "cache": "", "set_up": ""}


def note_set_up(text: str) -> None:
    """Keep how the set-up ended, for the preferences to show."""
    _tell("set_up", text)


def note_test(text: str) -> None:
    """Keep what the test of the backend's Python found, for the preferences to show."""
    _tell("test", text)


def note_cache(text: str) -> None:
    """Keep how large the cache is, for the preferences to show."""
    _tell("cache", text)


def _tell(what: str, text: str) -> None:
    _told[what] = text
    for area in areas("PREFERENCES"):
        area.tag_redraw()


def _is_hub_model(folder: Path) -> bool:
    return folder.name.startswith("models--") and (folder / "snapshots").is_dir()


class DREAMLATHE_AP_preferences(AddonPreferences):
    """Shown in the list of add-ons."""

    bl_idname = PACKAGE

    def draw(self, context: Context) -> None:
        """Show the fields and the test."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column(heading="Backend")
        _draw_set_up(column)
        column.prop(self, "build")
        column.prop(self, "package_index", placeholder="pip's own")
        column.prop(self, "python", placeholder="the one that was set up")
        column.prop(self, "device")
        _button(column, "dreamlathe.environment_test", "CHECKMARK", _told["test"])
        column = layout.column(heading="Folders")
        column.prop(self, "results")
        column.prop(self, "models")
        row = column.row(align=True)
        row.operator("dreamlathe.cache_measure", icon="FILE_CACHE")
        row.operator("dreamlathe.cache_clear", icon="TRASH")
        if _told["cache"]:
            column.label(text=_told["cache"])
        layout.prop(self, "log_level")


def _draw_set_up(layout: UILayout) -> None:
    """The button, or the set-up that runs; and how the last one ended."""
    task = supervisor.setting_up()
    if task is None:
        row = layout.row(align=True)
        row.operator("dreamlathe.environment_set_up", icon="IMPORT")
        row.operator("dreamlathe.environment_remove", text="", icon="TRASH")
        if not may_go_online():
            layout.operator("extensions.userpref_allow_online", text="Allow Online Access", icon="INTERNET")
        for line in filter(None, _told["set_up"].split("\n")):
            layout.label(text=line)
        return
    row = layout.row(align=True)
    row.progress(factor=task.factor, text=f"{task.factor:.0%}", type="BAR")
    row.operator("dreamlathe.environment_cancel", text="", icon="X")
    layout.label(text=f"{task.text} {duration(task.seconds)} so far.")


def _button(layout: UILayout, operator: str, icon: Any, told: str) -> None:
    """A button, and below it what it found, a line for each sentence."""
    layout.operator(operator, icon=icon)
    for line in filter(None, told.split("\n")):
        layout.label(text=line)


with_properties(
    DREAMLATHE_AP_preferences,
    {
        "python": StringProperty(
            name="Backend Python",
            description="A Python that has PyTorch; empty: DREAMLATHE_PYTHON, then the one that was set up",
            subtype="FILE_PATH",
        ),
        "build": EnumProperty(
            name="Set Up For",
            description="Which build of PyTorch is set up",
            items=_BUILDS,
        ),
        "package_index": StringProperty(
            name="Package Index",
            description="Where packages are also fetched from, such as PyTorch's own index for its builds without CUDA",
        ),
        "device": StringProperty(
            name="Device", description="What PyTorch runs on: auto, cpu, cuda, cuda:1, mps", default="auto"
        ),
        "results": StringProperty(
            name="Results", description="Where jobs keep their folders; empty: the user's folder", subtype="DIR_PATH"
        ),
        "models": StringProperty(
            name="Models",
            description="Where diffusers folders and models of the Hub are kept; empty: the Hub's own cache",
            subtype="DIR_PATH",
        ),
        "log_level": EnumProperty(
            name="Log Level",
            description="What is written to the console",
            items=_LEVELS,
            default="WARNING",
            update=apply_log_level,
        ),
    },
)

CLASSES = (DREAMLATHE_AP_preferences,)


def register() -> None:
    """Register the preferences."""
    register_classes(CLASSES)
    addon = user_preferences().addons.get(PACKAGE)
    if addon is not None and addon.preferences is not None:
        apply_log_level(addon.preferences, None)


def unregister() -> None:
    """Take them back."""
    unregister_classes(CLASSES)
    logging.getLogger(LOGGER).setLevel(logging.WARNING)

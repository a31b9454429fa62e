"""The extension's preferences: where the backend's Python lives, on what it runs, where results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import bpy
from bpy.props import StringProperty
from bpy.types import AddonPreferences, Context

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
from .bridge.environment import find_python, worker_environment


@dataclass(frozen=True)
class Preferences:
    """The values; the defaults stand when the extension is run from its sources by a script."""

    python: str = ""
    device: str = "auto"
    results: str = ""

    def find_python(self) -> Path:
        """The backend's interpreter; SetupError when it is not known."""
        return find_python(str(absolute(self.python)) if self.python.strip() else "")

    def results_folder(self) -> Path:
        """Where jobs keep their folders."""
        return absolute(self.results) if self.results.strip() else user_folder("jobs")


def preferences() -> Preferences:
    """The present preferences."""
    addon = user_preferences().addons.get(PACKAGE)
    if addon is None or addon.preferences is None:
        return Preferences()
    values = cast("Any", addon.preferences)
    return Preferences(python=values.python, device=values.device.strip() or "auto", results=values.results)


def environment() -> dict[str, str]:
    """The environment of worker processes: their caches outside the extension, downloads only if Blender may."""
    return worker_environment(user_folder("cache") if is_installed() else None, online=bpy.app.online_access)


_last_test = [""]


def note_test(text: str) -> None:
    """Keep what the test of the backend's Python found, for the preferences to show."""
    _last_test[0] = text
    for area in areas("PREFERENCES"):
        area.tag_redraw()


class DREAMLATHE_AP_preferences(AddonPreferences):
    """Shown in the list of add-ons."""

    bl_idname = PACKAGE

    def draw(self, context: Context) -> None:
        """Show the fields and the test."""
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "python")
        layout.operator("dreamlathe.environment_test", icon="CHECKMARK")
        if _last_test[0]:
            layout.label(text=_last_test[0])
        layout.prop(self, "device")
        layout.prop(self, "results")


with_properties(
    DREAMLATHE_AP_preferences,
    {
        "python": StringProperty(
            name="Backend Python",
            description="The Python that has PyTorch; empty: DREAMLATHE_PYTHON, then .venv beside the code",
            subtype="FILE_PATH",
        ),
        "device": StringProperty(
            name="Device", description="What PyTorch runs on: auto, cpu, cuda, cuda:1, mps", default="auto"
        ),
        "results": StringProperty(
            name="Results", description="Where jobs keep their folders; empty: the user's folder", subtype="DIR_PATH"
        ),
    },
)

CLASSES = (DREAMLATHE_AP_preferences,)


def register() -> None:
    """Register the preferences."""
    register_classes(CLASSES)


def unregister() -> None:
    """Take them back."""
    unregister_classes(CLASSES)

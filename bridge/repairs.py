"""What a problem is, and the buttons that put it right."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .blender import PACKAGE


class Repair(NamedTuple):
    """A button: an operator with its values."""

    operator: str
    label: str
    values: Mapping[str, Any] = MappingProxyType({})
    icon: str = "NONE"


class Problem(NamedTuple):
    """One thing that is wrong, and how it may be put right."""

    text: str
    repairs: tuple[Repair, ...] = ()
    blocking: bool = True
    """The job cannot start; otherwise the worker will likely refuse it."""


PREFERENCES = Repair("preferences.addon_show", "Preferences", {"module": PACKAGE}, "PREFERENCES")


def set_text(label: str, path: str, value: str, icon: str = "NONE") -> Repair:
    """A button that sets a text of the scene's settings."""
    return Repair("wm.context_set_string", label, {"data_path": f"scene.dreamlathe.{path}", "value": value}, icon)


def set_choice(label: str, path: str, value: str, icon: str = "NONE") -> Repair:
    """A button that sets a choice of the scene's settings."""
    return Repair("wm.context_set_enum", label, {"data_path": f"scene.dreamlathe.{path}", "value": value}, icon)


SET_UP = Repair("dreamlathe.environment_set_up", "Set Up the Backend", icon="IMPORT")
ALLOW_ONLINE = Repair("extensions.userpref_allow_online", "Allow Online Access", icon="INTERNET")
USE_ORBIT = set_choice("Use the Orbit", "camera_source", "ORBIT", "ORIENTATION_GIMBAL")

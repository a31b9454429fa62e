"""What Blender's properties call. Must not reach ``bpy``, not even through a function of another module.

Blender 4.2 as a Python module never lets go of a property's functions. Through their globals they would keep ``bpy``
itself alive past the interpreter, whose end then crashes the process: a false exit code after good work.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from ..backend.request import preset

if TYPE_CHECKING:
    from bpy.types import Context, Object

RIG_MARKER = "dreamlathe_rig"
CAMERA_PROMPT = "dreamlathe_prompt"
"""The property of a camera's object that holds its own prompt."""
LOGGER = "dreamlathe"
"""The extension's logger."""


def write_section(group: Any, values: Any) -> None:
    """Set the properties of a group to the values of its dataclass."""
    for item in dataclasses.fields(values):
        setattr(group, item.name, getattr(values, item.name))


def apply_preset(settings: Any, _context: Context | None) -> None:
    """A preset was chosen: take over its optimization, its refinement and its mesh."""
    values = preset(settings.preset)
    write_section(settings.optimize, values.optimize)
    write_section(settings.refine, values.refine)
    write_section(settings.mesh, values.mesh)


def may_be_rig(_settings: Any, candidate: Object) -> bool:
    """The objects that the field for the rig offers."""
    return is_rig(candidate)


def may_be_camera(_picture: Any, candidate: Object) -> bool:
    """The objects that a picture's field for the camera offers."""
    return candidate.type == "CAMERA"


def is_rig(candidate: Object) -> bool:
    """An empty that was made, or marked, as a rig."""
    return candidate.type == "EMPTY" and RIG_MARKER in candidate


def apply_log_level(values: Any, _context: Context | None) -> None:
    """A log level was chosen."""
    logging.getLogger(LOGGER).setLevel(values.log_level)

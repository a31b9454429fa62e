"""Blender's modules as tests see them: untyped, since most of what they touch the stubs do not know or know wrongly."""

from __future__ import annotations

import importlib
from typing import Any

bpy: Any = importlib.import_module("bpy")
mathutils: Any = importlib.import_module("mathutils")
Euler, Matrix, Vector = mathutils.Euler, mathutils.Matrix, mathutils.Vector
world_to_camera_view: Any = importlib.import_module("bpy_extras.object_utils").world_to_camera_view

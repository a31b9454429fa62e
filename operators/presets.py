"""Quality presets, those of Blender's own kind; and another seed."""

from __future__ import annotations

import random
from typing import Any

import bpy
from bl_operators.presets import AddPresetBase
from bpy.types import Context, Operator

from ..bridge.blender import OperatorReturn, scene_of
from ..bridge.environment import ROOT
from ..properties import settings_of

SUBFOLDER = "dreamlathe/quality"
_GROUPS = ("guidance", "sketch", "optimize", "refine", "mesh", "view_guidance", "reference")
_LOADING = ("precision", "memory", "image_size")
"""LoRAs and the tiny VAE belong to a model, as its name does, and no preset changes that."""
_KEPT = ("preset", *_GROUPS, *(f"loading.{name}" for name in _LOADING))


class DREAMLATHE_OT_quality_preset_add(AddPresetBase, Operator):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Keep the present quality settings as a preset, or take one away."""

    bl_idname = "dreamlathe.quality_preset_add"
    bl_label = "Add Quality Preset"
    preset_menu = "DREAMLATHE_PT_quality_presets"
    preset_subdir = SUBFOLDER
    preset_defines = ["settings = bpy.context.scene.dreamlathe"]
    preset_values = [f"settings.{name}" for name in _KEPT]


class DREAMLATHE_OT_seed_roll(Operator):
    """Choose another seed at random."""

    bl_idname = "dreamlathe.seed_roll"
    bl_label = "New Seed"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    def execute(self, context: Context) -> OperatorReturn:
        settings_of(scene_of(context)).seed = random.randrange(2**31)
        return {"FINISHED"}


CLASSES = (DREAMLATHE_OT_quality_preset_add, DREAMLATHE_OT_seed_roll)


def register() -> None:
    """Let Blender find the presets that come along; people's own lie in their scripts' folder.

    The first releases of 4.2 know no such paths: there, the row of the three presets is all that comes along.
    """
    utilities: Any = bpy.utils
    if hasattr(utilities, "register_preset_path"):
        utilities.register_preset_path(str(ROOT))


def unregister() -> None:
    """Take them back."""
    utilities: Any = bpy.utils
    if hasattr(utilities, "unregister_preset_path"):
        utilities.unregister_preset_path(str(ROOT))

"""What stands in Blender's own menus."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.types import Context


def _draw_add(menu: Any, _context: Context) -> None:
    menu.layout.operator("dreamlathe.rig_add", text="Dreamlathe Rig", icon="SPHERE")


def register() -> None:
    """Offer the rig where objects are added."""
    types: Any = bpy.types
    types.VIEW3D_MT_add.append(_draw_add)


def unregister() -> None:
    """Take it back."""
    types: Any = bpy.types
    types.VIEW3D_MT_add.remove(_draw_add)

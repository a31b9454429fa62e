"""Escape, over a 3D view, stops the job that runs. A key, and no modal operator: those hold auto-save back."""

from __future__ import annotations

from typing import Any

from .blender import window_manager

_items: list[tuple[Any, Any]] = []


def register() -> None:
    """Add the key, where Blender has keys."""
    configurations: Any = window_manager().keyconfigs
    if configurations is None or configurations.addon is None:
        return
    keys = configurations.addon.keymaps.new(name="3D View Generic", space_type="VIEW_3D")
    item: Any = keys.keymap_items.new("dreamlathe.cancel_key", type="ESC", value="PRESS")
    _items.append((keys, item))


def unregister() -> None:
    """Take the key back."""
    for keys, item in _items:
        keys.keymap_items.remove(item)
    _items.clear()

"""Pictures of jobs as icons: loaded once, when they are first drawn; a preview that was written anew replaces the old.

Blender reads them in a thread of its own, but for the running job's, which is small and must not flicker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy.utils.previews

_MOST = 400
_collection: Any = None
_icons: dict[Path, tuple[int, int]] = {}
"""Of each path: when the file was written, and the icon."""


def icon(path: Path | None, *, now: bool = False) -> int:
    """The icon of a picture's file, 0 if there is none yet. ``now``: read it before returning (a few milliseconds)."""
    if path is None:
        return 0
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return 0
    known = _icons.get(path)
    if known is None or known[0] != stamp:
        _icons[path] = known = (stamp, _load(path, stamp, now=now))
    return known[1]


def _load(path: Path, stamp: int, *, now: bool) -> int:
    global _collection  # noqa: PLW0603 - Blender wants it removed by hand
    if _collection is None:
        _collection = bpy.utils.previews.new()
    name = f"{path}:{stamp}"
    preview = _collection[name] if name in _collection else _collection.load(name, str(path), "IMAGE")
    if now:
        tuple(preview.image_size)  # reading the size reads the picture
    return int(preview.icon_id)


def trim() -> None:
    """Forget all icons once there are very many. Not while a panel is drawn: it may hold some."""
    if len(_icons) > _MOST:
        clear()


def clear() -> None:
    """Forget all icons."""
    global _collection  # noqa: PLW0603
    if _collection is not None:
        bpy.utils.previews.remove(_collection)
    _collection = None
    _icons.clear()

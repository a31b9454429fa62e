"""Dreamlathe: from a sentence to a textured mesh. Blender calls register and unregister; nothing else happens here."""

from __future__ import annotations

import gc

_COLLECTS = gc.isenabled()
gc.disable()  # imports leave no garbage, and to look for it among all that Blender holds takes a third of their time
try:
    from . import operators, panels, preferences, properties
    from .bridge import command, job_list, keymap, log, overlay, queue, supervisor, thumbnails
finally:
    if _COLLECTS:
        gc.enable()

MODULES = (log, preferences, properties, job_list, operators, panels, overlay, keymap, command)


def register() -> None:
    """Make everything known to Blender. Starts no process and no timer."""
    for module in MODULES:
        module.register()


def unregister() -> None:
    """End what runs and take everything back, in reverse order."""
    supervisor.shutdown()
    queue.clear()
    thumbnails.clear()
    for module in reversed(MODULES):
        module.unregister()

"""Makes ``blender --command dreamlathe`` known; what it does is read when it is called, not at Blender's start-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy

COMMAND = "dreamlathe"
_handle: Any = None


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    from .command_line import main as run  # noqa: PLC0415

    return run(arguments)


def register() -> None:
    """Make the command known, where Blender takes commands."""
    global _handle  # noqa: PLW0603 - the handle is needed to take it back
    _handle = bpy.utils.register_cli_command(COMMAND, main)


def unregister() -> None:
    """Take it back."""
    global _handle  # noqa: PLW0603
    if _handle is not None:
        bpy.utils.unregister_cli_command(_handle)
    _handle = None

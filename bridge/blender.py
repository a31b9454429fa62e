"""Small typed helpers around what Blender's API leaves dynamic."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import bpy
from bpy.types import Area, Context, Preferences, Scene, ViewLayer, WindowManager

from .environment import ROOT

if TYPE_CHECKING:
    from bpy.stub_internal.rna_enums import OperatorReturnItems

OperatorReturn: TypeAlias = "set[OperatorReturnItems]"
"""What execute and invoke return."""

PACKAGE = (__package__ or "").rpartition(".")[0]
"""The extension's own name: bl_ext.<repository>.dreamlathe when it is installed."""


def register_classes(classes: Sequence[type[Any]]) -> None:
    """Register classes in order."""
    for each in classes:
        bpy.utils.register_class(each)


def unregister_classes(classes: Sequence[type[Any]]) -> None:
    """Take classes back, in reverse order."""
    for each in reversed(classes):
        bpy.utils.unregister_class(each)


def with_properties(cls: type[Any], properties: dict[str, Any]) -> None:
    """Give a class its Blender properties. A call in an annotation is no type, so they are not written as such."""
    cls.__annotations__ = properties


@cache
def version() -> str:
    """The extension's version, from its manifest."""
    import tomllib  # noqa: PLC0415 - Blender's start-up does without

    return str(tomllib.loads((ROOT / "blender_manifest.toml").read_text(encoding="utf-8"))["version"])


def is_installed() -> bool:
    """Installed as an extension, and not run from its sources by a script."""
    return PACKAGE.startswith("bl_ext.")


def user_folder(name: str) -> Path:
    """A folder of the extension that may be written to and that updates leave alone."""
    if is_installed():
        folder = bpy.utils.extension_path_user(PACKAGE, path=name, create=True)
        if folder:
            return Path(folder)
    folder = bpy.utils.user_resource("DATAFILES", path=f"dreamlathe/{name}", create=True)
    return Path(folder) if folder else Path(tempfile.gettempdir()) / "dreamlathe" / name


def absolute(path: str) -> Path:
    """A path as a person typed it: ``//`` is the .blend file's folder, ``~`` the home folder."""
    return Path(bpy.path.abspath(path)).expanduser().absolute()


def redraw_sidebars() -> None:
    """Draw the sidebars of all 3D views anew."""
    for area in areas("VIEW_3D"):
        for region in area.regions:
            if region.type == "UI":
                region.tag_redraw()


def to_object_mode(context: Context) -> None:
    """Leave the mode that objects are edited in; what was edited is kept."""
    operator: Any = bpy.ops.object.mode_set
    if context.mode != "OBJECT" and operator.poll():
        operator(mode="OBJECT")


def undo_push(message: str) -> None:
    """End an undo step. Outside object mode nothing is pushed: the change belongs to the next step there."""
    context: Any = bpy.context
    if context.mode != "OBJECT":
        return
    windows = window_manager().windows
    if context.window is None and windows:
        with context.temp_override(window=windows[0]):
            bpy.ops.ed.undo_push(message=message)
    else:
        bpy.ops.ed.undo_push(message=message)


# The stubs have an attribute of Context called "property", which hides the decorator of those that come after it.


def scene_of(context: Context) -> Scene:
    """The context's scene; there always is one."""
    return cast("Any", context).scene


def layer_of(context: Context) -> ViewLayer:
    """The context's view layer; there always is one."""
    return cast("Any", context).view_layer


def window_manager() -> WindowManager:
    """The window manager; it is there without a window, too."""
    return cast("Any", bpy.context).window_manager


def user_preferences() -> Preferences:
    """The user's preferences."""
    return cast("Any", bpy.context).preferences


def areas(kind: str) -> list[Area]:
    """The areas of one type in all windows."""
    return [area for window in window_manager().windows for area in window.screen.areas if area.type == kind]

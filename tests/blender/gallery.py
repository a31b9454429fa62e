"""Runs inside a Blender that has a window: brings every panel into the states worth a picture, and waits at each.

blender --python tests/blender/gallery.py -- PYTHON RESULTS_FOLDER [PANELS] HOLD; at each moment a file named HOLD-…
appears, and Blender waits until somebody has taken a picture and deleted it. PYTHON is the stand-in, or the backend's
own; PANELS names those that shall be open, such as quality,advanced,mesh.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

bpy: Any = importlib.import_module("bpy")
PYTHON, RESULTS, *OPEN, HOLD = sys.argv[sys.argv.index("--") + 1 :]
NAME = next(each.module for each in bpy.context.preferences.addons if each.module.endswith(".dreamlathe"))
queue: Any = importlib.import_module(f"{NAME}.bridge.queue")
frames: Any = importlib.import_module(f"{NAME}.bridge.frames")
supervisor: Any = importlib.import_module(f"{NAME}.bridge.supervisor")
panels: Any = importlib.import_module(f"{NAME}.panels")
ADDON = bpy.context.preferences.addons[NAME].preferences


def window() -> Any:
    """Blender's window."""
    return bpy.context.window_manager.windows[0]


def view() -> Any:
    """The 3D view, with the sidebar."""
    area = next(area for area in window().screen.areas if area.type == "VIEW_3D")
    area.spaces.active.show_region_ui = True
    return area


def open_panels(names: list[str]) -> None:
    """These panels shall be open and all others closed: has to be said before they are drawn for the first time."""
    for cls in reversed(panels.CLASSES):
        bpy.utils.unregister_class(cls)
    for cls in panels.CLASSES:
        if hasattr(cls, "bl_category"):
            wanted = set() if cls.__name__.removeprefix("DREAMLATHE_PT_") in names else {"DEFAULT_CLOSED"}
            cls.bl_options = set(getattr(cls, "bl_options", set())) - {"DEFAULT_CLOSED"} | wanted
        bpy.utils.register_class(cls)


def invoke(operator: Any, **values: Any) -> Any:
    """As a button does."""
    area = view()
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window(), area=area, region=region):
        return operator("INVOKE_DEFAULT", **values)


def run(operator: Any, **values: Any) -> Any:
    """As a script does, in the 3D view."""
    area = view()
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window(), area=area, region=region):
        return operator(**values)


def picture(name: str) -> Iterator[float]:
    """Wait for a picture."""
    for area in window().screen.areas:
        area.tag_redraw()
    yield 0.6
    path = Path(f"{HOLD}-{name}")
    path.touch()
    while path.exists():
        yield 0.2


def until(condition: Any, seconds: float = 60.0) -> Iterator[float]:
    """Let Blender go on until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        yield 0.1


def story() -> Iterator[float]:
    """From an empty tab to a list of results."""
    settings = bpy.context.scene.dreamlathe
    ADDON.python, ADDON.results = PYTHON, RESULTS
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.object.delete()
    view()
    yield 0.5
    for region in view().regions:
        if region.type == "UI":
            region.active_panel_category = "Dreamlathe"
    yield from picture("1-empty")
    ADDON.python, settings.model, settings.camera_source = "/no/python", "someone/model", "SELECTED"
    settings.prompt = "a red duck"
    yield from picture("2-problems")
    ADDON.python, settings.model, settings.camera_source = PYTHON, "toybox", "ORBIT"
    run(bpy.ops.dreamlathe.rig_add)
    run(bpy.ops.view3d.view_all)
    yield from picture("3-rig")
    yield from cameras(settings)
    yield from picture("5-settings")
    yield from jobs(settings)
    yield from preferences()
    tell()


def tell() -> None:
    """How long we held Blender up."""
    print("gallery:", frames.longest())
    for name, tally in sorted(frames.tallies().items()):
        print(f"gallery: {name}: {tally.calls} calls, longest {tally.longest * 1e3:.1f} ms")


def cameras(settings: Any) -> Iterator[float]:
    """Real cameras, and the view through one."""
    run(bpy.ops.dreamlathe.cameras_add, count=6)
    yield from picture("4-cameras")
    run(bpy.ops.dreamlathe.camera_look, name="Orbit 1")
    yield 0.3
    settings.camera_source = "ORBIT"
    view().spaces.active.region_3d.view_perspective = "PERSP"
    for each in list(settings.camera_collection.objects):
        bpy.data.objects.remove(each)


def jobs(settings: Any) -> Iterator[float]:
    """A job that runs with its preview, one that waits, one that is paused; the result; the list."""
    for prompt in ("a blue car", "a red duck"):
        settings.prompt = prompt
        invoke(bpy.ops.dreamlathe.generate)
        yield from until(lambda: not queue.busy())
        yield 0.3
    settings.prompt = "a yellow duck that takes long"
    invoke(bpy.ops.dreamlathe.generate)
    yield from until(lambda: queue.current().status.step > 5)
    invoke(bpy.ops.dreamlathe.pause)
    yield from until(lambda: not queue.busy())
    settings.prompt = "a robot that takes long"
    invoke(bpy.ops.dreamlathe.generate)
    yield from until(lambda: queue.current() is not None and queue.current().status.step > 5)
    settings.prompt = "a white rabbit"
    invoke(bpy.ops.dreamlathe.generate)
    yield from picture("6-running")
    for ticket in queue.tickets():
        queue.cancel(ticket)
    yield from until(lambda: not queue.tickets())
    yield from picture("7-finished")
    settings.prompt = "a duck that dies"
    invoke(bpy.ops.dreamlathe.generate)
    yield from until(lambda: not queue.busy())
    yield from picture("8-failed")


def preferences() -> Iterator[float]:
    """The extension's preferences, in a window of their own."""
    invoke(bpy.ops.preferences.addon_show, module=NAME)
    yield from picture("9-preferences")


def leave(code: int) -> None:
    """End Blender at once."""
    supervisor.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


steps = story()


def go_on() -> float | None:
    """The story's next moment."""
    try:
        return next(steps)
    except StopIteration:
        leave(0)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not leave a Blender behind
        traceback.print_exc()
        leave(1)
    return None


shutil.rmtree(RESULTS, ignore_errors=True)
if OPEN:
    open_panels(OPEN[0].split(","))
bpy.app.timers.register(go_on, first_interval=1.0, persistent=True)

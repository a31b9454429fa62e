"""Runs inside a Blender that has a window: brings every panel into the states worth a picture, and waits at each.

blender --python tests/blender/gallery.py -- PYTHON RESULTS_FOLDER [PANELS] HOLD; at each moment a file named HOLD-…
appears, and Blender waits until somebody has taken a picture and deleted it. PYTHON is the stand-in, or the backend's
own; PANELS names those that shall be open, such as quality,advanced,mesh.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stage
from stage import ADDON, ARGUMENTS, NAME, bpy, frames, part, press, queue, run, tab, until, view

PYTHON, RESULTS, *OPEN, HOLD = ARGUMENTS
panels: Any = part("panels")


def open_panels(names: list[str]) -> None:
    """These panels shall be open and all others closed: has to be said before they are drawn for the first time."""
    for cls in reversed(panels.CLASSES):
        bpy.utils.unregister_class(cls)
    for cls in panels.CLASSES:
        if hasattr(cls, "bl_category"):
            wanted = set() if cls.__name__.removeprefix("DREAMLATHE_PT_") in names else {"DEFAULT_CLOSED"}
            cls.bl_options = set(getattr(cls, "bl_options", set())) - {"DEFAULT_CLOSED"} | wanted
        bpy.utils.register_class(cls)


def picture(name: str) -> Iterator[float]:
    """Wait for a picture."""
    yield from stage.picture(HOLD, name)


def story() -> Iterator[float]:
    """From an empty tab to a list of results."""
    settings = bpy.context.scene.dreamlathe
    ADDON.python, ADDON.results = PYTHON, RESULTS
    bpy.ops.object.select_all(action="SELECT")
    bpy.ops.object.delete()
    view()
    yield 0.5
    tab()
    yield from picture("1-empty")
    ADDON.python, settings.model, settings.camera_source = "/no/python", "someone/model", "SELECTED"
    settings.prompt = "a red duck"
    yield from picture("2-problems")
    ADDON.python, settings.camera_source = PYTHON, "ORBIT"
    yield from models(settings)
    settings.model = "toybox"
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


def models(settings: Any) -> Iterator[float]:
    """A model of another's, with two LoRAs, one of them gone."""
    folder = Path(RESULTS) / "models" / "someone's model"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder.parent / "clay.safetensors").touch()
    settings.model, settings.loading.precision, settings.loading.image_size = str(folder), "bf16", 512
    settings.loading.loras = f"{folder.parent / 'clay.safetensors'}@0.8; {folder.parent / 'gone.safetensors'}"
    yield from picture("2-models")
    for each in settings.loading.bl_rna.properties:
        if not each.is_readonly:
            settings.loading.property_unset(each.identifier)


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
        press(bpy.ops.dreamlathe.generate)
        yield from until(lambda: not queue.busy(), "in time")
        yield 0.3
    settings.prompt = "a yellow duck that takes long"
    press(bpy.ops.dreamlathe.generate)
    yield from until(lambda: queue.current().status.step > 5, "in time")
    press(bpy.ops.dreamlathe.pause)
    yield from until(lambda: not queue.busy(), "in time")
    settings.prompt = "a robot that takes long"
    press(bpy.ops.dreamlathe.generate)
    yield from until(lambda: queue.current() is not None and queue.current().status.step > 5, "in time")
    settings.prompt = "a white rabbit"
    press(bpy.ops.dreamlathe.generate)
    yield from picture("6-running")
    for ticket in queue.tickets():
        queue.cancel(ticket)
    yield from until(lambda: not queue.tickets(), "in time")
    yield from picture("7-finished")
    settings.prompt = "a duck that dies"
    press(bpy.ops.dreamlathe.generate)
    yield from until(lambda: not queue.busy(), "in time")
    yield from picture("8-failed")


def preferences() -> Iterator[float]:
    """The extension's preferences, in a window of their own."""
    press(bpy.ops.preferences.addon_show, module=NAME)
    yield from picture("9-preferences")


shutil.rmtree(RESULTS, ignore_errors=True)
if OPEN:
    open_panels(OPEN[0].split(","))
stage.tell(story(), "gallery: all is well")

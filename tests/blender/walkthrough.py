"""Runs inside a Blender that has a window: what a new person does, with the real worker, a picture at each step.

blender --python tests/blender/walkthrough.py -- PYTHON RESULTS_FOLDER [PRESET] HOLD; at each step a file named HOLD-…
appears, and Blender waits until somebody has taken a picture and deleted it. Ends with how long Blender was held up by
us. PRESET is standard unless it is said.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stage
from stage import ADDON, ARGUMENTS, NAME, bpy, frames, part, press, queue, step_back, supervisor, tab, view

PYTHON, RESULTS, *PRESET, HOLD = ARGUMENTS


def picture(name: str) -> Iterator[float]:
    """Wait for a picture."""
    yield from stage.picture(HOLD, name)


def until(condition: Callable[[], Any], what: str) -> Iterator[float]:
    """Let Blender go on until something is so; the real worker takes its time."""
    yield from stage.until(condition, what, 1800.0)


def story() -> Iterator[float]:
    """From an empty scene to a mesh of quads."""
    ADDON.results = RESULTS
    bpy.ops.ed.undo_push(message="Begin")
    for each in list(bpy.data.objects):
        bpy.data.objects.remove(each)
    view()
    yield 0.5
    tab()
    ADDON.python = "/no/such/python"
    yield from picture("problems")
    ADDON.python = PYTHON
    yield from environment()
    press(bpy.ops.dreamlathe.rig_add, "EXEC_DEFAULT")
    view().spaces.active.region_3d.view_distance = 14.0
    yield from picture("rig")
    press(bpy.ops.dreamlathe.cameras_add, "EXEC_DEFAULT", count=6)
    yield from picture("cameras")
    step_back(bpy.ops.ed.undo)
    yield 0.3
    settings = bpy.context.scene.dreamlathe
    settings.camera_source, settings.prompt, settings.preset = "ORBIT", "a red duck", (PRESET or ["standard"])[0]
    settings.mark_asset = True
    bpy.ops.ed.undo_push(message="Settings")
    yield from generate()
    yield from result()


def environment() -> Iterator[float]:
    """The test of the backend's Python, in the preferences."""
    screens = {each.as_pointer() for each in bpy.context.window_manager.windows}
    press(bpy.ops.preferences.addon_show, module=NAME)
    press(bpy.ops.dreamlathe.environment_test)
    told = part("preferences")._told
    yield from until(lambda: "step" in told["test"] or "lacks" in told["test"], "the test ends")
    yield from picture("preferences")
    for each in bpy.context.window_manager.windows:
        if each.as_pointer() not in screens:
            with bpy.context.temp_override(window=each):
                bpy.ops.wm.window_close()
            break
    yield 0.5


def generate() -> Iterator[float]:
    """Generate, hold, go on, watch."""
    frames.reset()
    begin = time.monotonic()
    press(bpy.ops.dreamlathe.generate)
    ticket = queue.current()
    yield from picture("loading")
    yield from until(lambda: ticket.status.preview, "there is a preview")
    yield from until(lambda: 4 * ticket.status.step > ticket.status.total > 0, "the job advances")
    yield from picture("running")
    press(bpy.ops.dreamlathe.pause)
    yield from until(lambda: ticket.state == "paused", "the job is held")
    held = ticket.job.status.step
    yield from picture("paused")
    press(bpy.ops.dreamlathe.resume, folder=str(ticket.plan.folder))
    previews: list[float] = []
    seen = ""
    while queue.busy():
        status = ticket.status
        path = status.preview if status is not None else ""
        stamp = f"{path}{Path(path).stat().st_mtime}" if path and Path(path).exists() else ""
        if status is not None and stamp and stamp != seen and status.phase == "optimize":
            previews.append(time.monotonic())
            seen = stamp
        yield 0.1
    gaps = [after - before for before, after in itertools.pairwise(previews)]
    print(f"walkthrough: held at step {held}; {len(previews)} previews, at most {max(gaps, default=0.0):.1f} s apart")
    print(f"walkthrough: {time.monotonic() - begin:.0f} s from Generate to the result")
    assert supervisor.job().status.state == "finished", supervisor.job().status


def result() -> Iterator[float]:
    """The object; undo and redo; the list; saving and opening; quads; an asset."""
    view().spaces.active.shading.type = "MATERIAL"
    press(bpy.ops.view3d.view_selected, "EXEC_DEFAULT")
    view().spaces.active.region_3d.view_distance = 4.5
    yield 3.0
    yield from picture("result")
    name = bpy.context.view_layer.objects.active.name
    assert bpy.data.objects[name].asset_data is not None
    step_back(bpy.ops.ed.undo)
    yield 0.3
    assert name not in bpy.data.objects
    step_back(bpy.ops.ed.redo)
    yield 0.3
    assert name in bpy.data.objects
    tell()
    path = str(Path(RESULTS) / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    yield 1.0
    tab()
    assert bpy.data.objects[name].asset_data is not None
    bpy.context.view_layer.objects.active = bpy.data.objects[name]
    assert press(bpy.ops.dreamlathe.quad_remesh, "EXEC_DEFAULT", faces=2500, texture_size=512) == {"FINISHED"}
    area = view()
    area.spaces.active.overlay.show_wireframes = True
    area.spaces.active.shading.type = "MATERIAL"
    yield 3.0
    yield from picture("quads")
    area.spaces.active.overlay.show_wireframes = False
    area.ui_type = "ASSETS"
    yield 1.0
    area.spaces.active.params.asset_library_reference = "LOCAL"
    yield 1.0
    yield from picture("asset")


def tell() -> None:
    """How long Blender was held up by us, in the whole generation."""
    for name, tally in sorted(frames.tallies().items()):
        mean, longest, work = (each * 1e3 for each in (tally.seconds / tally.calls, tally.longest, tally.longest_work))
        told = f"{tally.calls} calls, {mean:.2f} ms each, longest {longest:.1f} ms, most work {work:.1f} ms"
        print(f"walkthrough: {name}: {told}")


stage.tell(story(), "walkthrough: all is well")

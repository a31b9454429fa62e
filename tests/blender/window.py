"""Runs inside a Blender that has a window: panels are drawn, a job runs beside the interface, undo takes one step.

blender --python tests/blender/window.py -- STAND_IN_PYTHON RESULTS_FOLDER; the exit code is 0 if all is well. The
extension must be installed and enabled. With a third argument, the beginning of a file name, Blender makes a file at
each moment worth a picture and waits until it is gone.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

bpy: Any = importlib.import_module("bpy")
STAND_IN, RESULTS, *HOLD = sys.argv[sys.argv.index("--") + 1 :]
NAME = next(each.module for each in bpy.context.preferences.addons if each.module.endswith(".dreamlathe"))
supervisor: Any = importlib.import_module(f"{NAME}.bridge.supervisor")
queue: Any = importlib.import_module(f"{NAME}.bridge.queue")
frames: Any = importlib.import_module(f"{NAME}.bridge.frames")
client: Any = importlib.import_module(f"{NAME}.bridge.worker_client")
drawn: set[str] = set()


def watch_drawing() -> None:
    """Note every panel of the extension that is drawn."""
    for name in dir(bpy.types):
        if name.startswith("DREAMLATHE_PT_"):
            panel = getattr(bpy.types, name)
            panel.draw = noted(name, panel.draw)


def noted(name: str, real: Any) -> Any:
    """A panel's draw that also notes that it was called."""

    def draw(self: Any, context: Any) -> None:  # Blender counts the arguments
        real(self, context)
        drawn.add(name)

    return draw


def view() -> Any:
    """The 3D view, with the sidebar at our tab."""
    area = next(area for area in bpy.context.window_manager.windows[0].screen.areas if area.type == "VIEW_3D")
    area.spaces.active.show_region_ui = True
    return area


def redraw() -> None:
    """Draw all of the 3D view anew."""
    for region in view().regions:
        region.tag_redraw()


def invoke(operator: Any, **values: Any) -> Any:
    """As a button does."""
    window, area = bpy.context.window_manager.windows[0], view()
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        return operator("INVOKE_DEFAULT", **values)


def picture(name: str) -> Iterator[float]:
    """Wait while a person or a program takes a picture."""
    if HOLD:
        path = Path(f"{HOLD[0]}-{name}")
        path.touch()
        while path.exists():
            yield 0.2


def until(condition: Any, what: str, seconds: float = 30.0) -> Iterator[float]:
    """Let Blender go on until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        yield 0.1


def story() -> Iterator[float]:
    """What a person does; each yield lets Blender's own loop run for so many seconds."""
    bpy.context.preferences.view.show_splash = False
    addon = bpy.context.preferences.addons[NAME].preferences
    addon.python, addon.results = STAND_IN, RESULTS
    view()
    yield 1.0
    for region in view().regions:
        if region.type == "UI":
            region.active_panel_category = "Dreamlathe"
    view().tag_redraw()
    yield from until(lambda: "DREAMLATHE_PT_jobs" in drawn, "the panels are drawn")
    assert {"DREAMLATHE_PT_source", "DREAMLATHE_PT_cameras", "DREAMLATHE_PT_quality"} <= drawn, drawn
    assert not bpy.app.timers.is_registered(supervisor._tick)
    yield from picture("idle")
    yield from generate()
    yield from undo()
    yield from cancel()
    yield from escape()
    yield from pause_and_queue()
    yield from another_file()
    yield from edit_mode()
    yield from failure()
    tell()


def generate() -> Iterator[float]:
    """Generate comes back at once; the timer does the rest."""
    settings = bpy.context.scene.dreamlathe
    settings.prompt = "a duck that takes long"
    bpy.ops.ed.undo_push(message="Prompt")
    begin = time.monotonic()
    assert invoke(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    assert time.monotonic() - begin < 2.0
    assert supervisor.job().status.active
    yield from until(lambda: supervisor.job().status.step > 20, "the job advances beside the interface")
    drawn.clear()
    yield from until(lambda: "DREAMLATHE_PT_jobs" in drawn, "progress is drawn")
    yield from picture("running")
    assert invoke(bpy.ops.dreamlathe.cancel) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    settings.prompt = "a red duck"
    bpy.ops.ed.undo_push(message="Prompt")
    assert invoke(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    yield 0.3
    assert supervisor.job().status.state == "finished", supervisor.job().status
    assert "a red duck" in bpy.data.objects
    assert bpy.context.view_layer.objects.active.name == "a red duck"
    yield from picture("finished")
    yield from until(lambda: not bpy.app.timers.is_registered(supervisor._tick), "no timer stays behind")


def undo() -> Iterator[float]:
    """One step takes the result away, with its collection, and one brings it back."""
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=window):
        bpy.ops.ed.undo()
    yield 0.3
    assert "a red duck" not in bpy.data.objects
    assert "Dreamlathe" not in bpy.data.collections
    assert bpy.context.scene.dreamlathe.prompt == "a red duck"
    with bpy.context.temp_override(window=window):
        bpy.ops.ed.redo()
    yield 0.3
    assert "a red duck" in bpy.data.objects


def cancel() -> Iterator[float]:
    """Undo while a job runs does not harm it; Cancel ends it."""
    bpy.context.scene.dreamlathe.prompt = "a duck that takes long"
    assert invoke(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: supervisor.job().status.step > 5, "the job advances")
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[0]):
        bpy.ops.ed.undo()
    step = supervisor.job().status.step
    yield from until(lambda: supervisor.job().status.step > step, "the job goes on after an undo")
    assert invoke(bpy.ops.dreamlathe.cancel) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    assert supervisor.job().status.state == "cancelled"
    assert not list(client._alive)


def escape() -> Iterator[float]:
    """Escape over the 3D view ends the job; over nothing of ours it does what it always does."""
    if not bpy.app.use_event_simulate:
        print("window: no simulated events, so Escape was not tried")
        return
    bpy.context.scene.dreamlathe.prompt = "a duck that takes long"
    invoke(bpy.ops.dreamlathe.generate)
    yield from until(lambda: supervisor.job().status.step > 5, "the job advances")
    window, area = bpy.context.window_manager.windows[0], view()
    place = {"x": area.x + area.width // 3, "y": area.y + area.height // 2}
    window.event_simulate(type="MOUSEMOVE", value="NOTHING", **place)
    yield 0.3
    for value in ("PRESS", "RELEASE"):
        window.event_simulate(type="ESC", value=value, **place)
    yield from until(lambda: not queue.busy(), "Escape ends the job")
    assert supervisor.job().status.state == "cancelled"


def pause_and_queue() -> Iterator[float]:
    """One is held and its process goes; the next takes its turn; the held one goes on from the panel."""
    scene = bpy.context.scene.dreamlathe
    scene.prompt = "a duck that takes long"
    invoke(bpy.ops.dreamlathe.generate)
    yield from until(lambda: supervisor.job().status.step > 5, "the job advances")
    held = queue.current()
    scene.prompt = "a green duck"
    invoke(bpy.ops.dreamlathe.generate)
    assert [ticket.state for ticket in queue.tickets()] == ["running", "waiting"]
    invoke(bpy.ops.dreamlathe.pause)
    yield from until(lambda: not queue.busy(), "the other job ends")
    assert held.state == "paused"
    assert "a green duck" in bpy.data.objects
    assert not list(client._alive)
    invoke(bpy.ops.dreamlathe.resume, folder=str(held.plan.folder))
    yield from until(lambda: held.status is not None and held.status.step > 5, "the held job goes on")
    invoke(bpy.ops.dreamlathe.cancel)
    yield from until(lambda: not queue.tickets(), "the job ends")


def another_file() -> Iterator[float]:
    """A file that is loaded while a job runs does not end it, and gets its result if it is the job's own."""
    path = str(Path(RESULTS) / "own.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.context.scene.dreamlathe.prompt = "a yellow duck that takes a while"
    bpy.ops.wm.save_mainfile()
    invoke(bpy.ops.dreamlathe.generate)
    yield from until(lambda: supervisor.job().status.step > 1, "the job advances")
    bpy.ops.wm.open_mainfile(filepath=path)
    yield 0.5
    assert queue.busy()
    for region in view().regions:
        if region.type == "UI":
            region.active_panel_category = "Dreamlathe"
    yield from until(lambda: not queue.busy(), "the job ends")
    assert supervisor.job().status.state == "finished", supervisor.job().status
    assert any(each.name.startswith("a yellow duck") for each in bpy.data.objects)


def tell() -> None:
    """How long Blender was held up by us."""
    for name, tally in sorted(frames.tallies().items()):
        print(f"window: {name}: {tally.calls} calls, longest {tally.longest * 1e3:.1f} ms")
    name, seconds = frames.longest()
    print(f"window: held up for the longest time: {name}, {seconds * 1e3:.1f} ms")
    assert seconds < 3 * frames.LIMIT, "what others do on this machine is not that much"


def edit_mode() -> Iterator[float]:
    """A result that comes while another object is edited leaves it alone."""
    for each in list(bpy.data.objects):
        bpy.data.objects.remove(each)
    window, area = bpy.context.window_manager.windows[0], view()
    region = next(region for region in area.regions if region.type == "WINDOW")
    bpy.context.scene.dreamlathe.prompt = "a red duck"
    with bpy.context.temp_override(window=window, area=area, region=region):
        bpy.ops.mesh.primitive_cube_add()
        bpy.ops.object.mode_set(mode="EDIT")
    assert invoke(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    yield 0.3
    assert "a red duck" in bpy.data.objects
    assert bpy.context.view_layer.objects.active.mode == "EDIT"
    assert invoke(bpy.ops.dreamlathe.result_select) == {"FINISHED"}
    assert bpy.context.view_layer.objects.active.name == "a red duck"
    with bpy.context.temp_override(window=window, area=area, region=region):
        bpy.ops.object.mode_set(mode="OBJECT")
    yield 0.2


def failure() -> Iterator[float]:
    """A failed job says so in the panel."""
    bpy.context.scene.dreamlathe.prompt = "a duck that dies"
    assert invoke(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    assert supervisor.job().status.state == "failed"
    drawn.clear()
    redraw()
    yield from until(lambda: "DREAMLATHE_PT_jobs" in drawn, "the failure is drawn")
    yield from picture("failed")


def leave(code: int) -> None:
    """End Blender at once; quitting through its menu would always give 0."""
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
        print("window: all is well")
        leave(0)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not leave a Blender behind
        traceback.print_exc()
        leave(1)
    return None


watch_drawing()
bpy.app.timers.register(go_on, first_interval=1.0, persistent=True)

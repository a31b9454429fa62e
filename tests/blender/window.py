"""Runs inside a Blender that has a window: panels are drawn, a job runs beside the interface, undo takes one step.

blender --python tests/blender/window.py -- STAND_IN_PYTHON RESULTS_FOLDER; the exit code is 0 if all is well. The
extension must be installed and enabled. With a third argument, the beginning of a file name, Blender makes a file at
each moment worth a picture and waits until it is gone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stage
from stage import ADDON, ARGUMENTS, bpy, frames, part, press, queue, redraw, step_back, supervisor, tab, view

STAND_IN, RESULTS, *HOLD = ARGUMENTS
client: Any = part("bridge.worker_client")
_SLOW = """#!/bin/sh
echo '{"event": "phase", "name": "download", "message": "torch (184.3 MB)"}'
echo '{"event": "progress", "step": 42, "total": 100, "seconds_left": 60.0, "loss": 0.0}'
read word
echo '{"event": "failed", "code": "cancelled", "message": "Stopped.", "hint": ""}'
"""
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


def picture(name: str) -> Iterator[float]:
    """Wait while a person or a program takes a picture."""
    yield from stage.picture(HOLD[0] if HOLD else "", name)


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Iterator[float]:
    """Let Blender go on until something is so."""
    yield from stage.until(condition, what, seconds)


def story() -> Iterator[float]:
    """What a person does; each yield lets Blender's own loop run for so many seconds."""
    bpy.context.preferences.view.show_splash = False
    ADDON.python, ADDON.results = STAND_IN, RESULTS
    view()
    yield 1.0
    tab()
    view().tag_redraw()
    yield from until(lambda: "DREAMLATHE_PT_jobs" in drawn, "the panels are drawn")
    assert {"DREAMLATHE_PT_source", "DREAMLATHE_PT_cameras", "DREAMLATHE_PT_quality"} <= drawn, drawn
    assert not bpy.app.timers.is_registered(supervisor._tick)
    yield from picture("idle")
    yield from pictures()
    yield from set_up()
    yield from generate()
    yield from undo()
    yield from cancel()
    yield from escape()
    yield from pause_and_queue()
    yield from another_file()
    yield from edit_mode()
    yield from failure()
    tell()


def pictures() -> Iterator[float]:
    """The source as a picture: nothing there, one of a file, one behind a camera; a job of them."""
    settings = bpy.context.scene.dreamlathe
    settings.source, settings.view_model = "PICTURE", "none"
    drawn.clear()
    redraw()
    yield from until(lambda: "DREAMLATHE_PT_source" in drawn, "the empty list is drawn")
    assert not bpy.ops.dreamlathe.generate.poll()
    yield from picture("no-picture")
    path = duck(Path(RESULTS) / "duck.png")
    assert press(bpy.ops.dreamlathe.picture_add, "EXEC_DEFAULT", filepath=str(path)) == {"FINISHED"}
    settings.pictures[0].elevation = 15.0
    camera = bpy.data.objects.new("Photo", bpy.data.cameras.new("Photo"))
    bpy.context.scene.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0.0, -4.0, 0.0), (1.5708, 0.0, 0.0)
    camera.data.background_images.new().image = settings.pictures[0].image
    camera.data.show_background_images = True
    bpy.context.scene.camera = camera
    bpy.context.view_layer.objects.active = camera
    assert press(bpy.ops.dreamlathe.picture_from_camera, "EXEC_DEFAULT") == {"FINISHED"}
    settings.picture = 0
    drawn.clear()
    redraw()
    yield from until(lambda: "DREAMLATHE_PT_source" in drawn, "the chosen picture is drawn")
    yield 1.0
    yield from picture("pictures")
    settings.picture = 1
    settings.source, settings.prompt = "BOTH", "a red duck"
    bpy.ops.dreamlathe.cameras_add(count=3)
    bpy.data.objects["Orbit 1"].dreamlathe_prompt = "a duck"
    redraw()
    yield 1.0
    yield from picture("both")
    assert press(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    asked = queue.current().plan.request
    assert [each.title for each in asked.references] == ["duck", "duck"]
    assert [each.prompt for each in asked.cameras] == ["a duck", "", ""]
    yield from until(lambda: not queue.busy(), "the job of pictures ends")
    yield 0.3
    assert supervisor.job().status.state == "finished", supervisor.job().status
    for each in list(bpy.data.objects):
        if each.name.startswith(("a red duck", "Orbit", "Photo")):
            bpy.data.objects.remove(each)
    for each in list(bpy.data.collections):
        if each.name != "Collection":
            bpy.data.collections.remove(each)
    settings.source, settings.camera_source = "PROMPT", "ORBIT"


def duck(path: Path) -> Path:
    """A picture of something yellow."""
    image = bpy.data.images.new("drawing", 96, 96, alpha=True)
    image.pixels = [
        value
        for y in range(96)
        for x in range(96)
        for value in ((0.9, 0.7, 0.1, 1.0) if (x - 48) ** 2 + (y - 44) ** 2 < 900 else (0.0, 0.0, 0.0, 0.0))
    ]
    image.file_format = "PNG"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(filepath=str(path))
    bpy.data.images.remove(image)
    return path


def set_up() -> Iterator[float]:
    """The preferences while an environment is made, and after it was stopped; Blender is not held up meanwhile."""
    module, told = part("bridge.setup"), part("preferences")._told
    lock = Path(RESULTS) / "linux-x64-py311.lock"
    lock.write_text(f"torch==9.9 --hash=sha256:{64 * '0'}\n")
    before = {each.as_pointer() for each in bpy.context.window_manager.windows}
    press(bpy.ops.preferences.addon_show, module=stage.NAME)
    yield 2.0
    slow = Path(RESULTS) / "slow-python"  # says how far it is, and stops when it is told to
    slow.write_text(_SLOW)
    slow.chmod(0o755)
    environment = {**part("preferences").installer_environment(), "PIP_NO_INDEX": "1"}
    for stop in (True, False):
        base = slow if stop else Path(sys.executable)
        task = module.SetUp(module.Plan(base, (lock,), Path(RESULTS) / "environments" / "new"), environment)
        supervisor.start(
            task, lambda task=task: part("preferences").note_set_up(part("operators.environment")._ended(task))
        )
        assert supervisor.setting_up() is task
        yield from until(lambda task=task: task.text != "Starting.", "the set-up begins")
        if stop:
            yield from picture("setting-up")
            assert bpy.ops.dreamlathe.environment_cancel() == {"FINISHED"}
        yield from until(lambda: supervisor.setting_up() is None, "the set-up ends", 240.0)
        assert (task.cancelled, task.error is None) == (stop, stop), task.error
        assert told["set_up"]
        assert not task.plan.folder.exists()
        yield from picture("set-up-stopped" if stop else "set-up-failed")
    for each in bpy.context.window_manager.windows:
        if each.as_pointer() not in before:
            with bpy.context.temp_override(window=each):
                bpy.ops.wm.window_close()
            break
    yield 0.5


def generate() -> Iterator[float]:
    """Generate comes back at once; the timer does the rest."""
    settings = bpy.context.scene.dreamlathe
    settings.prompt = "a duck that takes long"
    bpy.ops.ed.undo_push(message="Prompt")
    begin = time.monotonic()
    assert press(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    assert time.monotonic() - begin < 2.0
    assert supervisor.job().status.active
    yield from until(lambda: supervisor.job().status.step > 20, "the job advances beside the interface")
    drawn.clear()
    yield from until(lambda: "DREAMLATHE_PT_jobs" in drawn, "progress is drawn")
    yield from picture("running")
    assert press(bpy.ops.dreamlathe.cancel) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    settings.prompt = "a red duck"
    bpy.ops.ed.undo_push(message="Prompt")
    assert press(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    yield 0.3
    assert supervisor.job().status.state == "finished", supervisor.job().status
    assert "a red duck" in bpy.data.objects
    assert bpy.context.view_layer.objects.active.name == "a red duck"
    yield from picture("finished")
    yield from until(lambda: not bpy.app.timers.is_registered(supervisor._tick), "no timer stays behind")


def undo() -> Iterator[float]:
    """One step takes the result away, with its collection, and one brings it back."""
    step_back(bpy.ops.ed.undo)
    yield 0.3
    assert "a red duck" not in bpy.data.objects
    assert "Dreamlathe" not in bpy.data.collections
    assert bpy.context.scene.dreamlathe.prompt == "a red duck"
    step_back(bpy.ops.ed.redo)
    yield 0.3
    assert "a red duck" in bpy.data.objects


def cancel() -> Iterator[float]:
    """Undo while a job runs does not harm it; Cancel ends it."""
    bpy.context.scene.dreamlathe.prompt = "a duck that takes long"
    assert press(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: supervisor.job().status.step > 5, "the job advances")
    step_back(bpy.ops.ed.undo)
    step = supervisor.job().status.step
    yield from until(lambda: supervisor.job().status.step > step, "the job goes on after an undo")
    assert press(bpy.ops.dreamlathe.cancel) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    assert supervisor.job().status.state == "cancelled"
    assert not list(client._alive)


def escape() -> Iterator[float]:
    """Escape over the 3D view ends the job; over nothing of ours it does what it always does."""
    if not bpy.app.use_event_simulate:
        print("window: no simulated events, so Escape was not tried")
        return
    bpy.context.scene.dreamlathe.prompt = "a duck that takes long"
    press(bpy.ops.dreamlathe.generate)
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
    press(bpy.ops.dreamlathe.generate)
    yield from until(lambda: supervisor.job().status.step > 5, "the job advances")
    held = queue.current()
    scene.prompt = "a green duck"
    press(bpy.ops.dreamlathe.generate)
    assert [ticket.state for ticket in queue.tickets()] == ["running", "waiting"]
    press(bpy.ops.dreamlathe.pause)
    yield from until(lambda: not queue.busy(), "the other job ends")
    assert held.state == "paused"
    assert "a green duck" in bpy.data.objects
    assert not list(client._alive)
    press(bpy.ops.dreamlathe.resume, folder=str(held.plan.folder))
    yield from until(lambda: held.status is not None and held.status.step > 5, "the held job goes on")
    press(bpy.ops.dreamlathe.cancel)
    yield from until(lambda: not queue.tickets(), "the job ends")


def another_file() -> Iterator[float]:
    """A file that is loaded while a job runs does not end it, and gets its result if it is the job's own."""
    path = str(Path(RESULTS) / "own.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.context.scene.dreamlathe.prompt = "a yellow duck that takes a while"
    bpy.ops.wm.save_mainfile()
    press(bpy.ops.dreamlathe.generate)
    yield from until(lambda: supervisor.job().status.step > 1, "the job advances")
    bpy.ops.wm.open_mainfile(filepath=path)
    yield 0.5
    assert queue.busy()
    tab()
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
    assert press(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    yield 0.3
    assert "a red duck" in bpy.data.objects
    assert bpy.context.view_layer.objects.active.mode == "EDIT"
    assert press(bpy.ops.dreamlathe.result_select) == {"FINISHED"}
    assert bpy.context.view_layer.objects.active.name == "a red duck"
    with bpy.context.temp_override(window=window, area=area, region=region):
        bpy.ops.object.mode_set(mode="OBJECT")
    yield 0.2


def failure() -> Iterator[float]:
    """A failed job says so in the panel."""
    bpy.context.scene.dreamlathe.prompt = "a duck that dies"
    assert press(bpy.ops.dreamlathe.generate) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), "the job ends")
    assert supervisor.job().status.state == "failed"
    drawn.clear()
    redraw()
    yield from until(lambda: "DREAMLATHE_PT_jobs" in drawn, "the failure is drawn")
    yield from picture("failed")


watch_drawing()
stage.tell(story(), "window: all is well")

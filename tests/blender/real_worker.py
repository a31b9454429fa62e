"""Runs inside a Blender that has a window: Generate with the backend's own worker, stopped, killed, and to its end.

blender --python tests/blender/real_worker.py -- PYTHON RESULTS_FOLDER; the exit code is 0 if all is well. PYTHON is the
backend's. The jobs are small: what the window does is the same for all.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stage
from stage import ADDON, ARGUMENTS, bpy, frames, part, press, queue, step_back, supervisor, tab, view

PYTHON, RESULTS = ARGUMENTS
client: Any = part("bridge.worker_client")
history: Any = part("bridge.history")
NAME = "a red duck"


def until(condition: Callable[[], Any], what: str) -> Iterator[float]:
    """Let Blender go on until something is so; libraries take their time."""
    yield from stage.until(condition, what, 600.0)


def story() -> Iterator[float]:
    """From a cancel while the model loads to a result that was undone, redone, saved and opened."""
    ADDON.python, ADDON.results = PYTHON, RESULTS
    for each in list(bpy.data.objects):
        bpy.data.objects.remove(each)
    view()
    yield 0.5
    tab()
    settings = bpy.context.scene.dreamlathe
    settings.prompt, settings.preset = NAME, "draft"
    settings.optimize.iterations, settings.refine.iterations = 40, 4
    settings.mesh.grid_resolution, settings.mesh.faces, settings.mesh.texture_size = 48, 2000, 128
    bpy.ops.ed.undo_push(message="Settings")
    frames.reset()
    yield from cancel_in_loading()
    yield from cancel_in_running()
    folder = yield from kill()
    yield from to_the_end(folder)
    yield from result()
    tell()


def cancel_in_loading() -> Iterator[float]:
    """A job that is stopped before its first step is gone soon, and leaves no folder."""
    press(bpy.ops.dreamlathe.generate)
    ticket = queue.current()
    yield from until(lambda: ticket.status.phase == "environment", "libraries are loaded")
    yield 1.0
    assert ticket.status.phase in ("environment", "model"), ticket.status
    yield from stopped("loading")
    assert not ticket.plan.folder.exists()


def cancel_in_running() -> Iterator[float]:
    """A job that is stopped at a step leaves its checkpoint and its preview."""
    press(bpy.ops.dreamlathe.generate)
    ticket = queue.current()
    yield from until(lambda: ticket.status.preview and ticket.status.step > 3, "the job shows what it does")
    yield from stopped("running")
    past = history.look(ticket.plan.folder)
    assert (past.state, past.resumable) == ("cancelled", True), past
    assert past.picture is not None


def stopped(when: str) -> Iterator[float]:
    """Press Cancel, and say how long it takes."""
    begin = time.monotonic()
    assert press(bpy.ops.dreamlathe.cancel) == {"FINISHED"}
    yield from until(lambda: not queue.busy(), f"the job ends that is cancelled in {when}")
    assert supervisor.job().status.state == "cancelled", supervisor.job().status
    print(f"worker: cancelled in {when} after {time.monotonic() - begin:.1f} s")


def kill() -> Generator[float, None, Path]:
    """A worker that is killed is told of, and its job can be resumed; gives the job's folder."""
    press(bpy.ops.dreamlathe.generate)
    ticket = queue.current()
    yield from until(lambda: ticket.status.step > 3, "the job advances")
    (process,) = [each._process.pid for each in client._alive]
    os.kill(process, signal.SIGKILL)
    yield from until(lambda: not queue.busy(), "the end is noticed")
    status = supervisor.job().status
    assert status.state == "failed", status
    assert "killed" in status.failure
    return ticket.plan.folder


def to_the_end(folder: Path) -> Iterator[float]:
    """Resumed, with its file loaded anew meanwhile: the result comes to the scene that was opened again."""
    path = str(Path(RESULTS) / "own.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    press(bpy.ops.dreamlathe.resume, folder=str(folder))
    ticket = queue.current()
    yield from until(lambda: ticket.status.step > 3, "the job goes on")
    bpy.ops.wm.open_mainfile(filepath=path)
    yield 0.5
    tab()
    yield from until(lambda: not queue.busy(), "the job ends")
    yield 0.5
    assert supervisor.job().status.state == "finished", supervisor.job().status


def result() -> Iterator[float]:
    """One object, one undo step; saved and opened, it is the same."""
    made = bpy.data.objects[NAME]
    assert bpy.context.view_layer.objects.active == made
    assert made.data.materials[0].node_tree is not None
    assert bpy.data.images[NAME].packed_file is not None
    assert len(made.data.polygons) > 500
    step_back(bpy.ops.ed.undo)
    yield 0.3
    assert NAME not in bpy.data.objects
    step_back(bpy.ops.ed.redo)
    yield 0.3
    assert NAME in bpy.data.objects
    path = str(Path(RESULTS) / "made.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    yield 0.5
    assert "dreamlathe_request" in bpy.data.objects[NAME]


def tell() -> None:
    """How long Blender was held up by us; files that are loaded and saved are not our work."""
    for name, tally in sorted(frames.tallies().items()):
        print(f"worker: {name}: {tally.calls} calls, longest {tally.longest * 1e3:.1f} ms")
    name, seconds = frames.longest()
    print(f"worker: held up for the longest time: {name}, {seconds * 1e3:.1f} ms")
    assert seconds < 3 * frames.LIMIT, "what others do on this machine is not that much"


stage.tell(story(), "worker: all is well")

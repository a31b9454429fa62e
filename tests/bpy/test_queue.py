"""Several jobs, one after another: waiting, paused, resumed, stopped; and what is left when Blender is gone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bpy.blender import bpy
from tests.bpy.glb_fixture import write_result

pytestmark = pytest.mark.usefixtures("backend_python")


@pytest.fixture
def queue(extension: Any) -> Any:
    return extension("bridge.queue")


@pytest.fixture
def add(extension: Any, queue: Any, settings: Any) -> Callable[..., Any]:
    """Adds a job whose prompt says how the worker behaves."""

    def run(prompt: str) -> Any:
        settings.prompt = prompt
        return queue.add(extension("bridge.generation").make_plan(bpy.context))

    return run


@pytest.fixture
def until(extension: Any) -> Callable[..., None]:
    """Timers do not fire without a window, so the test plays the timer."""

    def run(reached: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline
            extension("bridge.supervisor")._tick()
            time.sleep(0.01)

    return run


def names() -> list[str]:
    return sorted(each.name for each in bpy.data.objects)


def test_one_runs_and_the_others_wait(queue: Any, add: Any, until: Any) -> None:
    first, second = add("a red duck"), add("a blue duck")
    assert (first.state, second.state) == ("running", "waiting")
    assert queue.tickets() == (first, second)
    until(lambda: not queue.busy())
    assert names() == ["a blue duck", "a red duck"]
    assert queue.tickets() == ()


def test_two_jobs_of_one_second_have_two_folders(add: Any) -> None:
    first, second = add("a red duck"), add("a red duck")
    assert first.plan.folder != second.plan.folder


@pytest.mark.parametrize(
    ("prompt", "level", "said", "unsaid"),
    [
        ("a red duck", "WARNING", [], ["optimize", "finished", "Progress"]),
        ("a red duck", "INFO", ["a red duck: optimize", "a red duck: finished"], ["Progress"]),
        ("a red duck", "DEBUG", ["a red duck: Progress(", "a red duck: finished"], []),
        ("it dies", "WARNING", ["it dies: The worker ended early with exit code 3"], ["optimize"]),
    ],
)
def test_the_console_is_told_what_the_preferences_want(
    add: Any, queue: Any, until: Any, caplog: Any, prompt: str, level: str, said: list[str], unsaid: list[str]
) -> None:
    addon: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    addon.log_level = level
    add(prompt)
    until(lambda: not queue.busy())
    addon.log_level = "WARNING"
    assert [words for words in said if words not in caplog.text] == []
    assert [words for words in unsaid if words in caplog.text] == []


def test_pause_frees_the_worker_and_resume_goes_on(queue: Any, add: Any, until: Any) -> None:
    ticket = add("a duck that takes long")
    until(lambda: ticket.status.step > 3)
    process = ticket.job._worker._process
    assert bpy.ops.dreamlathe.pause() == {"FINISHED"}
    assert ticket.status.text == "Pausing"
    until(lambda: ticket.state == "paused")
    assert process.poll() == 0  # gone by itself, and with it its memory
    assert not queue.busy()
    assert bpy.ops.dreamlathe.resume(folder=str(ticket.plan.folder)) == {"FINISHED"}
    assert ticket.state == "running"
    assert ticket.job._worker._process is not process
    until(lambda: ticket.status.step > 3)
    queue.cancel(ticket)
    until(lambda: not queue.tickets())


def test_a_paused_job_lets_others_pass(queue: Any, add: Any, until: Any) -> None:
    held, other = add("a duck that takes long"), add("a red duck")
    until(lambda: held.status.step > 3)
    queue.pause(held)
    until(lambda: not queue.busy())
    assert (held.state, names()) == ("paused", ["a red duck"])
    assert other not in queue.tickets()
    assert bpy.ops.dreamlathe.cancel(folder=str(held.plan.folder)) == {"FINISHED"}
    assert queue.tickets() == ()


def test_a_waiting_job_can_be_held_and_dropped(queue: Any, add: Any, until: Any) -> None:
    running, waiting = add("a duck that takes long"), add("a red duck")
    assert bpy.ops.dreamlathe.pause(folder=str(waiting.plan.folder)) == {"FINISHED"}
    assert waiting.state == "paused"
    queue.resume(waiting)
    assert waiting.state == "waiting"
    assert bpy.ops.dreamlathe.cancel(folder=str(waiting.plan.folder)) == {"FINISHED"}
    assert queue.tickets() == (running,)
    assert not waiting.plan.folder.exists()  # it never began
    bpy.ops.dreamlathe.cancel()
    until(lambda: not queue.busy())
    assert names() == []


def test_a_failure_gives_way_to_the_next(extension: Any, queue: Any, add: Any, until: Any) -> None:
    failing = add("a duck that fails")
    add("a red duck")
    until(lambda: not queue.busy())
    assert names() == ["a red duck"]
    assert not failing.plan.folder.exists()  # the worker wrote nothing
    assert failing.job.status.state == "failed"


def test_escape_stops_the_job(queue: Any, add: Any, until: Any) -> None:
    assert not bpy.ops.dreamlathe.cancel_key.poll()
    ticket = add("a duck that takes long")
    until(lambda: ticket.status.step > 3)
    assert bpy.ops.dreamlathe.cancel_key() == {"FINISHED"}
    until(lambda: not queue.busy())
    assert ticket.job.status.state == "cancelled"


def test_cancel_while_pausing(queue: Any, add: Any, until: Any) -> None:
    ticket = add("a duck that ignores")
    until(lambda: ticket.status.step > 3)
    queue.pause(ticket)
    for _ in range(2):
        queue.cancel(ticket)
    until(lambda: not queue.tickets(), 5.0)
    assert ticket.job.status.state == "cancelled"


def test_nothing_of_it_is_saved(add: Any, until: Any, queue: Any, tmp_path: Path) -> None:
    """A file that is saved while a job runs and opened in another Blender knows of no job."""
    ticket = add("a duck that takes long")
    until(lambda: ticket.status.step > 3)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"), copy=True)
    libraries = bpy.data.libraries
    with libraries.load(str(tmp_path / "a.blend")) as (source, target):
        target.scenes = source.scenes
    keys = {key for scene in bpy.data.scenes for key in (scene.get("dreamlathe") or {})}
    assert not {key for key in keys if "job" in key or "running" in key or "state" in key}
    assert ticket.state == "running"
    queue.cancel(ticket)
    until(lambda: not queue.busy())


def test_the_same_file_loaded_again_gets_its_result(
    extension: Any, add: Any, until: Any, queue: Any, tmp_path: Path
) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    ticket = add("a red duck")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    until(lambda: not queue.busy())
    assert ticket.job.status.state == "finished"
    assert names() == ["a red duck"]


def test_a_job_follows_its_file(extension: Any, add: Any, until: Any, queue: Any, tmp_path: Path) -> None:
    """Begun before the file had a name, saved, saved under another one, and loaded again."""
    ticket = add("a red duck that takes a while")
    for name in ("a.blend", "b.blend"):
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / name))
        noted = extension("bridge.record").read_record(ticket.plan.folder)
        assert noted.placement.file == str(tmp_path / name)
    bpy.ops.wm.read_homefile(use_empty=True)
    assert ticket.plan.placement.file == str(tmp_path / "b.blend")  # another file changes nothing
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "b.blend"))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "c.blend"))
    until(lambda: not queue.busy())
    assert ticket.job.status.state == "finished", ticket.job.status
    assert names() == ["a red duck that takes a while"]


def test_what_blender_did_not_see_the_end_of_is_offered_again(
    extension: Any, add: Any, until: Any, queue: Any, tmp_path: Path
) -> None:
    """As after a crash: the folder is there with its record, and nobody works at it."""
    ticket = add("a duck that takes long")
    until(lambda: ticket.status.step > 3)
    folder = ticket.plan.folder
    (folder / "request.json").write_text(ticket.plan.request.to_json())
    extension("bridge.supervisor").shutdown()
    queue.clear()
    bpy.ops.wm.read_homefile(use_empty=True)  # a file is loaded: the list is read
    jobs = extension("bridge.job_list")
    assert [past.folder for past in jobs.interrupted()] == [folder]
    assert bpy.ops.dreamlathe.resume(folder=str(folder)) == {"FINISHED"}
    assert jobs.interrupted() == []
    ticket = queue.find(folder)
    until(lambda: ticket.status.step > 3)
    queue.cancel(ticket)
    until(lambda: not queue.busy())
    assert jobs.interrupted() == []  # a person stopped this one
    assert json.loads((folder / "job.json").read_text())["ended"] == "cancelled"


def test_an_interrupted_job_can_be_forgotten(extension: Any, tmp_path: Path) -> None:
    request = extension("backend.request").Request(prompt="a red duck")
    folder = tmp_path / "jobs" / "one"
    write_result(folder, json.loads(request.to_json()))
    (folder / "metrics.json").unlink()
    jobs = extension("bridge.job_list")
    jobs.refresh()
    assert [past.folder for past in jobs.interrupted()] == [folder]
    assert bpy.ops.dreamlathe.job_forget(folder=str(folder)) == {"FINISHED"}
    assert jobs.interrupted() == []
    assert len(jobs.items()) == 1

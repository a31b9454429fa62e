"""The worker's process and the job's machine, with a worker that only speaks the protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bpy.blender import bpy

HERE = Path(__file__).resolve().parent
STAND_IN = [sys.executable, str(HERE / "stand_in_worker.py")]


@pytest.fixture
def start(extension: Any, tmp_path: Path) -> Callable[..., Any]:
    """Starts a job whose prompt says how the worker behaves."""

    def begin(prompt: str, command: list[str] = STAND_IN, **limits: float) -> Any:
        job, client = extension("bridge.job"), extension("bridge.worker_client")
        request = extension("backend.request").Request(prompt=prompt)
        worker = client.WorkerClient(command, tmp_path, dict(os.environ))
        return job.Job(request, tmp_path / "job", worker, limits=job.Limits(**limits))

    return begin


def until(job: Any, reached: Callable[[Any], bool], seconds: float = 20.0) -> None:
    """Step until something is so."""
    deadline = time.monotonic() + seconds
    while not reached(job.status):
        assert time.monotonic() < deadline, job.status
        job.step()
        time.sleep(0.01)


def ended(status: Any) -> bool:
    return not status.active


def test_a_job_from_start_to_end(start: Any, tmp_path: Path) -> None:
    job = start("a red duck")
    assert job.status.active
    until(job, ended)
    status = job.status
    assert (status.state, status.error, status.phase) == ("finished", None, "optimize")
    assert (status.step, status.total, status.factor, status.loss) == (20, 20, 1.0, 0.5)
    assert status.warnings == ["This is a stand-in."]
    assert job.folder == tmp_path / "job"
    assert (job.folder / "mesh.glb").is_file()
    assert job.step() is False
    assert job._worker._process.returncode == 0


def test_cancel_is_asked_for_first(start: Any) -> None:
    job = start("a duck that takes long")
    until(job, lambda status: status.step > 3)
    assert "left" in job.status.text
    job.cancel()
    assert job.status.text == "Cancelling"
    until(job, ended, 5.0)
    assert (job.status.state, job.status.error.code) == ("cancelled", "cancelled")
    assert job._worker._process.returncode == 0  # it went by itself


@pytest.mark.parametrize("twice", [False, True])
def test_a_worker_that_ignores_a_cancel_is_killed(start: Any, twice: bool) -> None:
    job = start("a duck that ignores", cancel=60.0 if twice else 0.3)
    until(job, lambda status: status.step > 3)
    for _ in range(2 if twice else 1):
        job.cancel()
    until(job, ended, 5.0)
    assert job.status.state == "cancelled"
    assert job._worker._process.returncode == -9


def test_an_error_of_the_worker_comes_through(start: Any) -> None:
    job = start("a duck that fails")
    until(job, ended)
    assert (job.status.state, job.status.error.code) == ("failed", "vocabulary")
    assert job.status.failure == "The word zebra is not known. Known are: duck, car."


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("a duck that dies", "exit code 3 (MemoryError: no memory for a duck)"), ("a duck that is killed", "killed")],
)
def test_a_worker_that_goes_without_a_word_is_noticed(start: Any, prompt: str, words: str) -> None:
    job = start(prompt)
    until(job, ended, 5.0)
    assert (job.status.state, job.status.error.code) == ("failed", "environment")
    assert words in job.status.failure


def test_silence_is_told_and_then_ended(start: Any) -> None:
    job = start("a duck that is mute", quiet=0.2, silent=1.0)
    until(job, lambda status: "No sign of life" in status.message, 5.0)
    until(job, ended, 5.0)
    assert job.status.state == "failed"
    assert "silent" in job.status.failure


def test_a_python_that_is_not_there(start: Any, extension: Any) -> None:
    with pytest.raises(extension("backend.errors").SetupError, match="does not start"):
        start("a duck", command=["/no/such/python"])


def test_a_program_that_is_no_worker(start: Any) -> None:
    job = start("a duck", command=[sys.executable, "-c", "print('hello')"])
    until(job, ended, 5.0)
    assert job.status.state == "failed"
    assert "exit code 0" in job.status.failure


def test_a_flood_and_half_lines_do_not_block(start: Any) -> None:
    """Megabytes of output, a line in two halves, bytes that are no text: each step stays short, no event is lost."""
    script = (
        "import sys, time\n"
        "w = sys.stdout.buffer.write\n"
        "for i in range(40): w(b'x' * 100_000 + b'\\n')\n"
        'w(b\'\\xff\\xfe\\n\' + b\'{"event": "phase", "na\'); sys.stdout.buffer.flush(); time.sleep(0.3)\n'
        'w(b\'me": "mesh"}\\n{"event": "failed", "code": "model", "message": "M."}\')\n'
    )
    job = start("a duck", command=[sys.executable, "-c", script])
    longest = 0.0
    while job.status.active:
        begin = time.monotonic()
        job.step()
        longest = max(longest, time.monotonic() - begin)
        time.sleep(0.01)
    assert (job.status.phase, job.status.error.code) == ("mesh", "model")
    assert longest < 2.0


def test_a_request_larger_than_a_pipe_arrives(start: Any, extension: Any, tmp_path: Path) -> None:
    """Two hundred kilobytes of request to a process that reads late: starting does not block."""
    module = extension("backend.request")
    pose = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 4.0), (0.0, 0.0, 0.0, 1.0))
    cameras = (module.FixedCamera(pose, (2.0, 2.0)),) * 1000
    script = (
        "import json, pathlib, sys, time\n"
        "end = time.monotonic() + 30\n"
        "while not pathlib.Path('read').exists() and time.monotonic() < end: time.sleep(0.05)\n"
        "n = len(json.loads(sys.stdin.readline())['request']['cameras'])\n"
        "print(json.dumps({'event': 'failed', 'code': 'model', 'message': str(n)}))\n"
    )
    client = extension("bridge.worker_client").WorkerClient([sys.executable, "-c", script], tmp_path, dict(os.environ))
    begin = time.monotonic()
    job = extension("bridge.job").Job(module.Request(prompt="a", cameras=cameras), tmp_path, client)
    assert time.monotonic() - begin < 15
    (tmp_path / "read").touch()
    until(job, ended)
    assert job.status.error.message == "1000"


def test_quitting_blender_kills_the_worker(start: Any, extension: Any) -> None:
    job = start("a duck that ignores")
    process = job._worker._process
    extension("bridge.worker_client").kill_all()
    assert process.poll() == -9


def test_the_timer_steps_the_job_and_places_the_result(extension: Any, backend_python: Any, settings: Any) -> None:
    """Timers do not fire without a window, so the test plays the timer."""
    settings.prompt = "a red duck"
    generation, supervisor = extension("bridge.generation"), extension("bridge.supervisor")
    job = extension("bridge.queue").add(generation.make_plan(bpy.context)).job
    assert supervisor.running()
    assert bpy.app.timers.is_registered(supervisor._tick)
    assert bpy.ops.dreamlathe.generate.poll()  # another job would wait
    deadline = time.monotonic() + 20
    while supervisor._tick() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert job.status.state == "finished"
    assert [each.name for each in bpy.context.scene.objects] == ["a red duck"]
    assert bpy.ops.dreamlathe.generate.poll()
    assert bpy.ops.dreamlathe.dismiss() == {"FINISHED"}
    assert supervisor.job() is None


def test_a_result_whose_scene_is_gone_is_kept_in_its_folder(extension: Any, backend_python: Any, settings: Any) -> None:
    settings.prompt = "a red duck"
    generation, supervisor = extension("bridge.generation"), extension("bridge.supervisor")
    job = extension("bridge.queue").add(generation.make_plan(bpy.context)).job
    bpy.ops.wm.read_homefile(use_empty=True)  # another file is opened meanwhile
    while supervisor._tick() is not None:
        time.sleep(0.02)
    assert job.status.state == "failed"
    assert "not open any more" in job.status.failure
    assert len(bpy.data.objects) == 0
    assert bpy.ops.dreamlathe.result_import(directory=str(job.folder)) == {"FINISHED"}


def test_the_cancel_operator(extension: Any, backend_python: Any, settings: Any) -> None:
    settings.prompt = "a duck that takes long"
    generation, supervisor = extension("bridge.generation"), extension("bridge.supervisor")
    assert not bpy.ops.dreamlathe.cancel.poll()
    job = extension("bridge.queue").add(generation.make_plan(bpy.context)).job
    assert bpy.ops.dreamlathe.cancel() == {"FINISHED"}
    while supervisor._tick() is not None:
        time.sleep(0.02)
    assert job.status.state == "cancelled"
    assert len(bpy.data.objects) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (240, "4 min"), (7800, "2 h 10 min"), (-3, "0 s")]
)
def test_durations(extension: Any, seconds: float, text: str) -> None:
    assert extension("bridge.job").duration(seconds) == text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_worker_that_is_gone_does_not_end_blender(tmp_path: Path) -> None:
    """Some Blenders leave SIGPIPE as the system has it: writing to nobody would end the process."""
    script = tmp_path / "write.py"
    script.write_text(_WRITES_TO_NOBODY.format(path=str(HERE.parents[1] / "bridge" / "pipes.py")))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{int(signal.SIG_DFL)} set()\n"), done.stderr


_WRITES_TO_NOBODY = """
import importlib.util, os, signal
spec = importlib.util.spec_from_file_location("pipes", {path!r})
pipes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pipes)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
read, write = os.pipe()
os.close(read)
writer = pipes.Writer(os.fdopen(write, "wb", buffering=0))
writer.write(b"quit")
writer.write(b"quit")
print(int(signal.getsignal(signal.SIGPIPE)), signal.pthread_sigmask(signal.SIG_BLOCK, set()))
"""

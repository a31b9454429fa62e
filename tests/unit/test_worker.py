"""The worker as a process: events, commands, cancelling at every moment, a parent that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.events import Event, Failed, Finished, Heartbeat, Message, Phase, Progress, decode
from backend.request import Request
from backend.worker import EventWriter, StopSwitch
from tests.unit.silhouette import small_request

ROOT = Path(__file__).resolve().parents[2]
SHORT = small_request(6, resolution=16).replace(device="cpu")
LONG = small_request(2000, resolution=16, checkpoint_every=1000).replace(device="cpu")
PATIENCE = 120.0
"""Seconds to wait for anything; a shared machine may be slow."""


class Process:
    """A worker with the stand-in guidance; collects its events with the times they came at."""

    def __init__(self, kind: str) -> None:
        script = str(ROOT / "tests" / "unit" / "stand_in_backend.py")
        self.process = subprocess.Popen(
            [sys.executable, script, kind, "worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "DREAMLATHE_THREADS": "1"},
        )
        self.lines: list[bytes] = []
        self.events: list[Event] = []
        self.times: list[float] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                event = decode(line.decode())
                if event is not None:
                    self.events.append(event)
                    self.times.append(time.monotonic())
                self._changed.notify_all()

    def send(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def start(self, request: Request, folder: Path) -> None:
        self.send(command="run", folder=str(folder), request=json.loads(request.to_json()))

    def wait_for(self, kind: type[Any], count: int = 1, **values: Any) -> Any:
        def found() -> list[Event]:
            return [
                e for e in self.events if isinstance(e, kind) and all(getattr(e, k) == v for k, v in values.items())
            ]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, PATIENCE), self.events[-5:]
            return found()[count - 1]

    def end(self) -> tuple[int, str]:
        """The exit code and what went to the standard error."""
        code = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        assert self.process.stderr is not None
        return code, self.process.stderr.read().decode()

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def start() -> Iterator[Any]:
    started: list[Process] = []

    def begin(kind: str) -> Process:
        started.append(Process(kind))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.wait()
        for pipe in (each.process.stdin, each.process.stdout, each.process.stderr):
            if pipe is not None and pipe is not each.process.stdin:
                pipe.close()


def test_runs_are_answered_one_after_another(start: Any, tmp_path: Path) -> None:
    worker = start("noisy")
    worker.start(SHORT, tmp_path / "one")
    assert worker.wait_for(Finished) == Finished(str(tmp_path / "one"))
    worker.send(command="run", folder=str(tmp_path / "two"), request={"prompt": ""})
    assert worker.wait_for(Failed).code == "request"
    worker.send(command="run", folder="", request=json.loads(SHORT.to_json()))
    assert "no folder" in worker.wait_for(Failed, 2).message
    worker.send(command="dance")
    worker.wait_for(Message, level="warning")
    worker.start(SHORT, tmp_path / "one")
    worker.wait_for(Finished, 2)
    worker.send(command="quit")
    code, errors = worker.end()
    assert code == 0
    # Nothing but events, although the libraries printed, one of them an event's very likeness.
    assert all(decode(line.decode()) is not None for line in worker.lines)
    assert errors.count("a library prints") == errors.count("a lie") == errors.count("a child prints") == 1
    assert (tmp_path / "one" / "mesh.glb").exists()
    assert not (tmp_path / "two").exists()


def test_heartbeats_come_while_libraries_and_kernels_load(start: Any, tmp_path: Path) -> None:
    worker = start("endless")
    worker.start(LONG, tmp_path)
    worker.wait_for(Progress)
    worker.wait_for(Heartbeat, 3)
    gaps = [b - a for a, b in zip(worker.times, worker.times[1:], strict=False)]
    # Promised are 2 s on an idle machine; this one may be shared by many.
    assert max(gaps) < 2.0 * max(1.0, os.getloadavg()[0])
    worker.send(command="quit")
    assert worker.end()[0] == 130


def test_pause_holds_and_cancel_keeps_the_folder(start: Any, tmp_path: Path) -> None:
    worker = start("endless")
    worker.start(LONG, tmp_path)
    worker.wait_for(Progress)
    worker.send(command="pause")
    worker.wait_for(Message, text="Paused.")
    time.sleep(1.0)
    before = len([event for event in worker.events if isinstance(event, Progress)])
    time.sleep(1.5)
    assert len([event for event in worker.events if isinstance(event, Progress)]) == before
    worker.send(command="resume")
    worker.wait_for(Progress, before + 1)
    worker.send(command="cancel")
    assert worker.wait_for(Failed).code == "cancelled"
    assert (tmp_path / "checkpoint.safetensors").exists()
    worker.start(LONG, tmp_path)
    text = worker.wait_for(Message, 3, level="info").text
    assert text.startswith("Going on from step ")
    assert int(text.split()[-1].rstrip(".")) > 0
    worker.send(command="quit")
    assert worker.end()[0] == 130


@pytest.mark.parametrize("kind", ["slow", "stumbling"])
@pytest.mark.parametrize("how", ["cancel", "quit", "end of input", "SIGINT", "SIGTERM"])
def test_a_model_that_loads_for_long_is_broken_off(start: Any, tmp_path: Path, how: str, kind: str) -> None:
    worker = start(kind)
    worker.start(SHORT, tmp_path / "job")
    worker.wait_for(Phase, name="model")
    began = time.monotonic()
    if how == "end of input":
        worker.close_input()
    elif how.startswith("SIG"):
        worker.process.send_signal(getattr(signal, how))
    else:
        worker.send(command=how)
    code, errors = worker.end()
    assert code == 130
    assert time.monotonic() - began < 20
    assert [event.code for event in worker.events if isinstance(event, Failed)] == ["cancelled"]
    assert errors == ""
    assert not (tmp_path / "job").exists()


def test_a_parent_that_dies_leaves_a_checkpoint(start: Any, tmp_path: Path) -> None:
    worker = start("endless")
    worker.start(LONG, tmp_path)
    worker.wait_for(Progress)
    worker.close_input()
    code, errors = worker.end()
    assert code == 130
    assert errors == ""
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_an_end_of_input_without_work_is_no_failure(start: Any) -> None:
    worker = start("plain")
    worker.close_input()
    assert worker.end() == (0, "")


def test_a_kill_leaves_a_folder_that_goes_on(start: Any, tmp_path: Path) -> None:
    request = small_request(40, resolution=16, checkpoint_every=5).replace(device="cpu")
    worker = start("endless")
    worker.start(request, tmp_path)
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "checkpoint.safetensors").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    worker.process.kill()
    worker.process.wait()
    again = start("plain")
    again.start(request, tmp_path)
    again.wait_for(Finished)
    assert any(isinstance(e, Message) and e.text.startswith("Going on") for e in again.events)
    again.send(command="quit")
    assert again.end() == (0, "")


def test_a_cancel_is_heard_even_where_nothing_can_be_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    monkeypatch.setenv("DREAMLATHE_GRACE", "1")
    worker = start("deaf")
    worker.start(SHORT, tmp_path / "job")
    worker.wait_for(Phase, name="model")
    worker.send(command="cancel")
    code, _ = worker.end()
    assert code == 130
    assert worker.wait_for(Failed).code == "cancelled"


def test_a_slow_reader_holds_nobody_up() -> None:
    read, write = os.pipe()
    writer = EventWriter(write)
    began = time.monotonic()
    for step in range(20_000):
        writer.send(Progress(step, 20_000, 1.0))
    writer.send(Finished("x" * 200_000))
    assert time.monotonic() - began < 5
    data = b""
    while not data.endswith(b'x"}\n'):
        data += os.read(read, 65536)
    writer.close()
    os.close(write)
    os.close(read)
    events = [decode(line) for line in data.decode().splitlines()]
    assert None not in events
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == sorted(steps)
    assert steps[-1] == 19_999
    assert len(steps) < 20_000


def test_a_reader_that_is_gone_is_noticed() -> None:
    read, write = os.pipe()
    os.close(read)
    gone = threading.Event()
    writer = EventWriter(write, gone.set)
    assert gone.wait(5)
    writer.send(Heartbeat())
    writer.close()
    os.close(write)


def test_the_switch_interrupts_only_phases_without_steps() -> None:
    switch = StopSwitch()
    switch.phase = "optimize"
    switch.interrupt()
    assert switch()
    assert not switch.broken_off
    switch = StopSwitch()
    switch.phase = "model"
    with pytest.raises(KeyboardInterrupt):
        switch.interrupt()
    assert switch.broken_off
    assert switch()


def test_a_held_switch_lets_a_stop_through() -> None:
    switch = StopSwitch()
    switch.hold(held=True)
    threading.Timer(0.2, switch.stop).start()
    began = time.monotonic()
    assert switch()
    assert time.monotonic() - began >= 0.15

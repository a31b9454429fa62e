"""The worker: a process that reads commands from its standard input and writes events to its standard output.

One JSON object a line each way. Commands::

    {"command": "run", "folder": "…", "request": {…}, "redo": false, "start_from": "…"}
    {"command": "cancel"}    {"command": "pause"}    {"command": "resume"}    {"command": "quit"}

``redo`` and ``start_from`` (the folder of a job with fewer steps, to go on from its end) may be left out. Runs wait for
each other; cancel ends all that were given so far. The end of the input means that whoever started the
worker is gone: it stops after a checkpoint, as it does for SIGINT and SIGTERM. Every run is answered by exactly one
``finished`` or ``failed``. The exit code is that of the last run: 0, 2 for what the user can put right, 130 for a stop,
1 for the rest.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import Cancelled, RequestError
from .events import Event, Failed, Finished, Heartbeat, Message, Phase, Progress, encode
from .job import describe, exit_code, run_job
from .request import Request

HEARTBEAT_SECONDS = 1.0
STEP_GRACE = 120.0
"""Seconds after a cancel in which a step may end and its checkpoint be written; a large model's step takes as long."""
GRACE = float(os.environ.get("DREAMLATHE_GRACE", "15"))
"""The same for what is neither a step nor can be interrupted; then the process is ended."""
LOST_GRACE = min(3.0, GRACE)
"""The same once a phase without steps was broken off: an import may have swallowed the exception."""
_INTERRUPTIBLE = {"environment", "model"}
"""Phases without steps: a stop interrupts them by an exception."""


class EventWriter:
    """Writes events to a file descriptor from a thread of its own, and heartbeats while there are none.

    A reader that is slow holds nobody up: progress that has been overtaken and heartbeats are left out meanwhile.
    ``on_broken`` is called once if the reader is gone.
    """

    def __init__(self, descriptor: int, on_broken: Callable[[], None] = lambda: None) -> None:
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="dreamlathe-events", daemon=True)
        self._thread.start()

    def send(self, event: Event) -> None:
        """Queue an event; never waits."""
        with self._changed:
            if self._waiting and isinstance(event, Progress) and isinstance(self._waiting[-1], Progress):
                self._waiting.pop()
            self._waiting.append(event)
            self._changed.notify()

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits, for ``timeout`` seconds at most."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _work(self) -> None:
        beat = time.monotonic() - HEARTBEAT_SECONDS
        try:
            while True:
                with self._changed:
                    if not self._waiting and not self._closing:
                        self._changed.wait(max(0.0, beat + HEARTBEAT_SECONDS - time.monotonic()))
                    event = self._waiting.popleft() if self._waiting else None
                    if event is None and self._closing:
                        return
                if event is not None:
                    self._write(event)
                if time.monotonic() >= beat + HEARTBEAT_SECONDS:
                    beat = time.monotonic()
                    self._write(Heartbeat())
        except OSError:
            self._on_broken()

    def _write(self, event: Event) -> None:
        data = f"{encode(event)}\n".encode()
        while data:
            data = data[os.write(self._descriptor, data) :]


class StopSwitch:
    """How a run is stopped and held, from any thread and by signals.

    Call it, as ``should_stop``, at every step: True once a stop was asked for; waits while the run is held. In phases
    without steps (``phase`` says which phase it is) :meth:`interrupt` breaks off by KeyboardInterrupt, and
    ``broken_off`` says so.
    """

    def __init__(self) -> None:
        self.phase = ""
        self.broken_off = False
        self._stop = threading.Event()
        self._held = threading.Event()

    def __call__(self) -> bool:
        """Whether a stop was asked for; waits while the run is held."""
        while self._held.is_set() and not self._stop.is_set():
            time.sleep(0.05)
        return self._stop.is_set()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for; never waits."""
        return self._stop.is_set()

    @property
    def interruptible(self) -> bool:
        """Whether the phase has no steps, so that :meth:`interrupt` breaks it off."""
        return self.phase in _INTERRUPTIBLE

    def stop(self) -> None:
        """Ask for the stop."""
        self._stop.set()

    def hold(self, *, held: bool) -> None:
        """Hold the run at its next step, or let it go on."""
        (self._held.set if held else self._held.clear)()

    def interrupt(self) -> None:
        """For signal handlers, in the main thread: ask for the stop, and break off a phase that has no steps."""
        self.stop()
        if self.interruptible:
            self.phase = ""
            self.broken_off = True
            raise KeyboardInterrupt


@dataclass(eq=False)
class _Run:
    """A command to run a request."""

    request: Any
    folder: Any
    redo: bool
    start_from: Any = None
    switch: StopSwitch = field(default_factory=StopSwitch)


def main() -> int:
    """Serve commands until told to quit; returns the exit code."""
    with _claimed_output() as descriptor:
        return _Worker(descriptor).serve()


@contextlib.contextmanager
def _claimed_output() -> Generator[int]:
    """A private way to the standard output; what anybody else prints goes to the standard error."""
    sys.stdout.flush()
    descriptor = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    yield descriptor


class _Worker:
    def __init__(self, descriptor: int) -> None:
        self._runs: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._open: list[_Run] = []
        self._current: _Run | None = None
        self._quitting = False
        self._pokes = 0
        """Signals from :meth:`_see_to_it` that have not been heard yet."""
        self._code = 0
        self._writer = EventWriter(descriptor, self._leave)

    def serve(self) -> int:
        """Run what is asked for, one after another."""
        self._listen_to_signals()
        threading.Thread(target=self._read, name="dreamlathe-commands", daemon=True).start()
        while (run := self._next()) is not None:
            self._serve_run(run)
        self._writer.close()
        return self._code

    def _next(self) -> _Run | None:
        # With a timeout, because a wait without one is not broken off by signals on Windows.
        while True:
            with contextlib.suppress(queue.Empty):
                return self._runs.get(timeout=0.2)

    def _serve_run(self, run: _Run) -> None:
        self._current = run
        try:
            answer = self._answer(run)
        except KeyboardInterrupt:  # between two phases
            answer = describe(Cancelled("Stopped."))
        run.switch.phase = ""
        self._current = None
        with self._lock:
            self._open.remove(run)
        self._code = exit_code(answer.code) if isinstance(answer, Failed) else 0
        self._writer.send(answer)
        if run.switch.broken_off:  # half-imported libraries serve nobody
            self._leave()

    def _answer(self, run: _Run) -> Failed | Finished:
        def report(event: Event) -> None:
            if isinstance(event, Phase):
                run.switch.phase = event.name
            if not isinstance(event, Finished):
                self._writer.send(event)

        try:
            if run.switch():
                raise Cancelled("Stopped before it began.")
            if not isinstance(run.folder, str) or not run.folder.strip():
                raise RequestError("The run has no folder.", "Name one.")
            start_from = Path(run.start_from) if isinstance(run.start_from, str) else None
            request, folder = Request.from_dict(run.request), Path(run.folder)
            folder = run_job(request, folder, report, run.switch, redo=run.redo, start_from=start_from)
            return Finished(str(folder))
        except Exception as error:  # noqa: BLE001  (whatever happens, the answer is an event)
            if run.switch.broken_off:  # an import may swallow the exception, and stumble over what it left undone
                return describe(Cancelled("Stopped."))
            return describe(error)

    def _read(self) -> None:
        """Commands from the standard input, in a thread; not through sys.stdin, whose lock would hold up the exit."""
        rest = b""
        with contextlib.suppress(OSError):
            while data := os.read(0, 65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        self._command(line)
        if rest.strip():
            self._command(rest)
        self._leave()

    def _command(self, line: bytes) -> None:
        command: dict[str, Any] = {}
        with contextlib.suppress(ValueError, RecursionError):
            parsed = json.loads(line)
            command = parsed if isinstance(parsed, dict) else {}
        name = command.get("command")
        if name == "run":
            redo, start_from = command.get("redo") is True, command.get("start_from")
            self._enqueue(_Run(command.get("request"), command.get("folder"), redo, start_from))
        elif name == "cancel":
            self._cancel()
        elif name in ("pause", "resume"):
            self._hold(held=name == "pause")
        elif name == "quit":
            self._leave()
        else:
            shown = line[:80].decode(errors="replace")
            self._writer.send(Message("warning", f"Not a command: {shown!r}."))

    def _enqueue(self, run: _Run) -> None:
        with self._lock:
            self._open.append(run)
        self._runs.put(run)

    def _hold(self, *, held: bool) -> None:
        with self._lock:
            for run in self._open:
                run.switch.hold(held=held)
        self._writer.send(Message("info", "Paused." if held else "Going on."))

    def _cancel(self) -> None:
        """Stop every run that was given; from any thread."""
        with self._lock:
            runs = list(self._open)
            for run in runs:
                run.switch.stop()
        if runs:
            threading.Thread(target=self._see_to_it, args=[runs], name="dreamlathe-stop", daemon=True).start()

    def _see_to_it(self, runs: list[_Run]) -> None:
        """Break off what can be, again and again: a signal that comes just before a long call waits for its end.

        End the process if that is of no use; a job's folder is whole at every moment.
        """
        began = time.monotonic()
        while any(run in self._open for run in runs):
            current = self._current
            if current is not None and current.switch.interruptible:
                self._pokes += 1
                _interrupt_main_thread()
            stepping = current is not None and current.switch.phase == "optimize"
            lost = current is not None and current.switch.broken_off
            if time.monotonic() - began > (STEP_GRACE if stepping else LOST_GRACE if lost else GRACE):
                self._writer.send(describe(Cancelled("Stopped; the worker was ended, because it did not answer.")))
                self._writer.close(2.0)
                os._exit(exit_code(Cancelled.code))
            time.sleep(0.5)
        self._pokes = 0

    def _leave(self) -> None:
        """Cancel and quit."""
        with self._lock:
            known, self._quitting = self._quitting, True
        if not known:
            self._runs.put(None)
            self._cancel()

    def _listen_to_signals(self) -> None:
        """Hear SIGINT and SIGTERM in a thread: the main one may be in a call that ends long after.

        The system's handler writes each signal's number to a socket at once; Python's own runs when the call has ended.
        """
        hear, tell = socket.socketpair()
        tell.setblocking(False)
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._break_off)

        def work() -> None:
            with tell:
                while numbers := hear.recv(64):
                    for number in numbers:
                        if number == signal.SIGINT and self._pokes > 0:
                            self._pokes -= 1
                        elif number in (signal.SIGINT, signal.SIGTERM):
                            self._leave()

        threading.Thread(target=work, name="dreamlathe-signals", daemon=True).start()

    def _break_off(self, *_: object) -> None:
        """Python's signal handler, in the main thread."""
        if self._current is not None and self._current.switch.stopping:
            self._current.switch.interrupt()


def _interrupt_main_thread() -> None:
    """SIGINT for the main thread; where the system can, one that also ends its sleep."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()

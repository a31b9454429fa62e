"""The worker process as Blender's side sees it: commands go in, events come out, nothing ever blocks."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..backend.errors import SetupError
from ..backend.events import Event, decode
from .pipes import LineReader, Writer

_TAIL = 8192


class WorkerClient:
    """One worker process.

    ``command`` is the argument list, ``environment`` the whole environment of the process, ``folder`` where it starts.
    Raises SetupError when the process cannot be started. The process and its children are killed when Blender quits.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                list(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                **_own_group(),
            )
        except OSError as error:
            self._errors.close()
            reason = error.strerror or str(error)
            raise SetupError(f"{command[0]} does not start ({reason}).", "Choose another Python.") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._output = self._process.stdout
        self._reader = LineReader(self._output)
        self._writer = Writer(self._process.stdin)
        self._heard = time.monotonic()
        _alive.add(self)

    @property
    def silence(self) -> float:
        """Seconds since the worker last wrote anything."""
        return time.monotonic() - self._heard

    @property
    def exit_code(self) -> int | None:
        """None while the process runs; negative numbers are signals."""
        return self._process.poll()

    @property
    def drained(self) -> bool:
        """The process is gone and everything it wrote was read."""
        return self.exit_code is not None and self._reader.at_end

    def send(self, command: Mapping[str, Any]) -> None:
        """Send one command as a line of JSON."""
        self._writer.write(json.dumps(command, allow_nan=False).encode() + b"\n")

    def poll(self) -> list[Event]:
        """The events since the last call. Lines that are no events count as a sign of life only."""
        self._writer.flush()
        lines = self._reader.lines()
        if lines:
            self._heard = time.monotonic()
        return [event for event in map(decode, lines) if event is not None]

    def quit(self) -> None:
        """Ask the process to end, by word and by closing its input."""
        self.send({"command": "quit"})
        self._writer.close()

    def kill(self) -> None:
        """End the process and its children now, and free its pipes."""
        if self.exit_code is None:
            with contextlib.suppress(OSError):
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self.close()

    def close(self) -> None:
        """Free the pipes of a process that is gone."""
        self._writer.close()
        self._output.close()
        self._errors.close()
        _alive.discard(self)

    def last_words(self) -> str:
        """The last line the process wrote to its standard error; a Python traceback ends with what went wrong."""
        if self._errors.closed:
            return ""
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, end - _TAIL))
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


_alive: weakref.WeakSet[WorkerClient] = weakref.WeakSet()


def kill_all(patience: float = 2.0) -> None:
    """End every worker that still runs: asked to go, it leaves a checkpoint; who does not go in time is killed."""
    clients = list(_alive)
    for client in clients:
        client.quit()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(client.exit_code is None for client in clients):
        time.sleep(0.02)
    for client in clients:
        client.kill()


atexit.register(kill_all)


def _own_group() -> dict[str, Any]:
    """A process group of its own, so that Ctrl-C in a terminal reaches Blender alone, and kills reach the children."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}

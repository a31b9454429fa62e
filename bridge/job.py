"""One job as a machine that is stepped: from a timer when Blender has a window, in a loop when it has none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ..backend.errors import Cancelled, DreamlatheError, SetupError
from ..backend.events import Event, Failed, Finished, Message, Phase, Preview, Progress
from ..backend.request import Request
from .worker_client import WorkerClient

State = Literal["running", "pausing", "cancelling", "paused", "finished", "failed", "cancelled"]


class Limits(NamedTuple):
    """How long to be patient, in seconds."""

    quiet: float = 20.0
    """Silence after which the person is told; heartbeats come every two seconds."""
    silent: float = 180.0
    """Silence after which the worker is taken for dead."""
    cancel: float = 30.0
    """From a cancel to a kill."""
    pause: float = 150.0
    """From a pause to a kill; a large model's step and its checkpoint take a while."""
    leave: float = 10.0
    """From the last event to a kill."""


@dataclass
class Status:
    """What is known of a job; panels and progress bars read it."""

    state: State = "running"
    phase: str = "starting"
    message: str = "Starting the worker"
    step: int = 0
    total: int = 0
    seconds_left: float = 0.0
    loss: float = 0.0
    preview: str = ""
    warnings: list[str] = field(default_factory=list[str])
    error: Failed | None = None
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def active(self) -> bool:
        """The worker is still there."""
        return self.state in ("running", "pausing", "cancelling")

    @property
    def factor(self) -> float:
        """Share of the present phase that is done, 0 to 1."""
        return min(max(self.step / self.total, 0.0), 1.0) if self.total > 0 else 0.0

    @property
    def seconds(self) -> float:
        """Time taken so far, or in all."""
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def failure(self) -> str:
        """What went wrong and what to do, in one line; empty while nothing did."""
        return f"{self.error.message} {self.error.hint}".strip() if self.error is not None else ""

    @property
    def steps(self) -> str:
        """One short line for a progress bar."""
        if self.state in ("pausing", "cancelling"):
            return self.state.capitalize()
        if self.total <= 0:
            return self.message or self.phase.capitalize()
        return f"{self.phase.capitalize()} {self.step}/{self.total}"

    @property
    def text(self) -> str:
        """The same, and how long it will take."""
        left = f" · {duration(self.seconds_left)} left" if self.seconds_left > 0 and self.total > 0 else ""
        return self.steps + (left if self.state == "running" else "")


class Job:
    """Runs one request in one worker. :meth:`step` never blocks and never raises."""

    def __init__(
        self,
        request: Request,
        folder: Path,
        worker: WorkerClient,
        *,
        redo: bool = False,
        start_from: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.request = request
        self.folder = folder
        self.status = Status(preview=_earlier_preview(folder, start_from))
        self.listener: Callable[[Event], None] = lambda _: None
        """Hears all that the worker says, and how it ends."""
        self._worker = worker
        self._limits = limits or Limits()
        self._deadline: float | None = None
        self._outcome: Finished | Failed | None = None
        content = json.loads(request.to_json())
        command = {"command": "run", "folder": str(folder), "request": content, "redo": redo}
        worker.send(command if start_from is None else {**command, "start_from": str(start_from)})

    def step(self) -> bool:
        """Read what the worker said, and watch it; False once the job has ended and the process is gone."""
        if not self.status.active:
            return False
        gone = self._worker.exit_code is not None  # asked before reading: what it wrote before it went is then read
        for event in self._worker.poll():
            self._hear(event)
        overdue = self._deadline is not None and time.monotonic() > self._deadline
        if overdue or (gone and self._worker.drained):
            self._end(self._outcome or self._death())
        elif gone and self._deadline is None:  # a child of the worker still holds the pipe
            self._deadline = time.monotonic() + self._limits.leave
        elif self._outcome is None:
            self._watch_silence()
        return self.status.active

    def cancel(self) -> None:
        """Ask the worker to stop; it is killed when it does not within the limit, or when asked twice."""
        if not self.status.active:
            return
        if self.status.state == "cancelling":
            self._deadline = time.monotonic()
        elif self.status.state == "pausing":  # the worker is asked to stop already
            self.status.state = "cancelling"
            self._deadline = time.monotonic() + self._limits.cancel
        elif self._outcome is None:
            self.status.state = "cancelling"
            self._deadline = time.monotonic() + self._limits.cancel
            self._worker.send({"command": "cancel"})

    def pause(self) -> None:
        """Ask the worker to stop after a checkpoint and to go, with all its memory; the state is then paused."""
        if self.status.state == "running" and self._outcome is None:
            self.status.state = "pausing"
            self._deadline = time.monotonic() + self._limits.pause
            self._worker.send({"command": "cancel"})

    def kill(self) -> None:
        """End it now."""
        if self.status.active:
            self.status.state = "cancelling"
            self._end(self._outcome or self._death())

    def fail(self, error: DreamlatheError) -> None:
        """Turn a finished job into a failed one: its result could not be used."""
        self.status.state = "failed"
        self.status.error = Failed(error.code, error.message, error.hint)

    def _hear(self, event: Event) -> None:
        status = self.status
        if not isinstance(event, Finished | Failed):
            self.listener(event)
        if isinstance(event, Phase):
            status.phase, status.message = event.name, event.message
            status.step = status.total = 0
        elif isinstance(event, Progress):
            status.step, status.total = event.step, event.total
            status.seconds_left, status.loss = event.seconds_left, event.loss
        elif isinstance(event, Preview):
            status.preview = event.path
        elif isinstance(event, Message):
            if event.level == "warning":
                status.warnings.append(event.text)
            status.message = event.text
        elif isinstance(event, Finished | Failed) and self._outcome is None:
            self._outcome = event
            self._deadline = time.monotonic() + self._limits.leave
            self._worker.quit()

    def _watch_silence(self) -> None:
        silence = self._worker.silence
        if silence > self._limits.silent:
            text = f"The worker has been silent for {duration(silence)} and was stopped."
            self._end(Failed(SetupError.code, text, "Run the job again: it resumes from its last checkpoint."))
        elif silence > self._limits.quiet:
            self.status.message = f"No sign of life for {duration(silence)}"

    def _death(self) -> Failed:
        """What to say of a process that ended without a word."""
        if self.status.state in ("pausing", "cancelling"):
            return Failed(Cancelled.code, "Cancelled.", "The job's folder is kept.")
        code = self._worker.exit_code
        if code in (-9, 137):
            return Failed(SetupError.code, "The worker was killed.", "Memory may be short: choose a smaller preset.")
        words = self._worker.last_words()
        return Failed(
            SetupError.code,
            f"The worker ended early with exit code {code}{f' ({words})' if words else ''}.",
            "Test the backend's Python in the extension's preferences.",
        )

    def _end(self, outcome: Finished | Failed) -> None:
        status = self.status
        if isinstance(outcome, Finished):
            self.folder = Path(outcome.folder)
            status.state, status.message = "finished", "Done"
        else:
            stopped = "paused" if status.state == "pausing" else "cancelled"
            status.state = stopped if outcome.code == Cancelled.code else "failed"
            status.error, status.message = outcome, outcome.message
        status.ended = time.monotonic()
        self._worker.kill()
        self.listener(outcome)


def _earlier_preview(*folders: Path | None) -> str:
    """What an earlier run has shown last: there until the worker has something newer."""
    shown = (folder / "preview.png" for folder in folders if folder is not None)
    return next((str(path) for path in shown if path.is_file()), "")


def run(job: Job, on_step: Callable[[Status], None] = lambda _: None, interval: float = 0.05) -> Status:
    """Step the job until it ends; ``on_step`` is called after each step."""
    while job.step():
        on_step(job.status)
        time.sleep(interval)
    on_step(job.status)
    return job.status


def duration(seconds: float) -> str:
    """A length of time for people: 45 s, 4 min, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

"""A job's log.txt, for people, and events.jsonl, for programs. Standard library only."""

from __future__ import annotations

import contextlib
import datetime as dt
import platform
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Self

from .errors import DreamlatheError
from .events import Event, Heartbeat, Message, Phase, Preview, Progress, encode

_LOGGED_STEPS = 50
"""Steps between two progress lines of the log."""


class JobLog:
    """Writes every event to log.txt and events.jsonl and hands it on; a log that cannot be written stops nothing."""

    def __init__(self, folder: Path, report: Callable[[Event], None]) -> None:
        self._log = folder / "log.txt"
        self._events = folder / "events.jsonl"
        self._hand_on = report
        self._last_step = -_LOGGED_STEPS
        self._steps = False

    def __enter__(self) -> Self:
        self._write(f"dreamlathe on {platform.platform()}, Python {platform.python_version()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._write(f"{type(error).__name__}: {error}")
        if not isinstance(error, DreamlatheError | KeyboardInterrupt):
            self._write("".join(traceback.format_exception(error)))

    def report(self, event: Event) -> None:
        """Log an event and hand it on."""
        self._hand_on(event)
        self.record(event)

    def record(self, *events: Event) -> None:
        """Log events."""
        for event in events:
            if isinstance(event, Phase):
                self._steps = event.name == "optimize"
            if isinstance(event, Progress):
                overdue = abs(event.step - self._last_step) >= _LOGGED_STEPS or event.step == event.total
                if not (self._steps and overdue):
                    continue
                self._last_step = event.step
            if not isinstance(event, Heartbeat):
                self._write(_line(event), encode(event))

    def _write(self, line: str, event: str = "") -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"{now} {line}\n")
            if event:
                with self._events.open("a", encoding="utf-8") as events:
                    events.write(f"{event}\n")


def _line(event: Event) -> str:
    """An event as the log shows it."""
    if isinstance(event, Phase):
        return f"{event.name}: {event.message}" if event.message else event.name
    if isinstance(event, Progress):
        return f"step {event.step} of {event.total}, loss {event.loss:.4g}, {event.seconds_left:.0f} s left"
    if isinstance(event, Message):
        return f"{event.level}: {event.text}"
    if isinstance(event, Preview):
        return f"preview at step {event.step}"
    return event.event

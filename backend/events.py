"""The JSON lines a worker writes to its standard output, one event each. Standard library only; both sides read it.

Events are named tuples, because of Blender's start-up: as a dataclass each would take half a millisecond of it.
"""

from __future__ import annotations

import functools
import json
import math
import typing
from typing import Any, NamedTuple, TypeAlias


class Phase(NamedTuple):
    """The job entered a phase: environment, model, optimize, mesh, bake, done."""

    event = "phase"
    name: str
    message: str = ""


class Progress(NamedTuple):
    """Steps done in the current phase."""

    event = "progress"
    step: int
    total: int
    seconds_left: float
    """Estimate for the whole job."""
    loss: float = 0.0


class Preview(NamedTuple):
    """A new preview picture lies at ``path``."""

    event = "preview"
    path: str
    step: int


class Heartbeat(NamedTuple):
    """The worker lives; sent at least every two seconds, model loading included."""

    event = "heartbeat"


class Message(NamedTuple):
    """A line for the log and the person: level is info or warning."""

    event = "message"
    level: str
    text: str


class Failed(NamedTuple):
    """The job ended with an error; ``code`` is that of :mod:`.errors`."""

    event = "failed"
    code: str
    message: str
    hint: str = ""


class Finished(NamedTuple):
    """The job is done; ``folder`` holds mesh.glb, turntable.png, request.json, metrics.json."""

    event = "finished"
    folder: str


Event: TypeAlias = Phase | Progress | Preview | Heartbeat | Message | Failed | Finished
_KINDS: dict[str, type[Any]] = {k.event: k for k in (Phase, Progress, Preview, Heartbeat, Message, Failed, Finished)}


def encode(event: Event) -> str:
    """One line of JSON (ASCII), without the newline; a float that JSON cannot hold becomes 0."""
    values = event._asdict()
    finite = {k: 0.0 if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps({"event": event.event, **finite}, allow_nan=False)


def decode(line: str) -> Event | None:
    """The event of a line; None for a line that is none (a library's print, half a line, a value of another type)."""
    try:
        data = json.loads(line)
        kind = _KINDS[data.pop("event")]
        event = kind(**data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    ok = all(isinstance(value, wanted) for value, wanted in zip(event, _types(kind), strict=True))
    return event if ok else None


@functools.cache
def _types(kind: type[Any]) -> list[Any]:
    """What the fields of an event may hold."""
    hints = typing.get_type_hints(kind)
    return [(int, float) if hints[name] is float else hints[name] for name in kind._fields]

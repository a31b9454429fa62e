"""The JSON lines a worker writes to its standard output, one event each. Standard library only; both sides read it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True)
class Phase:
    """The job entered a phase: environment, model, optimize, mesh, bake, done."""

    event: ClassVar[str] = "phase"
    name: str
    message: str = ""


@dataclass(frozen=True)
class Progress:
    """Steps done in the current phase."""

    event: ClassVar[str] = "progress"
    step: int
    total: int
    seconds_left: float
    """Estimate for the whole job."""
    loss: float = 0.0


@dataclass(frozen=True)
class Preview:
    """A new preview picture lies at ``path``."""

    event: ClassVar[str] = "preview"
    path: str
    step: int


@dataclass(frozen=True)
class Heartbeat:
    """The worker lives; sent at least every two seconds, model loading included."""

    event: ClassVar[str] = "heartbeat"


@dataclass(frozen=True)
class Message:
    """A line for the log and the person: level is info or warning."""

    event: ClassVar[str] = "message"
    level: str
    text: str


@dataclass(frozen=True)
class Failed:
    """The job ended with an error; ``code`` is that of :mod:`.errors`."""

    event: ClassVar[str] = "failed"
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Finished:
    """The job is done; ``folder`` holds mesh.glb, turntable.png, request.json, metrics.json."""

    event: ClassVar[str] = "finished"
    folder: str


Event: TypeAlias = Phase | Progress | Preview | Heartbeat | Message | Failed | Finished
_KINDS: dict[str, type[Any]] = {k.event: k for k in (Phase, Progress, Preview, Heartbeat, Message, Failed, Finished)}


def encode(event: Event) -> str:
    """One line of JSON (ASCII), without the newline; a float that JSON cannot hold becomes 0."""
    values = dataclasses.asdict(event)
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
    types = {"str": str, "int": int, "float": (int, float)}
    ok = all(isinstance(getattr(event, item.name), types[str(item.type)]) for item in dataclasses.fields(kind))
    return event if ok else None

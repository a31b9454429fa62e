"""How long Blender is held up by us: every tick of the timer, every draw and every handler is timed.

With ``DREAMLATHE_FRAME_LOG`` set to a file, each of them that took a millisecond or more is written there.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

VARIABLE = "DREAMLATHE_FRAME_LOG"
LIMIT = 0.1
"""What a person does not notice, in seconds."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Tally:
    """The calls of one function."""

    calls: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    longest_work: float = 0.0
    """The same without what other programs took of the processor meanwhile."""


_tallies: dict[str, Tally] = {}


def timed(name: str) -> Callable[[Function], Function]:
    """A decorator: the function's calls count under ``name``."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **values: Any) -> Any:
            begin, work = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **values)
            finally:
                note(name, time.perf_counter() - begin, time.thread_time() - work)

        return wrapper  # pyright: ignore[reportReturnType]

    return decorate


def note(name: str, seconds: float, work: float) -> None:
    """Count one call: the time it took, and the part of it that this thread ran."""
    tally = _tallies.setdefault(name, Tally())
    tally.calls += 1
    tally.seconds += seconds
    tally.longest = max(tally.longest, seconds)
    tally.longest_work = max(tally.longest_work, work)
    path = os.environ.get(VARIABLE)
    if path and seconds >= 1e-3:
        with open(path, "a", encoding="utf-8") as log:  # noqa: PTH123 - called often
            log.write(f"{time.time():.3f} {name} {seconds * 1e3:.1f} ms ({work * 1e3:.1f} ms of work)\n")


def longest() -> tuple[str, float]:
    """What held Blender up for the longest time, and for how many seconds."""
    return max(
        ((name, tally.longest) for name, tally in _tallies.items()), key=lambda entry: entry[1], default=("", 0.0)
    )


def tallies() -> dict[str, Tally]:
    """All that was counted, by name."""
    return dict(_tallies)


def reset() -> None:
    """Begin to count anew."""
    _tallies.clear()

"""What is measured: a case is an action, how often it is timed, and what is said of it."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Action = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One measurement."""

    name: str
    """What was done, such as "encode forward"."""
    engine: str
    """By what."""
    size: dict[str, Any]
    """At which size: numbers by name."""
    median_s: float
    """The median of the runs, in seconds of wall time."""
    runs: int
    peak_mib: float | None = None
    """The most main memory above what the process had before the case, in MiB; None where it was not measured."""
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    """What else was found: shares, qualities, exponents."""
    cpu_s: float | None = None
    """The median of the processor's seconds, all threads together: on a machine that has other work beside, what the
    wall's time would hide."""

    @property
    def key(self) -> tuple[str, str, str]:
        """The same in every file for the same measurement."""
        return self.name, self.engine, shown_size(self.size)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; what else was found is left out where there is nothing."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k != "more" or v}


@dataclass(frozen=True)
class Case:
    """Something to time, as plain values, so that another process can do it.

    ``build`` names a function as "module:function". Called with ``arguments`` it returns rows' actions by their names;
    the actions are called in turn, each after those before it, ``runs`` times.
    """

    build: str
    arguments: dict[str, Any]
    engine: str
    size: dict[str, Any]
    runs: int
    warm: int = 1
    """Runs before those that count."""


class Stopwatch:
    """Times of runs: wall and processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def run(self, action: Action, *, counts: bool = True) -> None:
        """Time a run."""
        started, busy = time.perf_counter(), time.process_time()
        action()
        if counts:
            self.wall.append(time.perf_counter() - started)
            self.cpu.append(time.process_time() - busy)

    def row(self, name: str, engine: str, size: dict[str, Any], peak: float | None, more: dict[str, Any]) -> Row:
        """The medians as a row."""
        medians = statistics.median(self.wall), statistics.median(self.cpu)
        return Row(name, engine, size, medians[0], len(self.wall), peak, more, medians[1])


def gained(before: int | None) -> float | None:
    """The peak of memory since ``before``, in MiB."""
    after = peak_bytes()
    return None if before is None or after is None else round((after - before) / 2**20, 1)


def measure(case: Case) -> list[Row]:
    """The case's rows, in this process; memory is what it gains over the process' peak so far."""
    module, _, name = case.build.partition(":")
    actions: dict[str, Action] = getattr(importlib.import_module(module), name)(**case.arguments)
    gc.collect()
    before = peak_bytes()
    times = {label: Stopwatch() for label in actions}
    for run in range(case.warm + case.runs):
        for label, action in actions.items():
            times[label].run(action, counts=run >= case.warm)
    return [each.row(label, case.engine, case.size, gained(before), {}) for label, each in times.items()]


def measure_apart(case: Case) -> list[Row]:
    """The case's rows from a fresh process, whose peak of memory is the case's own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=prepare) as pool:
        return pool.submit(measure, case).result()


def prepare() -> None:
    """Threads as a job sets them; ahead of every measurement, in every process."""
    from backend.threads import configure, prepare_environment

    prepare_environment()
    import torch

    configure(torch.device("cpu"))


def peak_bytes() -> int | None:
    """The most main memory this process has had, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def shown_size(size: dict[str, Any]) -> str:
    """A size in words, such as "points 262144, levels 16"."""
    return ", ".join(f"{name} {value}" for name, value in size.items())


ROOT = Path(__file__).resolve().parents[2]

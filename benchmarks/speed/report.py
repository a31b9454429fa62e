"""The JSON file, the table, and the comparison of two files."""

from __future__ import annotations

import datetime as dt
import os
import platform
from pathlib import Path
from typing import Any

from backend.devices import described
from backend.threads import versions

from .cases import Row, shown_size


def document(rows: list[Row]) -> dict[str, Any]:
    """Machine, versions and rows, as plain JSON."""
    import torch

    machine = {
        **described(torch.device("cpu")),
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    machine.pop("memory_free", None)
    found = versions()
    machine["system"] = found.pop("system")
    day = dt.datetime.now(dt.UTC).date().isoformat()
    return {"date": day, "machine": machine, "versions": found, "rows": [row.as_json() for row in rows]}


def processor() -> str:
    """The processor's name, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def read_rows(found: dict[str, Any]) -> list[Row]:
    """The rows of a document."""
    return [Row(**row) for row in found["rows"]]


def table(rows: list[Row]) -> str:
    """A line a row, in Markdown."""
    head = ("what", "engine", "size", "median", "processor", "runs", "peak MiB", "")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        peak = "" if row.peak_mib is None else f"{row.peak_mib:.0f}"
        cpu = "" if row.cpu_s is None else shown_seconds(row.cpu_s)
        lines.append(
            f"| {row.name} | {row.engine} | {shown_size(row.size)} | {shown_seconds(row.median_s)} | {cpu} "
            f"| {row.runs} | {peak} | {shown_more(row.more)} |"
        )
    return "\n".join(lines)


def comparison(rows: list[Row], others: list[Row]) -> str:
    """A line for each row that both have: what it took there and here, and how many times faster it is here."""
    before = {row.key: row for row in others}
    lines = ["| what | engine | size | there | here | times faster |", "|---|---|---|---|---|---|"]
    for row in rows:
        other = before.get(row.key)
        if other is not None:
            lines.append(
                f"| {row.name} | {row.engine} | {shown_size(row.size)} | {shown_seconds(other.median_s)} "
                f"| {shown_seconds(row.median_s)} | {other.median_s / row.median_s:.2f} |"
            )
    return "\n".join(lines)


def shown_seconds(seconds: float) -> str:
    """With three digits, in ms below a second."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def shown_more(more: dict[str, Any]) -> str:
    """What else was found, in words; shares in percent."""
    parts: list[str] = []
    for name, value in more.items():
        if isinstance(value, dict):
            each: dict[str, Any] = value
            inner = ", ".join(f"{k} {v:.0%}" if name == "shares" else f"{k} {v:.3g}" for k, v in each.items())
            parts.append(inner)
        elif name == "outside_networks":
            parts.append(f"outside the networks {value:.0%}")
        else:
            parts.append(f"{name} {value}")
    return "; ".join(parts)

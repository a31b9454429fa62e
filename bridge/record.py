"""What Blender's side notes in a job's folder: the request, where the result belongs, how it ended. No bpy in here.

With it a job that Blender did not live to see the end of is found again, and a result comes back to its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..backend.errors import DreamlatheError
from ..backend.request import Request

FILE = "job.json"
Rows = tuple[tuple[float, ...], ...]
IDENTITY: Rows = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))


class Placement(NamedTuple):
    """Where a result belongs."""

    matrix: Rows = IDENTITY
    """The rig's, from the ball's space to the world."""
    scene: str = ""
    """The scene's name, and"""
    file: str = ""
    """the .blend it is in; empty if that was never saved."""
    size: float = 0.0
    """Longest side in the world, in its units; 0: as large as the rig says."""
    collection: str = ""
    """The collection it goes into; empty: the one of all results."""
    asset: bool = False
    """Mark it as an asset."""


@dataclass(frozen=True)
class Record:
    """A job as Blender's side knows it."""

    request: Request
    placement: Placement = field(default_factory=Placement)
    created: float = field(default_factory=time.time)
    """Seconds since 1970."""
    ended: str = ""
    """cancelled, or what went wrong; empty while it is not over, and when it went well."""
    start_from: str = ""
    """The folder of the job it goes on from, if it does."""


def write_record(folder: Path, record: Record) -> None:
    """Note it, whole or not at all. Raises OSError."""
    content = {
        "request": json.loads(record.request.to_json()),
        "placement": record.placement._asdict(),
        "created": record.created,
        "ended": record.ended,
        "start_from": record.start_from,
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FILE}.{os.getpid()}"
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(folder / FILE)


def read_record(folder: Path) -> Record | None:
    """What was noted; None if nothing was, or nothing that can be read."""
    try:
        data: Any = json.loads((folder / FILE).read_text(encoding="utf-8"))
        placement = Placement(**data["placement"])
        rows = tuple(tuple(float(number) for number in row) for row in placement.matrix)
        if [len(row) for row in rows] != [4] * 4:
            return None
        placement = placement._replace(matrix=rows)
        request, created = Request.from_dict(data["request"]), float(data["created"])
        return Record(request, placement, created, str(data["ended"]), str(data["start_from"]))
    except (OSError, ValueError, KeyError, TypeError, DreamlatheError):
        return None


def note_end(folder: Path, ended: str) -> None:
    """Add to the record how the job ended; a folder without a record stays without."""
    record = read_record(folder)
    if record is not None:
        with contextlib.suppress(OSError):
            write_record(folder, dataclasses.replace(record, ended=ended))


def drop_record(folder: Path) -> None:
    """Take the record back, and the folder if nothing else is in it: a job that never began."""
    with contextlib.suppress(OSError):
        (folder / FILE).unlink()
        folder.rmdir()

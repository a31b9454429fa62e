"""The jobs of the past: their folders, read once and again only when they have changed. No bpy in here."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..backend.errors import DreamlatheError, OutputError
from ..backend.reference import resolved
from ..backend.request import Request
from . import record

State = Literal["finished", "unfinished", "cancelled", "failed"]

CHECKPOINTS = ("checkpoint.safetensors", "checkpoint.previous.safetensors")
_PICTURES = ("thumbnail.png", "preview.png", "turntable.png")
_OWN = (
    *("request.json", "metrics.json", "log.txt", "events.jsonl", ".lock", "placement.json", record.FILE),
    *("mesh.glb", "mesh.obj", "mesh.mtl", "mesh.png", "turntable.png", "turntable.webp", "preview.png"),
    *("thumbnail.png", *CHECKPOINTS),
)
_OWN_FOLDERS = (".partial", "references")
"""What a job writes; nothing else is ever deleted."""


class Past(NamedTuple):
    """A job's folder as the list shows it."""

    folder: Path
    request: Request
    state: State
    created: float
    seconds: float
    """What it took, 0 if it is not finished."""
    note: str
    """What went wrong."""
    picture: Path | None
    resumable: bool
    """There is a checkpoint."""

    @property
    def title(self) -> str:
        """One line."""
        return " ".join(self.request.title.split())


_known: dict[Path, tuple[int, Past | None]] = {}


def scan(root: Path, limit: int = 200) -> list[Past]:
    """The newest jobs in the folder ``root``, the newest first."""
    try:
        folders = sorted((each for each in root.iterdir() if each.is_dir()), reverse=True)[:limit]
    except OSError:
        return []
    found = [past for past in map(look, folders) if past is not None]
    return sorted(found, key=lambda past: past.created, reverse=True)


def look(folder: Path) -> Past | None:
    """One job's folder; None if it is none."""
    try:
        stamp = folder.stat().st_mtime_ns  # files are moved into it when they are whole, which changes its time
    except OSError:
        return None
    known = _known.get(folder)
    if known is None or known[0] != stamp:
        _known[folder] = known = (stamp, _read(folder, stamp / 1e9))
    return known[1]


def _read(folder: Path, changed: float) -> Past | None:
    noted = record.read_record(folder)
    request = _request(folder) or (noted.request if noted is not None else None)
    if request is None:
        return None
    names = {each.name for each in folder.iterdir()}
    metrics = _metrics(folder)
    finished = metrics is not None and "mesh.glb" in names
    ended = noted.ended if noted is not None else ""
    state: State = "finished" if finished else "unfinished"
    if not finished and ended:
        state = "cancelled" if ended == "cancelled" else "failed"
    return Past(
        folder=folder,
        request=request,
        state=state,
        created=noted.created if noted is not None else changed,
        seconds=_seconds(metrics or {}),
        note=ended if state == "failed" else "",
        picture=next((folder / name for name in _PICTURES if name in names), None),
        resumable=any(name in names for name in CHECKPOINTS),
    )


def _request(folder: Path) -> Request | None:
    """What the worker wrote once it had begun; its pictures are the job's own copies."""
    try:
        request = Request.from_json((folder / "request.json").read_text(encoding="utf-8"))
        return request.replace(references=resolved(request.references, folder))
    except (OSError, ValueError, DreamlatheError):
        return None


def _metrics(folder: Path) -> dict[str, Any] | None:
    try:
        data: Any = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _seconds(metrics: dict[str, Any]) -> float:
    """What a job took in all."""
    parts: Any = metrics.get("seconds", 0.0)
    values = parts.values() if isinstance(parts, dict) else [parts]
    return float(sum(value for value in values if isinstance(value, int | float)))


def prompts(pasts: list[Past]) -> list[str]:
    """Every prompt once, the newest first."""
    return list(dict.fromkeys(past.title for past in pasts if past.request.prompt.strip()))


def remove(folder: Path) -> None:
    """Delete what the job wrote, and the folder if nothing else is in it. OutputError if it cannot be deleted."""
    if look(folder) is None:
        raise OutputError(f"{folder} is not a job's folder.", "Choose one from the list.")
    try:
        for name in _OWN:
            (folder / name).unlink(missing_ok=True)
        for name in _OWN_FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # a .blend of the person's own may be in it
            folder.rmdir()
    except OSError as error:
        raise OutputError(f"{folder} cannot be deleted ({error.strerror}).", "Delete it by hand.") from None
    _known.pop(folder, None)

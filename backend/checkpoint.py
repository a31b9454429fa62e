"""Checkpoints: one safetensors file each (nothing is ever unpickled), written atomically, the previous one kept.

Tensors are stored as they are; numbers, generator states and the request's digest are JSON in the file's header. A
checksum over all of it tells a damaged file from a good one.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import OutputError
from .files import write_atomically

NEWEST = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A run between two steps."""

    tensors: dict[str, Tensor]
    """By name; on the CPU, contiguous, no two in the same memory."""
    values: dict[str, Any]
    """What JSON can hold."""
    regular: bool
    """Written at a fixed step, not where a person stopped the run; only these decide how a run recovers."""


class CheckpointStore:
    """The checkpoints of one job's folder, bound to its request by ``digest``."""

    def __init__(self, folder: Path, digest: str) -> None:
        self._newest = folder / NEWEST
        self._previous = folder / PREVIOUS
        self._digest = digest

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it as the newest. The previous one stays; one from a stop gives way, so that a regular one is at hand.

        Raises OutputError if it cannot be written; the files that were there are then still there.
        """
        header = {
            "version": VERSION,
            "request": self._digest,
            "regular": checkpoint.regular,
            "values": checkpoint.values,
        }
        text = json.dumps(header)
        metadata = {"state": text, "checksum": str(_checksum(checkpoint.tensors, text))}
        data = save(checkpoint.tensors, metadata)
        write_atomically(self._newest, data, before=self._rotate)

    def load(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest good checkpoint; None without one. Damaged files are named to ``warn`` and deleted.

        Raises OutputError for a checkpoint of another request.
        """
        for path in (self._newest, self._previous):
            if not path.exists():
                continue
            checkpoint = self._read(path)
            if checkpoint is not None:
                return checkpoint
            warn(f"{path.name} is damaged and was deleted; going on from an earlier state.")
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def take_over(self, other: CheckpointStore, change: Callable[[Checkpoint], Checkpoint]) -> bool:
        """Begin with what ``change`` makes of the newest good checkpoint of another job; False if it has none.

        What was here is kept, if any.
        """
        if self._newest.exists() or self._previous.exists():
            return True
        checkpoint = other.load_regular()
        if checkpoint is not None:
            self.save(change(checkpoint))
        return checkpoint is not None

    def load_regular(self) -> Checkpoint | None:
        """The newest good checkpoint that was written at a fixed step."""
        for path in (self._newest, self._previous):
            checkpoint = self._read(path)
            if checkpoint is not None and checkpoint.regular:
                return checkpoint
        return None

    def _rotate(self) -> None:
        newest = self._read(self._newest)
        if newest is not None and newest.regular:
            self._newest.replace(self._previous)

    def _read(self, path: Path) -> Checkpoint | None:
        """The checkpoint at ``path``; None if it is missing or damaged."""
        try:
            data = path.read_bytes()
            metadata = _metadata(data)
            # From memory: a mapped file could not be replaced on Windows.
            tensors = load(data)
            header = json.loads(metadata["state"])
            if int(metadata["checksum"]) != _checksum(tensors, metadata["state"]):
                return None
            checkpoint = Checkpoint(tensors, header["values"], header["regular"])
            origin = (header["version"], header["request"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError):
            return None
        if origin != (VERSION, self._digest):
            raise OutputError(
                f"{path} belongs to another request.", "Choose another folder, or start over with the redo option."
            )
        return checkpoint


def _metadata(data: bytes) -> dict[str, str]:
    """The string table of a safetensors file; raises ValueError or KeyError if it is damaged."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def _checksum(tensors: dict[str, Tensor], text: str) -> int:
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        content: Any = tensors[name].contiguous().view(-1).view(torch.uint8).numpy()
        value = zlib.crc32(content, value)
    return value

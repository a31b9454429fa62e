"""How much room a folder takes, counted little by little. No bpy in here."""

from __future__ import annotations

import os
import time
from pathlib import Path

_SLICE = 0.02
"""Seconds a step may take."""


class Measure:
    """Sums the sizes of all files in a folder, stepped like a job."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        """Bytes so far."""
        self._left = [str(folder)]

    def step(self) -> bool:
        """Count for a moment; False once all is counted."""
        end = time.monotonic() + _SLICE
        while self._left and time.monotonic() < end:
            self._count(self._left.pop())
        return bool(self._left)

    def kill(self) -> None:
        """Leave it."""
        self._left.clear()

    def _count(self, folder: str) -> None:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        self._left.append(entry.path)
                    else:
                        self.size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            return


def in_words(size: int) -> str:
    """A size for people."""
    return f"The cache takes {size / 1e6:.0f} MB" if size else "The cache is empty"

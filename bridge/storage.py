"""How much room a folder takes, and an end to it, little by little. No bpy in here."""

from __future__ import annotations

import contextlib
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


class Removal:
    """Deletes what is in a folder, little by little. It is moved aside first: no half of it is found any more."""

    def __init__(self, folder: Path) -> None:
        self._aside = folder.with_name(f"{folder.name}-deleted-{os.getpid()}-{time.monotonic_ns()}")
        try:
            folder.rename(self._aside)
        except OSError:
            self._aside = folder
        self._met: set[str] = set()
        self._folders = [self._aside]
        """Not yet looked into, or waiting until what is in them is gone."""

    def step(self) -> bool:
        """Delete for a moment; False once all is gone."""
        end = time.monotonic() + _SLICE
        while self._folders and time.monotonic() < end:
            inside = self._empty(self._folders[-1])
            if inside:
                self._folders += inside
            else:
                with contextlib.suppress(OSError):
                    self._folders[-1].rmdir()
                self._folders.pop()
        return bool(self._folders)

    def kill(self) -> None:
        """Leave the rest."""
        self._folders.clear()

    def _empty(self, folder: Path) -> list[Path]:
        """Delete a folder's files; returns the folders in it, those that cannot be deleted left out."""
        inside: list[Path] = []
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.path not in self._met:
                        self._met.add(entry.path)
                        inside.append(Path(entry.path))
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)  # noqa: PTH108 - an entry has no path object
        return inside


def in_words(size: int) -> str:
    """A size for people."""
    return f"The cache takes {size / 1e6:.0f} MB" if size else "The cache is empty"

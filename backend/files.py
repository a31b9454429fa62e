"""Files that are written whole or not at all, and folders that one job owns at a time. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

from .errors import OutputError


def write_atomically(path: Path, data: bytes, before: Callable[[], None] | None = None) -> None:
    """Write a file whole or not at all, flushed to the disk; ``before`` runs just before it takes its name.

    Raises OutputError; what was at ``path`` is then still there.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with output_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if before is not None:
                before()
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def output_errors(path: Path) -> Generator[None]:
    """Turn the system's errors while writing ``path`` into an OutputError that names it."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}).", "Free some space or choose another folder."
        ) from None


def check_writable(folder: Path, needed: int) -> None:
    """Raise OutputError unless ``folder`` is, or could be made, a folder for ``needed`` bytes. Makes nothing."""
    hint = "Choose another output folder."
    with output_errors(folder):
        nearest = folder
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise OutputError(f"{folder} cannot be made: {nearest} is not a folder.", hint)
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise OutputError(f"{nearest} is not writable.", hint)
        free = shutil.disk_usage(nearest).free
    if free < needed:
        raise OutputError(
            f"{nearest} has {free / 1e6:.0f} MB free, and the job needs {needed / 1e6:.0f} MB.",
            "Free some space or choose another output folder.",
        )


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Own an existing folder; the system gives it back when the process dies. Raises OutputError if it is taken.

    The lock's file stays: deleting it would let two jobs lock two files of the same name.
    """
    path = folder / ".lock"
    with output_errors(path):
        file = path.open("a+b")
    with file:
        try:
            _lock(file)
        except OSError:
            raise OutputError(f"Another job is running in {folder}.", "Wait for it or choose another folder.") from None
        yield


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt  # noqa: PLC0415  (Windows alone has it)

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415  (Windows lacks it)

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

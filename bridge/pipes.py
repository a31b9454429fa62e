"""Pipes that never block, on every platform and without threads."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Generator
from typing import IO

_CHUNK = 1 << 16


class LineReader:
    """Reads whole lines from a pipe as they come.

    POSIX: a non-blocking descriptor. Windows: ``PeekNamedPipe`` says how much there is to read (``os.set_blocking``
    takes pipes there from Python 3.12 on only).
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._descriptor = stream.fileno()
        self._rest = b""
        self.at_end = False
        if sys.platform != "win32":
            os.set_blocking(self._descriptor, False)

    def lines(self, limit: int = 1 << 20) -> list[str]:
        """The lines that have arrived, at most about ``limit`` bytes of them.

        At the end of the stream the last one may lack its newline.
        """
        parts = [self._rest]
        size = 0
        while size < limit:
            chunk = self._read()
            if not chunk:
                break
            parts.append(chunk)
            size += len(chunk)
        *whole, self._rest = b"".join(parts).split(b"\n")
        if self.at_end and self._rest:
            whole.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in whole]

    def _read(self) -> bytes:
        """What is there now; b"" and perhaps ``at_end`` when there is nothing."""
        try:
            if sys.platform == "win32" and not _waiting(self._descriptor):
                return b""
            chunk = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError:  # Windows says so when the other side is gone
            chunk = b""
        self.at_end = self.at_end or not chunk
        return chunk


class Writer:
    """Writes to a pipe, as much as it takes at a time; the rest goes with the next :meth:`flush`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._pending = b""
        if sys.platform != "win32":
            os.set_blocking(stream.fileno(), False)

    def write(self, data: bytes) -> None:
        """Queue ``data`` and send what goes through."""
        self._pending += data
        self.flush()

    def flush(self) -> None:
        """Send what goes through; forget everything if nobody reads any more."""
        while self._pending and not self._stream.closed:
            try:
                with _without_signal():
                    sent = os.write(self._stream.fileno(), self._pending[:_CHUNK])
            except BlockingIOError:
                return
            except OSError:
                self._pending = b""
                return
            self._pending = self._pending[sent:]

    def close(self) -> None:
        """Close the pipe; the other side sees its end."""
        with contextlib.suppress(OSError):
            self._stream.close()


@contextlib.contextmanager
def _without_signal() -> Generator[None]:
    """Writing to a process that is gone is an error, and no signal.

    Python ignores SIGPIPE, but inside of some Blenders (4.3) it does not come to that: the signal would end Blender.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE in signal.sigpending() and signal.SIGPIPE not in before:
            signal.sigwait({signal.SIGPIPE})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _waiting(descriptor: int) -> int:
    """Windows: how many bytes wait in the pipe. Raises OSError when the other side is gone and the pipe is empty."""
    if sys.platform == "win32":
        import _winapi  # noqa: PLC0415 - only there
        import msvcrt  # noqa: PLC0415

        return _winapi.PeekNamedPipe(msvcrt.get_osfhandle(descriptor), 0)[0]
    return 1

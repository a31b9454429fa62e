"""Makes the backend's environment: ``python -m backend.installer FOLDER LOCK [LOCK …]``, in a process of its own.

Standard library only: it runs in the Python that the environment is made from. It writes the events of a worker, and
stops when it is told to or when nobody listens any more. An environment that lacks :data:`READY` is none: that file is
written last, and whatever is not finished is deleted. ``--remove FOLDER`` deletes one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import Cancelled, DreamlatheError, OutputError, SetupError
from .events import Event, Failed, Finished, Message, Phase, Progress, encode
from .files import check_writable, write_atomically

READY = "dreamlathe.json"
"""Says of what the environment was made; without it there is none."""
IMPORTS = "torch, numba, diffusers, transformers, skimage, xatlas, fast_simplification"
_BYTES = {True: 9e9, False: 3e9}
"""Room that an installation takes with and without CUDA's libraries, pip's cache and temporary files included."""
_DOWNLOAD_SHARE = 0.8
"""Of the progress; the rest is unpacking."""
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_WHEEL = re.compile(
    r"(?:Downloading|Using cached|Processing) (?:\S*[/\\])?([\w.+!-]+\.whl)(?!\.)(?: \(([\d.]+ \w?B)\))?"
)
_NO_NETWORK = ("NewConnectionError", "NameResolutionError", "Connection refused", "ConnectTimeout", "ProxyError",
               "Network is unreachable", "Failed to establish", "Temporary failure in name")  # fmt: skip
_NO_BUILD = ("No matching distribution", "Could not find a version", "is not a supported wheel")
_TAIL = 40


def has_pip() -> bool:
    """Whether this Python has a pip that can install into another one (22.3 and newer)."""
    try:
        major, minor = (int(part) for part in importlib.metadata.version("pip").split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return (major, minor) >= (22, 3)


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def is_ready(folder: Path) -> bool:
    """Whether an environment was finished, and its interpreter is still there."""
    return (folder / READY).is_file() and python_in(folder).is_file()


class Installer:
    """One installation. ``cancelled`` is set from another thread; the process that runs then is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cancelled = threading.Event()
        self._child: subprocess.Popen[str] | None = None

    def cancel(self) -> None:
        """Stop soon."""
        self.cancelled.set()
        child = self._child
        if child is not None:
            with contextlib.suppress(OSError):
                child.kill()

    def make(self, locks: list[Path]) -> None:
        """Make the environment from the first lock that the package index can serve; nothing is left if that fails.

        Raises SetupError, OutputError and Cancelled.
        """
        try:
            lock = next(each for each in locks if self._install(each, last=each == locks[-1]))
            self._check()
            self._stop_if_cancelled()
            said = {"lock": lock.name, "digest": digest(lock), "python": sys.version.split()[0], "made": time.time()}
            write_atomically(self.folder / READY, json.dumps(said).encode())
        except BaseException:
            say(Phase("clean", "Cleaning up."))
            remove(self.folder)
            raise

    def _install(self, lock: Path, *, last: bool) -> bool:
        """Install one lock file; False if the index has no such builds and there is another lock to try."""
        text = lock.read_text(encoding="utf-8")
        needed = _BYTES["nvidia-" in text]
        check_writable(self.folder, int(needed))
        say(Phase("environment", "Making a virtual environment."))
        remove(self.folder)
        self._create()
        self._stop_if_cancelled()
        say(Phase("download", f"Installing {len(requirements(text))} packages."))
        tail: list[str] = []
        tally = Tally(len(requirements(text)))
        code = self._run(self._pip(lock), tally, tail)
        self._stop_if_cancelled()
        if code == 0:
            return True
        said = "\n".join(tail)
        if not last and any(each in said for each in _NO_BUILD) and not any(each in said for each in _NO_NETWORK):
            say(Message("info", "The package index has no build without CUDA: taking the other one."))
            return False
        raise explain(said, lock.stem)

    def _create(self) -> None:
        """A virtual environment; without pip of its own where the Python that it is made from has one that will do."""
        options = ["--without-pip"] if has_pip() else []
        if self._run([sys.executable, "-I", "-m", "venv", "--clear", *options, str(self.folder)], None, []):
            self._stop_if_cancelled()
            raise SetupError(
                f"{sys.executable} cannot make virtual environments.",
                "Install its venv and pip packages, or choose another Python.",
            )

    def _pip(self, lock: Path) -> list[str]:
        own = str(python_in(self.folder))
        pip = [sys.executable, "-I", "-m", "pip", "--python", own] if has_pip() else [own, "-I", "-m", "pip"]
        options = ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
        if _takes_raw_progress(pip):
            options += ["--progress-bar", "raw"]
        return [*pip, "install", *options, "--requirement", str(lock)]

    def _run(self, command: list[str], tally: Tally | None, tail: list[str]) -> int:
        """Run a command to its end; its output is counted and its last lines are kept."""
        self._stop_if_cancelled()
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._child = subprocess.Popen(
            command,
            env={**variables, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if tally is None or not tally.hear(line):
                tail.append(line.strip())
                del tail[:-_TAIL]
        return self._child.wait()

    def _check(self) -> None:
        """Raise SetupError unless everything imports."""
        say(Phase("check", "Trying it."))
        tail: list[str] = []
        if self._run([str(python_in(self.folder)), "-c", f"import {IMPORTS}"], None, tail):
            self._stop_if_cancelled()
            reason = next((line for line in reversed(tail) if line), "no reason given")
            raise SetupError(f"What was installed does not work ({reason}).", "Choose an existing Python instead.")

    def _stop_if_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled("Stopped.", "Nothing was left behind.")


class Tally:
    """Counts the packages that pip tells of."""

    def __init__(self, total: int) -> None:
        self._total = max(total, 1)
        self._seen: dict[str, None] = {}
        self._begun = time.monotonic()
        self._said = 0.0

    def hear(self, line: str) -> bool:
        """Take a line of pip's output; True if it was nothing but progress."""
        part = _PROGRESS.search(line)
        if part:
            if time.monotonic() - self._said > 0.3:
                self._tell(int(part[1]) / max(int(part[2]), 1))
            return True
        wheel = _WHEEL.search(line)
        if wheel:
            name = wheel[1].split("-")[0]
            if name not in self._seen:
                self._seen[name] = None
                size = f" ({wheel[2]})" if wheel[2] else ""
                say(Phase("download", f"{name.replace('_', '-')}{size}"))
            self._tell(0.0)
        elif line.startswith("Installing collected packages"):
            self._seen = dict.fromkeys(map(str, range(self._total)))
            say(Phase("install", f"Unpacking {self._total} packages."))
            self._tell(1.0)
        return False

    def _tell(self, part: float) -> None:
        """Of a hundred steps."""
        self._said = time.monotonic()
        done = min(max(len(self._seen) - 1 + part, 0.0) / self._total, 1.0) * _DOWNLOAD_SHARE
        passed = self._said - self._begun
        left = passed * (1 - done) / done if done > 0.05 else 0.0
        say(Progress(round(100 * done), 100, left))


def requirements(text: str) -> list[str]:
    """The names in a lock file."""
    return re.findall(r"(?m)^([\w.-]+)==", text)


def digest(lock: Path) -> str:
    """Of a lock file's content; 16 hex digits."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:16]


def explain(said: str, lock: str) -> SetupError | OutputError:
    """What went wrong, by the last lines of pip."""
    if "No space left" in said or "Errno 28" in said or "not enough space" in said:
        return OutputError("The disk is full.", "Free some space and set up again.")
    if any(each in said for each in _NO_NETWORK):
        return SetupError("The package index cannot be reached.", "Check the network and set up again.")
    if "DO NOT MATCH THE HASHES" in said:
        return SetupError("What was downloaded is not what the lock file names.", "Set up again, or elsewhere.")
    if any(each in said for each in _NO_BUILD):
        return SetupError(f"The package index has no builds for {lock}.", "Choose an existing Python with PyTorch.")
    errors = [line for line in said.splitlines() if line.upper().startswith("ERROR")]
    last = next(iter(errors[-1:] or [line for line in said.splitlines() if line][-1:]), "no reason given")
    return SetupError(f"pip failed ({last[:300]}).", "Set up again, or choose an existing Python.")


def remove(folder: Path) -> None:
    """Delete an environment, its mark first, so that no half of one is ever taken for a whole. OutputError if stuck."""
    with contextlib.suppress(OSError):
        (folder / READY).unlink()
    shutil.rmtree(folder, ignore_errors=True)
    if (folder / READY).exists():
        raise OutputError(f"{folder} cannot be deleted.", "Close what uses it, and try again.")


def remove_others(folder: Path) -> None:
    """Delete the environments beside ``folder``: older ones, and what was left of those that were killed."""
    for each in folder.parent.iterdir():
        if each != folder and each.is_dir() and (is_ready(each) or (each / "pyvenv.cfg").is_file()):
            with contextlib.suppress(OutputError):
                remove(each)


def _takes_raw_progress(pip: list[str]) -> bool:
    """Whether this pip can tell its progress in bytes (24.1 and newer)."""
    result = subprocess.run([*pip, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"pip (\d+)\.(\d+)", result.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= (24, 1)


def say(event: Event) -> None:
    """One event to whoever started this."""
    sys.stdout.write(encode(event) + "\n")
    sys.stdout.flush()


def _lines(stream: IO[str]) -> Iterator[str]:
    with contextlib.suppress(OSError, ValueError):
        yield from stream


def _listen(installer: Installer) -> None:
    """Stop at any word, and when the other side is gone."""
    next(_lines(sys.stdin), "")
    installer.cancel()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="backend.installer", description="Make the backend's environment.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("locks", type=Path, nargs="*")
    parser.add_argument("--remove", action="store_true", help="delete it instead")
    options = parser.parse_args(arguments)
    installer = Installer(options.folder)
    try:
        if options.remove:
            remove(options.folder)
        else:
            threading.Thread(target=_listen, args=(installer,), daemon=True).start()
            installer.make(options.locks)
            remove_others(options.folder)
    except DreamlatheError as error:
        say(Failed(error.code, error.message, error.hint))
        return 130 if isinstance(error, Cancelled) else 1
    except OSError as error:
        say(Failed("environment", f"The environment cannot be made ({error.strerror or error}).", "Try another disk."))
        return 1
    say(Finished(str(options.folder)))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread that listens may hold the standard input

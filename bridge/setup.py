"""The set-up of the backend's environment, made by a process of its own and stepped like a job. No bpy in here."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from ..backend.errors import DreamlatheError, SetupError
from ..backend.events import Event, Failed, Finished, Message, Phase, Progress
from .environment import ROOT, ready_environment
from .worker_client import WorkerClient

PYTHONS = ((3, 11), (3, 13))
"""Those that there are lock files for."""
LOCKS = ROOT / "wheels" / "locks"
Build = Literal["AUTO", "CPU", "CUDA"]
_PATIENCE = 15.0
"""Seconds that the process has to clean up after a cancel."""


class Plan(NamedTuple):
    """What is installed, and with what."""

    python: Path
    """The interpreter that the environment is made from."""
    locks: tuple[Path, ...]
    """The first that the package index can serve is taken."""
    folder: Path

    @property
    def about(self) -> str:
        """One line for people."""
        size = "about 3 GB with CUDA" if "nvidia-" in self.locks[0].read_text(encoding="utf-8") else "about 400 MB"
        return f"PyTorch and what goes with it, {size}"


def make_plan(root: Path, build: Build = "AUTO", locks: Path = LOCKS) -> Plan:
    """What this machine gets, in a folder of its own below ``root``; SetupError if there is nothing for it."""
    python, version = find_base()
    system = platform_name()
    cuda = has_cuda() if build == "AUTO" else build == "CUDA"
    names = [f"{system}-py{version[0]}{version[1]}.lock"]
    if not cuda:
        names.insert(0, f"{system}-cpu-py{version[0]}{version[1]}.lock")
    found = tuple(path for name in names if (path := locks / name).is_file())
    if not found:
        raise SetupError(f"There is no set-up for {system}.", "Choose an existing Python that has PyTorch.")
    if build == "CUDA" and sys.platform != "linux":
        raise SetupError("There is no set-up with CUDA here.", "Choose an existing Python whose PyTorch has CUDA.")
    return Plan(python, found, root / f"{found[0].stem}-{int(time.time())}")


def find_base() -> tuple[Path, tuple[int, int]]:
    """The Python to make an environment from, and its version: Blender's own, else one of PATH. SetupError."""
    own = (sys.version_info[0], sys.version_info[1])
    if own in PYTHONS and Path(sys.executable).is_file():
        return Path(sys.executable), own
    for version in PYTHONS:
        path = shutil.which(f"python{version[0]}.{version[1]}")
        if path:
            return Path(path), version
    wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    raise SetupError(
        f"Blender's Python is {own[0]}.{own[1]}, and PyTorch is set up for {wanted}.",
        f"Install Python {wanted}, or choose an existing one that has PyTorch.",
    )


def platform_name() -> str:
    """The platform in Blender's words, such as linux-x64."""
    system = {"linux": "linux", "win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}
    return f"{system}-{machine.get(platform.machine().lower(), platform.machine().lower())}"


def has_cuda() -> bool:
    """Whether an NVIDIA driver is there; asks nobody, so it takes no time."""
    driver = Path("/proc/driver/nvidia/version")
    library = Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvcuda.dll"
    return shutil.which("nvidia-smi") is not None or driver.exists() or (sys.platform == "win32" and library.exists())


class SetUp:
    """An environment in the making: :meth:`step` until it is False; then ``error`` says what went wrong, if it did."""

    def __init__(self, plan: Plan, environment: Mapping[str, str]) -> None:
        """Start it; SetupError if the Python does not start."""
        self.plan = plan
        self.text = "Starting."
        self.factor = 0.0
        self.note = ""
        self.error: DreamlatheError | None = None
        self.cancelled = False
        self._asked = 0.0
        self._finished = False
        self._begun = time.monotonic()
        command = [str(plan.python), "-m", "backend.installer", str(plan.folder), *map(str, plan.locks)]
        self._client = WorkerClient(command, ROOT, environment)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    @property
    def python(self) -> Path | None:
        """The finished environment's interpreter."""
        return ready_environment(self.plan.folder.parent)

    def step(self) -> bool:
        """Read what the process says; False once it is gone."""
        for event in self._client.poll():
            self._hear(event)
        if self._asked and time.monotonic() - self._asked > _PATIENCE:
            self._client.kill()
        elif not self._client.drained:
            return True
        if not self._finished and self.error is None and not self.cancelled:
            last = self._client.last_words() or f"exit code {self._client.exit_code}"
            self.error = SetupError(f"The set-up ended of itself ({last}).", "Set up again.")
        self._client.close()
        return False

    def cancel(self) -> None:
        """Ask it to stop; it cleans up and goes."""
        if not self._asked:
            self._asked, self.cancelled, self.text = time.monotonic(), True, "Stopping."
            self._client.quit()

    def kill(self) -> None:
        """End it now. What it leaves is never taken for an environment, and the next set-up deletes it."""
        self.cancelled = True
        self._client.kill()

    def _hear(self, event: Event) -> None:
        match event:
            case Phase(name="clean", message=message):
                self.text = message
            case Phase(name=name, message=message):
                self.text = message
                self.factor = {"check": 0.95}.get(name, self.factor)
            case Progress(step=step, total=total):
                self.factor = max(self.factor, step / max(total, 1))
            case Message(text=text):
                self.note = text
            case Failed(code=code, message=message, hint=hint):
                self.cancelled = self.cancelled or code == "cancelled"
                self.error = None if self.cancelled else SetupError(message, hint)
            case Finished():
                self._finished, self.factor = True, 1.0
            case _:
                pass


def run(task: SetUp, interval: float = 0.05) -> None:
    """Step it to its end; raises its error."""
    while task.step():
        time.sleep(interval)
    if task.error is not None:
        raise task.error

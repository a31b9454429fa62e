"""Where the backend's Python is, the environment a worker gets, and the test of both. Knows nothing of Blender."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..backend.errors import SetupError
from ..backend.request import preset

VARIABLE = "DREAMLATHE_PYTHON"
ROOT = Path(__file__).resolve().parent.parent
"""The extension's folder; ``backend`` is imported from here."""


READY = "dreamlathe.json"
"""The mark of an environment that was set up to its end; :mod:`..backend.installer` writes it last."""


def find_python(chosen: str = "", root: Path = ROOT, made: Path | None = None) -> Path:
    """The backend's interpreter.

    The chosen one, else $DREAMLATHE_PYTHON, else the one that was set up in the folder ``made``, else Blender's own if
    the extension brought PyTorch with it, else a ``.venv`` beside the sources.

    Raises SetupError when there is none, or when the named one does not exist.
    """
    for name, where in ((chosen, "the preferences"), (os.environ.get(VARIABLE, ""), f"${VARIABLE}")):
        if name.strip():
            python = Path(name.strip()).expanduser()
            if not python.is_file():
                raise SetupError(f"There is no Python at {python}.", f"Correct the path in {where}.")
            return python.absolute()  # not resolved: a virtual environment is known by the link's place
    ready = ready_environment(made)
    if ready is not None:
        return ready
    if bundled_packages(root) is not None:
        return Path(sys.executable)
    local = python_in(root / ".venv")
    if local.is_file():
        return local
    raise SetupError(
        "The Python of the backend is not known.",
        f"Set it up or choose it in the extension's preferences, or set {VARIABLE} to it.",
    )


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def ready_environment(folder: Path | None) -> Path | None:
    """The interpreter of the newest environment in ``folder`` that was set up to its end."""
    try:
        marks = sorted(folder.glob(f"*/{READY}"), key=lambda mark: mark.stat().st_mtime) if folder is not None else []
    except OSError:
        return None
    found = [python for mark in reversed(marks) if (python := python_in(mark.parent)).is_file()]
    return next(iter(found), None)


def bundled_packages(root: Path = ROOT) -> Path | None:
    """Where Blender unpacked the wheels of an extension that brings PyTorch along; None for one that does not."""
    if not any((root / "wheels").glob("torch-*.whl")):
        return None
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    local = root.parent.parent / ".local"
    places = (local / "lib" / version / "site-packages", local / "Lib" / "site-packages")
    return next((place for place in places if (place / "torch" / "__init__.py").is_file()), None)


def worker_environment(caches: Path | None = None, online: bool = True, root: Path = ROOT) -> dict[str, str]:
    """The environment of a worker: Blender's, without its Python's settings, so that ``backend`` imports top-level.

    With ``caches``, compiled files go there and not beside the sources. Offline, no model is ever downloaded. Where the
    extension brought PyTorch along, it is found.
    """
    dropped = {"PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    paths = [str(each) for each in (root, bundled_packages(root)) if each is not None]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    if caches is not None:
        environment |= {"PYTHONPYCACHEPREFIX": str(caches / "python"), "NUMBA_CACHE_DIR": str(caches / "numba")}
    if online:
        environment["DREAMLATHE_DOWNLOADS"] = "1"
    else:
        environment["HF_HUB_OFFLINE"] = "1"
        environment.pop("DREAMLATHE_DOWNLOADS", None)
    return environment


def worker_command(python: Path) -> list[str]:
    """How a worker is started, in the folder :data:`ROOT`."""
    return [str(python), "-m", "backend", "worker"]


_ENGINES = {
    "numba": "Numba on the processor",
    "nvrtc": "CUDA kernels",
    "tinycudann": "tiny-cuda-nn",
    "torch": "plain PyTorch, the slowest",
}


class Facts(NamedTuple):
    """What a test of the environment found."""

    python: str
    torch: str
    diffusers: str
    transformers: str
    device: str
    memory_free: float = 0.0
    """Bytes of the device's memory, or of the main memory, that nobody uses; 0 if that is not known."""
    memory: float = 0.0
    """All of it."""
    engine: str = ""
    """Of the hash grid; empty if that is not known."""
    step_seconds: float = 0.0
    """One step of the standard preset; 0 if none was made."""

    @property
    def text(self) -> str:
        """One line."""
        return f"Python {self.python}, torch {self.torch}, diffusers {self.diffusers}, on {self.device}"

    @property
    def lines(self) -> list[str]:
        """Everything, for the preferences."""
        told = [self.text]
        if self.memory > 0:
            told.append(f"{self.memory_free / 1e9:.1f} of {self.memory / 1e9:.1f} GB of memory are free")
        if self.engine:
            told.append(f"Hash grid: {_ENGINES.get(self.engine, self.engine)}")
        if self.step_seconds > 0:
            standard = preset("standard")
            steps = standard.optimize.iterations + standard.refine.iterations
            minutes = self.step_seconds * steps / 60
            told.append(f"{self.step_seconds:.3f} s a step, so {minutes:.0f} min for the {steps} of Standard")
        return told


class Probe:
    """A test of an interpreter, stepped like a job: :meth:`step` until it is False, then :meth:`facts`.

    The interpreter runs :mod:`..backend.doctor`, which also makes some steps, on ``device``.
    """

    def __init__(
        self,
        python: Path,
        environment: Mapping[str, str],
        root: Path = ROOT,
        timeout: float = 300.0,
        device: str = "auto",
    ) -> None:
        self._python = python
        self._deadline = time.monotonic() + timeout
        try:
            self._process = subprocess.Popen(
                [str(python), "-m", "backend.doctor", device],
                cwd=root,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise SetupError(f"{python} does not start ({reason}).", "Choose another Python.") from None

    def step(self) -> bool:
        """True while it runs."""
        if time.monotonic() > self._deadline:
            self._process.kill()
            self._process.wait()
        return self._process.poll() is None

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.communicate()

    def facts(self) -> Facts:
        """What was found; SetupError when something is missing. To be called once, after the last step."""
        output, _ = self._process.communicate()
        try:
            found = json.loads(output.decode("utf-8", "replace").splitlines()[-1])
        except (IndexError, ValueError):
            code = self._process.returncode
            raise SetupError(f"{self._python} is not a working Python (exit code {code}).", "Choose another.") from None
        if "error" in found:
            raise SetupError(
                f"The backend's Python lacks something ({found['error']}).",
                "Install the project's locked requirements into it, or choose another Python.",
            )
        return Facts(**{name: value for name, value in found.items() if name in Facts._fields})


def run(probe: Probe, interval: float = 0.05) -> Facts:
    """Step a probe to its end."""
    while probe.step():
        time.sleep(interval)
    return probe.facts()

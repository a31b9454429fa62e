"""Make the project's virtual environments from its lock files. Standard library only.

``python wheels/environments.py make backend dev bpy`` makes what is missing and leaves what is up to date; interrupted,
it goes on where it stopped. ``python wheels/environments.py run SCRIPT -- …`` makes what it needs and runs a script in
headless Blender: the Blender on PATH if it is new enough, else Blender as a Python module.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_BLENDER = (4, 2)
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3")
BLENDER_LIBRARIES = (
    "libx11-6 libxi6 libxxf86vm1 libxfixes3 libxrender1 libxkbcommon0 libsm6 libice6 libgl1 libegl1 libgomp1"
)


class SetUpError(Exception):
    """Something is missing that only the person at the machine can bring; the text says what."""


@dataclass(frozen=True)
class Environment:
    """One lock file installed into one folder."""

    name: str
    folder: str
    lock: str
    about: str
    """What it is, for people, with the time it takes."""
    gigabytes: float
    """Free disk that the installation needs, pip's cache and temporary files included."""
    imports: str
    """Modules that must import afterwards."""
    base: str = ""
    """The environment that must be there first, in the same folder."""
    only_python: tuple[int, int] | None = None
    """The only Python its wheels exist for."""


def _blender_module(version: str, folder: str, lock: str) -> Environment:
    about = f"Blender {version} as a Python module, about half a minute"
    return Environment(f"bpy-{version}", folder, lock, about, 2.0, "bpy", only_python=(3, 11))


ENVIRONMENTS = {
    "backend": Environment(
        "backend",
        ".venv",
        "backend-cpu-linux-py311.lock",
        "PyTorch, diffusers and the rest of the backend, about a minute",
        2.5,
        "torch, numba, diffusers, transformers",
    ),
    "dev": Environment(
        "dev",
        ".venv",
        "dev.lock",
        "pytest, ruff and pyright, about ten seconds",
        0.5,
        "pytest, hypothesis",
        base="backend",
    ),
    "bpy": _blender_module("4.5", ".venv-bpy", "bpy.lock"),
    "bpy-4.2": _blender_module("4.2", ".venv-bpy-4.2", "bpy-4.2.lock"),
    "bpy-5.0": _blender_module("5.0", ".venv-bpy-5.0", "bpy-5.0.lock"),
}


def say(text: str) -> None:
    """A line for the person, on stderr: stdout is for what other programs read."""
    print(text, file=sys.stderr, flush=True)


def make(environment: Environment, root: Path = ROOT) -> Path:
    """Install an environment if it is not there and up to date; return its Python.

    Raises SetUpError where Python or disk is missing, or the installation failed.
    """
    if environment.base:
        make(ENVIRONMENTS[environment.base], root)
    python = root / environment.folder / "bin" / "python"
    stamp = root / environment.folder / f".installed-{environment.name}"
    lock = root / "wheels" / environment.lock
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted and python.exists():
        return python
    start = time.monotonic()
    check_disk(root, environment)
    say(f"{environment.folder}: {environment.about} …")
    interpreter = find_python(environment.only_python)
    if not _runs(python):
        _create(interpreter, python.parent.parent)
    _install(interpreter, python, lock)
    _check_imports(python, environment)
    stamp.write_text(wanted)
    say(f"{environment.folder}: ready in {time.monotonic() - start:.0f} s.")
    return python


def find_python(only: tuple[int, int] | None = None) -> str:
    """The first Python of PATH that will do: 3.11 or newer, or exactly ``only``. Raises SetUpError if there is none."""
    for name in PYTHONS:
        path = shutil.which(name)
        version = _version([path, "-c", "import sys; print('Python %d.%d' % sys.version_info[:2])"]) if path else None
        if path and version and (version == only if only else version >= (3, 11)):
            return path
    if only:
        raise SetUpError(
            f"Python {only[0]}.{only[1]} was not found on PATH. Install it (python{only[0]}.{only[1]} and its venv "
            f"package), or put a Blender {OLDEST_BLENDER[0]}.{OLDEST_BLENDER[1]} or newer on PATH."
        )
    raise SetUpError("Python 3.11 or newer was not found on PATH. Install python3.11 and its venv package.")


def find_blender() -> str | None:
    """The Blender of the variable BLENDER or of PATH, if it is new enough."""
    path = shutil.which(os.environ.get("BLENDER") or "blender")
    version = _version([path, "--version"]) if path else None
    if version and version < OLDEST_BLENDER:
        say(f"The Blender on PATH is {version[0]}.{version[1]}, too old; using Blender as a Python module instead.")
    return path if version and version >= OLDEST_BLENDER else None


def headless(root: Path = ROOT) -> list[str]:
    """The command before a script's path that runs it in a headless Blender."""
    blender = find_blender()
    if blender:
        return [blender, "--background", "--python-exit-code", "1", "--python"]
    return [str(make(ENVIRONMENTS["bpy"], root))]


def check_disk(root: Path, environment: Environment) -> None:
    """Raise SetUpError where the disk is too short for an installation."""
    free = shutil.disk_usage(root).free / 1e9
    if free < environment.gigabytes:
        raise SetUpError(
            f"{environment.folder} needs about {environment.gigabytes:g} GB and {root} has {free:.1f} GB free. "
            f"Everything together needs about 4 GB. Free some space and run the same command again."
        )


def _version(command: list[str]) -> tuple[int, int] | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(?:Python|Blender) (\d+)\.(\d+)", result.stdout)
    return (int(found[1]), int(found[2])) if found and result.returncode == 0 else None


def _runs(python: Path) -> bool:
    return python.exists() and _version([str(python), "-VV"]) is not None


def _create(interpreter: str, folder: Path) -> None:
    """A virtual environment; without pip of its own where the system's Python came without ensurepip."""
    for options in ([], ["--without-pip"]):
        command = [interpreter, "-m", "venv", "--clear", *options, str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
    raise SetUpError(f"{interpreter} cannot make virtual environments. Install its venv package (python3-venv).")


def _install(interpreter: str, python: Path, lock: Path) -> None:
    """Install a lock file with the environment's own pip, or with the system's where it has none."""
    pip = [str(python), "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        pip = [interpreter, "-m", "pip", "--python", str(python)]
    quiet = [] if sys.stderr.isatty() else ["--quiet", "--quiet"]  # warnings too, errors not
    options = ["--disable-pip-version-check", "--no-input", *quiet]
    result = subprocess.run([*pip, "install", *options, "--requirement", str(lock)], stdout=sys.stderr, check=False)
    if result.returncode:
        raise SetUpError(
            f"pip could not install {lock.name}: its lines above say why. Check the network and the free disk, "
            "and run the same command again; it goes on where it stopped."
        )


def _check_imports(python: Path, environment: Environment) -> None:
    command = [str(python), "-c", f"import {environment.imports}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=python.parent)
    if result.returncode == 0:
        return
    reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
    hint = ""
    if ".so" in reason and environment.imports == "bpy":
        hint = f" Blender needs system libraries; on Debian and Ubuntu: apt install {BLENDER_LIBRARIES}"
    raise SetUpError(f"{environment.folder} does not work: {reason}.{hint}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the project's virtual environments and run scripts in them.")
    commands = parser.add_subparsers(dest="command", required=True)
    verb = commands.add_parser("make", help="make environments that are missing or out of date")
    verb.add_argument("names", nargs="+", choices=ENVIRONMENTS)
    verb = commands.add_parser("run", help="run a script in headless Blender, the backend's Python known to it")
    verb.add_argument("script")
    verb.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        if options.command == "make":
            for name in options.names:
                make(ENVIRONMENTS[name])
            return 0
        backend = make(ENVIRONMENTS["backend"])
        rest = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
        variables = {**os.environ, "DREAMLATHE_PYTHON": str(backend)}
        command = [*headless(), options.script, "--", *rest]
        return subprocess.run(command, env=variables, check=False).returncode
    except SetUpError as error:
        say(f"Set-up stopped: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the same command goes on where it stopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""Write the lock files of ``wheels/locks/``: what "Set up" installs, for each platform and Python, with hashes.

``python wheels/lock_backend.py [TARGET …]`` asks uv (``pip install uv``) to resolve :data:`REQUIREMENTS`, and
:data:`CUDA_REQUIREMENTS` where PyTorch comes with CUDA, at the versions of :data:`VERSIONS`, the ones the tests run
with. Where packages come from is uv's own configuration, and no address gets into a file. A ``cpu`` target wants
PyTorch's CPU build: uv must be told where that lies (UV_FIND_LINKS or UV_INDEX).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "backend.in"
CUDA_REQUIREMENTS = HERE / "cuda.in"
"""What is wanted besides, where PyTorch comes with CUDA."""
VERSIONS = HERE / "backend-cpu-linux-py311.lock"
LOCKS = HERE / "locks"


class LockError(Exception):
    """A target could not be resolved; the text says why."""


@dataclass(frozen=True)
class Target:
    """A platform, in Blender's words, a Python, and a build of PyTorch."""

    platform: str
    python: str
    build: str = ""
    """``cpu`` where the package index has a build with CUDA; empty: what the index has."""

    @property
    def has_cuda(self) -> bool:
        """Whether the index's own PyTorch is the one with CUDA: on Linux alone."""
        return self.platform == "linux-x64" and not self.build

    @property
    def name(self) -> str:
        """Of its lock file, without the ending; :mod:`bridge.setup` looks for it."""
        return "-".join(filter(None, (self.platform, self.build, f"py{self.python.replace('.', '')}")))


_TRIPLES = {
    "linux-x64": "x86_64-manylinux_2_28",
    "windows-x64": "x86_64-pc-windows-msvc",
    "macos-arm64": "aarch64-apple-darwin",
}
"""PyTorch has had no build for Macs with Intel's processors since 2.2."""
PYTHONS = ("3.11", "3.13")
_OLDEST_MACOS = "14.0"
"""Of PyTorch's builds."""
TARGETS = {
    each.name: each
    for each in (
        *(Target(platform, python) for platform in _TRIPLES for python in PYTHONS),
        *(Target("linux-x64", python, "cpu") for python in PYTHONS),
    )
}


def lock(target: Target, folder: Path = LOCKS) -> Path:
    """Resolve one target and write its file; LockError if that fails."""
    path = folder / f"{target.name}.lock"
    with tempfile.TemporaryDirectory(prefix="dreamlathe-lock-") as name:
        versions = Path(name) / "versions.txt"
        versions.write_text(pinned(VERSIONS.read_text(encoding="utf-8"), target.build), encoding="utf-8")
        text = _compile(target, versions)
    if target.build and f"+{target.build}" not in text:
        raise LockError(f"{target.name}: PyTorch's {target.build} build was not found.")
    folder.mkdir(parents=True, exist_ok=True)
    about = f"# The backend on {target.platform}{' without CUDA' if target.build else ''}, CPython {target.python}."
    path.write_text(f"{about} Made by wheels/lock_backend.py.\n{text}", encoding="utf-8")
    return path


def pinned(versions: str, build: str) -> str:
    """The versions as constraints; PyTorch's with its build."""
    return re.sub(r"(?m)^(torch==[\d.]+)$", rf"\1+{build}", versions) if build else versions


def _compile(target: Target, versions: Path) -> str:
    wanted = [str(REQUIREMENTS), *([str(CUDA_REQUIREMENTS)] if target.has_cuda else [])]
    command = [shutil.which("uv") or "uv", "pip", "compile", *wanted, "--constraints", str(versions)]
    command += ["--python-platform", _TRIPLES[target.platform], "--python-version", target.python]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--only-binary", ":all:", "--no-emit-index-url"]
    try:
        variables = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": _OLDEST_MACOS}
        result = subprocess.run([*command, "--quiet"], env=variables, capture_output=True, text=True, check=False)
    except OSError:
        raise LockError("uv was not found. Install it: pip install uv") from None
    if result.returncode:
        raise LockError(f"{target.name}: {' '.join(result.stderr.split())}")
    return result.stdout


def main() -> int:
    """The command line; returns the exit code. A target that fails does not keep the others back."""
    parser = argparse.ArgumentParser(description="Write the lock files of the backend, with hashes.")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    failed = 0
    for name in parser.parse_args().targets:
        try:
            if name not in TARGETS:
                raise LockError(f"{name} is no target; there are: {', '.join(TARGETS)}")
            print(lock(TARGETS[name]), flush=True)
        except LockError as error:
            print(f"Not locked: {error}", file=sys.stderr, flush=True)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The extension inside Blender's Python module, enabled under the name it has when it is installed."""

from __future__ import annotations

import importlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGE = "bl_ext.user_default.dreamlathe"

# Before Blender starts: nothing of the person's own Blender is read or written.
_RESOURCES = tempfile.TemporaryDirectory(prefix="dreamlathe-test-")
os.environ["BLENDER_USER_RESOURCES"] = _RESOURCES.name

from tests.bpy.blender import bpy  # noqa: E402 - Blender reads the environment as it starts


@pytest.fixture(scope="session", autouse=True)
def _enabled() -> Iterator[None]:
    import addon_utils  # comes with bpy

    repository = Path(_RESOURCES.name) / "extensions" / "user_default"
    repository.mkdir(parents=True, exist_ok=True)
    (repository / "dreamlathe").symlink_to(ROOT, target_is_directory=True)
    bpy.ops.extensions.repo_refresh_all()
    assert addon_utils.enable(PACKAGE, default_set=True) is not None
    yield
    addon_utils.disable(PACKAGE, default_set=True)


@pytest.fixture(autouse=True)
def _empty_scene(_enabled: None) -> Iterator[None]:
    import addon_utils

    if not hasattr(bpy.types.Scene, "dreamlathe"):  # a test that failed halfway
        addon_utils.enable(PACKAGE, default_set=True)
    bpy.ops.wm.read_homefile(use_empty=True)
    yield
    part("bridge.supervisor").shutdown()
    part("bridge.queue").clear()
    addon: Any = bpy.context.preferences.addons[PACKAGE].preferences
    addon.python = addon.results = ""


def part(name: str) -> ModuleType:
    """A module of the enabled extension."""
    return importlib.import_module(f"{PACKAGE}.{name}")


@pytest.fixture
def extension() -> Any:
    """Gives modules of the extension by their dotted name."""
    return part


@pytest.fixture
def settings(_empty_scene: None) -> Any:
    """The settings of the scene."""
    return bpy.context.scene.dreamlathe


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """An interpreter that starts the stand-in worker, whatever it is asked to run."""
    python = tmp_path / "stand-in-python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "stand_in_worker.py"}"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


@pytest.fixture
def backend_python(stand_in: Path, tmp_path: Path) -> Path:
    """The same, chosen in the preferences, with results in a folder of the test."""
    addon: Any = bpy.context.preferences.addons[PACKAGE].preferences
    addon.python = str(stand_in)
    addon.results = str(tmp_path / "jobs")
    return stand_in


@pytest.fixture
def command(extension: Any, stand_in: Path, tmp_path: Path) -> Any:
    """The command line, with the stand-in as the backend's Python; results in the test's folder."""
    module = extension("bridge.command_line")

    def run(*arguments: str, prompt: str = "a red duck") -> int:
        return module.main(
            ["generate", "--prompt", prompt, "--python", str(stand_in), "--out", str(tmp_path / "out"), *arguments]
        )

    return run

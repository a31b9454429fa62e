"""The zip, installed as a person installs it, in a Blender of its own; and the real worker behind the real command."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

INSTALL_AND_USE = """
import bpy, importlib, sys
zip_file, python, out = sys.argv[1:]
bpy.ops.extensions.package_install_files(filepath=zip_file, repo="user_default", enable_on_install=True)
name = "bl_ext.user_default.dreamlathe"
addon = bpy.context.preferences.addons[name]
addon.preferences.python = python
here = importlib.import_module(name)
assert "user_default" in here.__file__, here.__file__
blender = importlib.import_module(name + ".bridge.blender")
assert blender.is_installed() and blender.version() == "0.1.0", blender.version()
before = {path for path in blender.ROOT.rglob("*") if "__pycache__" not in path.parts}
environment = importlib.import_module(name + ".preferences").environment()
assert str(blender.ROOT) not in environment["PYTHONPYCACHEPREFIX"]
assert environment["HF_HUB_OFFLINE"] == "1", "Blender is offline unless it is told otherwise"
assert str(importlib.import_module(name + ".preferences").preferences().results_folder()).endswith("jobs")
command = importlib.import_module(name + ".bridge.command_line")
code = command.main(["generate", "--prompt", "a red duck", "--out", out])
assert {path for path in blender.ROOT.rglob("*") if "__pycache__" not in path.parts} == before
bpy.ops.preferences.addon_disable(module=name)
repositories = [each.module for each in bpy.context.preferences.extensions.repos]
bpy.ops.extensions.package_uninstall(repo_index=repositories.index("user_default"), pkg_id="dreamlathe")
assert name not in bpy.context.preferences.addons
sys.exit(code)
"""


def test_the_zip_installs_runs_and_goes(stand_in: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("build_extension", ROOT / "wheels" / "build_extension.py")
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    archive = builder.build(ROOT, tmp_path / "dist")
    result = subprocess.run(
        [sys.executable, "-c", INSTALL_AND_USE, str(archive), str(stand_in), str(tmp_path / "out")],
        env={**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path / "resources")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    assert (tmp_path / "out" / "scene.blend").is_file()
    assert "Traceback" not in result.stderr


@pytest.fixture
def real_python() -> str:
    python = os.environ.get("DREAMLATHE_PYTHON", "")
    if not python:
        pytest.skip("DREAMLATHE_PYTHON does not name the backend's Python")
    return python


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "a duck", "--model", "/no/such/model"], "model"),
        (["--prompt", "a quixotic duck"], "quixotic"),
    ],
)
def test_the_real_worker_answers(real_python: str, tmp_path: Path, arguments: list[str], words: str) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate.py"), "--", *arguments, "--out", str(tmp_path / "out")],
        env={**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path / "resources"), "DREAMLATHE_PYTHON": real_python},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert words in result.stderr
    assert not (tmp_path / "out" / "scene.blend").exists()

"""Where the backend's Python is looked for, what a worker's environment is, and the test of both."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bpy.blender import bpy


@pytest.fixture
def module(extension: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("DREAMLATHE_PYTHON", raising=False)
    return extension("bridge.environment")


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_order(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(module.SetupError, match="not known"):
        module.find_python("", tmp_path)
    local = program(tmp_path / ".venv" / "bin" / "python")
    assert module.find_python("", tmp_path) == local
    named = program(tmp_path / "named")
    monkeypatch.setenv("DREAMLATHE_PYTHON", str(named))
    assert module.find_python("", tmp_path) == named
    chosen = program(tmp_path / "chosen")
    assert module.find_python(f" {chosen} ", tmp_path) == chosen
    with pytest.raises(module.SetupError, match="preferences"):
        module.find_python(str(tmp_path / "missing"), tmp_path)
    monkeypatch.setenv("DREAMLATHE_PYTHON", str(tmp_path / "missing"))
    with pytest.raises(module.SetupError, match="DREAMLATHE_PYTHON"):
        module.find_python("", tmp_path)


def test_a_virtual_environment_is_not_resolved_away(module: Any, tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert module.find_python(str(link)) == link


def test_the_workers_environment(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("SOMETHING", "else")
    environment = module.worker_environment(tmp_path, online=False)
    assert "PYTHONHOME" not in environment
    assert environment["PYTHONPATH"] == str(module.ROOT)
    assert (Path(environment["PYTHONPATH"]) / "backend" / "__init__.py").is_file()
    assert environment["SOMETHING"] == "else"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["NUMBA_CACHE_DIR"].startswith(str(tmp_path))
    assert "HF_HUB_OFFLINE" not in module.worker_environment(None, online=True) or "HF_HUB_OFFLINE" in os.environ
    assert os.environ["PYTHONHOME"] == "/nowhere"


def test_what_a_probe_finds(module: Any, tmp_path: Path) -> None:
    facts = '{"python": "3.11.9", "torch": "2.6", "diffusers": "0.32", "transformers": "4.48", "device": "CPU"}'
    python = program(tmp_path / "python", f"#!/bin/sh\necho a warning\necho '{facts}'\n")
    assert module.run(module.Probe(python, {})).text == "Python 3.11.9, torch 2.6, diffusers 0.32, on CPU"


def test_what_a_probe_tells(module: Any, tmp_path: Path) -> None:
    facts = (
        '{"python": "3", "torch": "2", "diffusers": "0", "transformers": "4", "device": "A GPU", "numpy": "2", '
        '"memory_free": 6e9, "memory": 8e9, "engine": "nvrtc", "step_seconds": 0.06}'
    )
    lines = module.run(module.Probe(program(tmp_path / "python", f"#!/bin/sh\necho '{facts}'\n"), {})).lines
    assert "6.0 of 8.0 GB of memory are free" in lines
    assert "Hash grid: CUDA kernels" in lines
    assert "0.060 s a step, so 2 min for the 1640 of Standard" in lines


def test_what_a_probe_misses(module: Any) -> None:
    """This interpreter has Blender and no PyTorch."""
    with pytest.raises(module.SetupError, match=r"lacks something .*torch"):
        module.run(module.Probe(Path(sys.executable), module.worker_environment()))


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n"])
def test_what_is_no_python(module: Any, tmp_path: Path, text: str) -> None:
    with pytest.raises(module.SetupError, match="not a working Python"):
        module.run(module.Probe(program(tmp_path / "python", text), {}))


def test_a_probe_that_hangs_is_ended(module: Any, tmp_path: Path) -> None:
    probe = module.Probe(program(tmp_path / "python", "#!/bin/sh\nexec sleep 60\n"), {}, timeout=0.2)
    with pytest.raises(module.SetupError, match="not a working Python"):
        module.run(probe)


def test_the_operator_says_what_it_found(extension: Any, tmp_path: Path) -> None:
    preferences: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    preferences.python = str(tmp_path / "missing")
    with pytest.raises(RuntimeError, match="There is no Python at"):
        bpy.ops.dreamlathe.environment_test()
    facts = '{"python": "3", "torch": "2", "diffusers": "0", "transformers": "4", "device": "CPU"}'
    preferences.python = str(program(tmp_path / "python", f"#!/bin/sh\necho '{facts}'\n"))
    assert bpy.ops.dreamlathe.environment_test() == {"FINISHED"}
    assert "torch 2" in extension("preferences")._told["test"]

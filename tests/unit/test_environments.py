"""Set-up: what it finds, what it leaves alone, and what it says when something is missing."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environments() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environments", ROOT / "wheels" / "environments.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["environments"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("BLENDER", raising=False)
    return folder


def program(folder: Path, name: str, says: str, code: int = 0) -> str:
    """A program that says one line and exits."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_python_that_is_too_old_is_named(environments: ModuleType, programs: Path) -> None:
    program(programs, "python3", "Python 3.9")
    with pytest.raises(environments.SetUpError, match=r"Python 3\.11 or newer was not found"):
        environments.find_python()


def test_python_that_does_not_run_is_passed_over(environments: ModuleType, programs: Path) -> None:
    program(programs, "python3.11", "Python 3.11", code=127)
    newer = program(programs, "python3.12", "Python 3.12")
    assert environments.find_python() == newer
    with pytest.raises(environments.SetUpError, match=r"Python 3\.11 was not found"):
        environments.find_python((3, 11))


@pytest.mark.parametrize(
    ("says", "found"), [("Blender 4.1.1", False), ("Blender 4.2.0", True), ("Blender 5.2.2 LTS", True), ("?", False)]
)
def test_blender_must_be_new_enough(environments: ModuleType, programs: Path, says: str, found: bool) -> None:
    path = program(programs, "blender", says)
    assert environments.find_blender() == (path if found else None)


def test_blender_on_path_runs_the_script(environments: ModuleType, programs: Path, tmp_path: Path) -> None:
    path = program(programs, "blender", "Blender 4.5.1")
    # Blender must be told the exit code before the script, or a failing script exits with 0.
    assert environments.headless(tmp_path) == [path, "--background", "--python-exit-code", "1", "--python"]


def test_a_short_disk_is_named(environments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000_000))
    with pytest.raises(environments.SetUpError, match=r"needs about 2\.5 GB and .* has 1\.0 GB free"):
        environments.check_disk(tmp_path, environments.ENVIRONMENTS["backend"])
    environments.check_disk(tmp_path, environments.ENVIRONMENTS["dev"])


def test_an_environment_that_is_current_is_left_alone(
    environments: ModuleType, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the lock's stamp nothing is looked for, not even Python; with another lock the work begins."""
    backend = environments.ENVIRONMENTS["backend"]
    lock = tmp_path / "wheels" / backend.lock
    lock.parent.mkdir()
    lock.write_text("a==1\n", encoding="utf-8")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / ".venv" / ".installed-backend").write_text(hashlib.sha256(b"a==1\n").hexdigest(), encoding="utf-8")
    assert environments.make(backend, tmp_path) == python
    lock.write_text("a==2\n", encoding="utf-8")
    monkeypatch.setattr(environments, "check_disk", lambda *_: None)
    with pytest.raises(environments.SetUpError, match="not found on PATH"):
        environments.make(backend, tmp_path)


def test_a_real_environment_is_made_and_a_failure_leaves_no_stamp(
    environments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to install, so no network: the folder, its Python, the import check and the stamp are real."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "empty.lock").write_text("# nothing\n", encoding="utf-8")
    kind = replace(environments.ENVIRONMENTS["backend"], lock="empty.lock", imports="json", gigabytes=0.0)
    monkeypatch.setattr(environments, "find_python", lambda _: sys.executable)
    broken = replace(kind, imports="no_such_module")
    with pytest.raises(environments.SetUpError, match="No module named 'no_such_module'"):
        environments.make(broken, tmp_path)
    assert not (tmp_path / ".venv" / ".installed-backend").exists()
    assert environments.make(kind, tmp_path).is_file()
    assert (tmp_path / ".venv" / ".installed-backend").is_file()


def test_the_command_line_fails_with_one_line(
    environments: ModuleType, programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "ROOT", programs)
    (programs / "wheels").mkdir()

    def fail(*_: object) -> None:
        raise environments.SetUpError("Python is missing.")

    monkeypatch.setattr(environments, "make", fail)
    assert environments.main(["make", "backend"]) == 1
    assert capsys.readouterr().err == "Set-up stopped: Python is missing.\n"

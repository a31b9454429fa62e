"""Set Up: what this machine gets, the task that Blender steps, and that nothing half-made is ever used."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backend import installer
from tests.bpy.blender import bpy
from tests.bpy.test_environment import program
from tests.unit.fake_wheels import write_all


@pytest.fixture
def module(extension: Any) -> Any:
    return extension("bridge.setup")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Tiny wheels as the only packages there are; gives their lock file."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return write_all(tmp_path / "wheels")


def ready(folder: Path) -> Path:
    python = program(folder / "bin" / "python")
    (folder / installer.READY).write_text("{}")
    return python


def test_both_sides_know_the_mark(extension: Any) -> None:
    assert extension("bridge.environment").READY == installer.READY


def test_only_what_is_finished_is_found(extension: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = extension("bridge.environment")
    monkeypatch.delenv("DREAMLATHE_PYTHON", raising=False)
    program(tmp_path / "half" / "bin" / "python")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / installer.READY).write_text("{}")  # its interpreter is gone
    assert environment.ready_environment(tmp_path) is None
    assert environment.ready_environment(tmp_path / "nowhere") is None
    with pytest.raises(extension("backend.errors").SetupError, match="not known"):
        environment.find_python("", tmp_path, tmp_path)
    old = ready(tmp_path / "old")
    time.sleep(0.02)
    new = ready(tmp_path / "new")
    assert environment.find_python("", tmp_path, tmp_path) == new
    (new.parent.parent / installer.READY).unlink()
    assert environment.find_python("", tmp_path, tmp_path) == old
    chosen = program(tmp_path / "chosen")
    assert environment.find_python(str(chosen), tmp_path, tmp_path) == chosen


def test_an_extension_that_brings_pytorch_along(
    extension: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = extension("bridge.environment")
    monkeypatch.delenv("DREAMLATHE_PYTHON", raising=False)
    root = tmp_path / "extensions" / "user_default" / "dreamlathe"
    (root / "wheels").mkdir(parents=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = tmp_path / "extensions" / ".local" / "lib" / version / "site-packages"
    (packages / "torch").mkdir(parents=True)
    (packages / "torch" / "__init__.py").touch()
    assert environment.bundled_packages(root) is None  # somebody else's
    (root / "wheels" / "torch-2.0-cp311-cp311-linux_x86_64.whl").touch()
    assert environment.bundled_packages(root) == packages
    assert environment.find_python("", root) == Path(sys.executable)
    assert environment.worker_environment(root=root)["PYTHONPATH"].split(":") == [str(root), str(packages)]


@pytest.mark.parametrize(
    ("system", "cuda", "build", "wanted"),
    [
        ("linux-x64", False, "AUTO", ["linux-x64-cpu-py311", "linux-x64-py311"]),
        ("linux-x64", True, "AUTO", ["linux-x64-py311"]),
        ("linux-x64", True, "CPU", ["linux-x64-cpu-py311", "linux-x64-py311"]),
        ("linux-x64", False, "CUDA", ["linux-x64-py311"]),
        ("windows-x64", True, "AUTO", ["windows-x64-py311"]),
        ("macos-arm64", False, "CPU", ["macos-arm64-py311"]),
    ],
)
def test_the_lock_files_of_a_machine(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, cuda: bool, build: str, wanted: list[str]
) -> None:
    monkeypatch.setattr(module, "platform_name", lambda: system)
    monkeypatch.setattr(module, "has_cuda", lambda: cuda)
    monkeypatch.setattr(module, "find_base", lambda: (Path(sys.executable), (3, 11)))
    plan = module.make_plan(tmp_path, build)
    assert [each.stem for each in plan.locks] == wanted
    assert plan.folder.parent == tmp_path
    assert ("3 GB" in plan.about) == (wanted == ["linux-x64-py311"])


def test_a_machine_without_a_lock_file(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: Any
) -> None:
    error = extension("backend.errors").SetupError
    monkeypatch.setattr(module, "platform_name", lambda: "linux-riscv64")
    with pytest.raises(error, match="no set-up for linux-riscv64"):
        module.make_plan(tmp_path)
    monkeypatch.setattr(module, "PYTHONS", ((3, 8),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(error, match=r"PyTorch is set up for 3\.8"):
        module.find_base()
    program(tmp_path / "python3.8")
    assert module.find_base() == (tmp_path / "python3.8", (3, 8))


def test_a_set_up_from_beginning_to_end(
    module: Any, extension: Any, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DREAMLATHE_PYTHON", raising=False)  # it comes before every other
    plan = module.Plan(Path(sys.executable), (offline,), tmp_path / "home" / "new")
    task = module.SetUp(plan, extension("bridge.environment").worker_environment())
    texts, factors = [], []
    longest = 0.0
    while True:
        begin = time.perf_counter()
        more = task.step()
        longest = max(longest, time.perf_counter() - begin)
        texts.append(task.text)
        factors.append(task.factor)
        if not more:
            break
        time.sleep(0.02)
    assert task.error is None, task.error
    assert longest < 0.1
    assert factors == sorted(factors)
    assert factors[-1] == 1.0
    assert "Trying it." in texts
    assert task.python == extension("bridge.environment").ready_environment(tmp_path / "home")
    assert task.python.is_relative_to(plan.folder)
    assert extension("bridge.environment").find_python("", tmp_path, tmp_path / "home") == task.python


def test_a_set_up_that_is_stopped(module: Any, extension: Any, offline: Path, tmp_path: Path) -> None:
    plan = module.Plan(Path(sys.executable), (offline,), tmp_path / "home" / "new")
    task = module.SetUp(plan, extension("bridge.environment").worker_environment())
    while task.text == "Starting.":
        assert task.step()
        time.sleep(0.02)
    task.cancel()
    while task.step():
        time.sleep(0.02)
    assert (task.cancelled, task.error) == (True, None)
    assert not plan.folder.exists()


def test_what_goes_wrong_is_told(module: Any, extension: Any, offline: Path, tmp_path: Path) -> None:
    error = extension("backend.errors").SetupError
    bad = tmp_path / "bad.lock"
    bad.write_text("torch==9.9 --hash=sha256:" + 64 * "0" + "\n")
    environment = extension("bridge.environment").worker_environment()
    with pytest.raises(error, match="no builds for bad"):
        module.run(module.SetUp(module.Plan(Path(sys.executable), (bad,), tmp_path / "a"), environment))
    python = program(tmp_path / "python", "#!/bin/sh\necho broken >&2\nexit 7\n")
    with pytest.raises(error, match=r"ended of itself \(broken\)"):
        module.run(module.SetUp(module.Plan(python, (offline,), tmp_path / "b"), environment))
    with pytest.raises(error, match="does not start"):
        module.SetUp(module.Plan(tmp_path / "nothing", (offline,), tmp_path / "c"), environment)
    assert not [each for each in (tmp_path / "a", tmp_path / "b", tmp_path / "c") if each.exists()]


def test_the_operators(extension: Any, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without leave to go online nothing is set up; with it, everything up to the deletion."""
    operators, preferences = extension("operators.environment"), extension("preferences")
    assert bpy.ops.dreamlathe.environment_set_up.poll() == bpy.app.online_access
    home = tmp_path / "home"
    monkeypatch.setattr(operators, "environments_folder", lambda: home)
    monkeypatch.setattr(
        operators,
        "make_plan",
        lambda root, _: extension("bridge.setup").Plan(Path(sys.executable), (offline,), root / "a"),
    )
    monkeypatch.setattr(operators, "may_go_online", lambda: True)
    assert not bpy.ops.dreamlathe.environment_remove.poll()
    assert not bpy.ops.dreamlathe.environment_cancel.poll()
    assert bpy.ops.dreamlathe.environment_set_up() == {"FINISHED"}
    assert "Set up in" in preferences._told["set_up"]
    assert extension("bridge.environment").ready_environment(home) is not None
    assert bpy.ops.dreamlathe.environment_remove() == {"FINISHED"}
    assert list(home.parent.glob("home*")) == []
    bad = tmp_path / "bad.lock"
    bad.write_text("torch==9.9 --hash=sha256:" + 64 * "0" + "\n")
    monkeypatch.setattr(
        operators, "make_plan", lambda root, _: extension("bridge.setup").Plan(Path(sys.executable), (bad,), root / "b")
    )
    with pytest.raises(RuntimeError, match="no builds for bad"):
        bpy.ops.dreamlathe.environment_set_up()
    assert "no builds for bad" in preferences._told["set_up"]


def test_the_package_index_of_the_preferences(extension: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = extension("preferences")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    assert "PIP_EXTRA_INDEX_URL" not in module.installer_environment()
    values: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    values.package_index = " somewhere "
    assert module.installer_environment()["PIP_EXTRA_INDEX_URL"] == "somewhere"
    values.package_index = ""

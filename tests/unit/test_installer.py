"""The set-up's process: a real virtual environment from tiny wheels, and everything that may go wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backend import installer
from backend.errors import Cancelled, OutputError, SetupError
from backend.events import Failed, Finished, Phase, Progress, decode
from backend.installer import Installer, Tally, explain, is_ready, python_in, remove_others
from tests.unit.fake_wheels import LIBRARIES, write_all

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *locks: Path, wheels: Path | None = None) -> subprocess.Popen[str]:
    """The process, away from any package index."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    variables |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels or folder)}
    command = [sys.executable, "-m", "backend.installer", str(folder), *map(str, locks)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env={**variables, "PYTHONPATH": str(ROOT)}, **pipes)


def events(process: subprocess.Popen[str]) -> list[Any]:
    """Everything it says, to its end."""
    assert process.stdout is not None
    found = [decode(line) for line in process.stdout]
    process.wait(30)
    return found


def test_an_environment_is_made_and_older_ones_go(tmp_path: Path) -> None:
    lock = write_all(tmp_path / "wheels")
    home = tmp_path / "environments"
    (home / "half" / "bin").mkdir(parents=True)
    (home / "half" / "pyvenv.cfg").touch()
    (home / "mine").mkdir()  # no environment: not ours to delete
    said = events(start(home / "new", lock, wheels=tmp_path / "wheels"))
    assert said[-1] == Finished(str(home / "new")), said
    assert None not in said
    assert [each.name for each in said if isinstance(each, Phase)][:2] == ["environment", "download"]
    steps = [each.step for each in said if isinstance(each, Progress)]
    assert steps == sorted(steps)
    assert steps[-1] == 80
    assert is_ready(home / "new")
    assert json.loads((home / "new" / installer.READY).read_text())["lock"] == lock.name
    code = "import torch, skimage, sys; print(torch.__version__, sys.prefix)"
    run = subprocess.run([str(python_in(home / "new")), "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1.0", str(home / "new")]
    assert sorted(each.name for each in home.iterdir()) == ["mine", "new"]


def test_nothing_is_left_when_it_is_stopped(tmp_path: Path) -> None:
    lock = write_all(tmp_path / "wheels")
    process = start(tmp_path / "new", lock, wheels=tmp_path / "wheels")
    assert process.stdout is not None
    assert process.stdin is not None
    assert isinstance(decode(process.stdout.readline()), Phase)
    time.sleep(0.3)
    process.stdin.close()  # Blender is gone, or has said so
    last = events(process)[-1]
    assert isinstance(last, Failed)
    assert last.code == "cancelled"
    assert process.returncode == 130
    assert not (tmp_path / "new").exists()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """An installer whose commands do nothing but make the environment's folder."""
    made = Installer(tmp_path / "new")

    def run(command: list[str], tally: Tally | None, tail: list[str]) -> int:
        if "venv" in command:
            (python_in(made.folder)).parent.mkdir(parents=True)
            python_in(made.folder).touch()
        return 0

    monkeypatch.setattr(made, "_run", run)
    monkeypatch.setattr(made, "_pip", lambda lock: ["pip", str(lock)])
    return made


def lock_of(folder: Path, name: str, text: str = "torch==1.0\n") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_the_next_lock_is_tried_where_there_is_no_build(made: Installer, tmp_path: Path, monkeypatch: Any) -> None:
    first, second = lock_of(tmp_path, "a-cpu.lock"), lock_of(tmp_path, "a.lock")
    plain, said = made._run, ["ERROR: No matching distribution found for torch==1.0+cpu"]

    def run(command: list[str], tally: Tally | None, tail: list[str]) -> int:
        if str(first) in command:
            tail += said
            return 1
        return plain(command, tally, tail)

    monkeypatch.setattr(made, "_run", run)
    made.make([first, second])
    assert json.loads((made.folder / installer.READY).read_text())["lock"] == "a.lock"
    said[:] = ["NewConnectionError: no route", "ERROR: No matching distribution found for torch"]
    with pytest.raises(SetupError, match="cannot be reached"):
        made.make([first, second])
    assert not made.folder.exists()


@pytest.mark.parametrize("imports", [True, False])
def test_what_does_not_work_is_not_kept(made: Installer, tmp_path: Path, monkeypatch: Any, imports: bool) -> None:
    plain = made._run

    def run(command: list[str], tally: Tally | None, tail: list[str]) -> int:
        if any("import torch" in each for each in command) and not imports:
            tail.append("ImportError: libcudart.so.13: cannot open shared object file")
            return 1
        if imports and "pip" in command:
            made.cancel()
        return plain(command, tally, tail)

    monkeypatch.setattr(made, "_run", run)
    with pytest.raises(Cancelled if imports else SetupError, match="Stopped" if imports else "libcudart"):
        made.make([lock_of(tmp_path, "a.lock")])
    assert not made.folder.exists()


def test_a_full_disk_is_told_before_anything_is_made(made: Installer, tmp_path: Path, monkeypatch: Any) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 5 * 10**9))
    with pytest.raises(OutputError):
        made.make([lock_of(tmp_path, "a.lock", "torch==1.0\nnvidia-cublas==1.0\n")])
    assert not made.folder.exists()
    made.make([lock_of(tmp_path, "a.lock")])  # without CUDA there is room enough


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying … Failed to establish a new connection\nERROR: No matching distribution", "be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "not what the lock file names"),
        ("ERROR: Could not find a version that satisfies the requirement torch", "no builds for linux-x64-py311"),
        ("ERROR: something else\nand more", "something else"),
        ("", "no reason given"),
    ],
)
def test_what_pip_says_is_explained(said: str, words: str) -> None:
    error = explain(said, "linux-x64-py311")
    assert words in str(error)
    assert error.hint


def test_progress_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(4)
    tally._said = -1.0
    assert not tally.hear("Collecting torch==1.0 (from -r lock (line 1))\n")
    assert not tally.hear("  Downloading torch-1.0-py3-none-any.whl (184.3 MB)\n")
    tally._said = -1.0
    assert tally.hear("Progress 10 of 20\n")
    assert not tally.hear("Using cached numba-1.0-py3-none-any.whl (2 MB)\n")
    assert not tally.hear("  Downloading scipy-1.0-py3-none-any.whl.metadata (19 kB)\n")  # nothing of its weight yet
    assert not tally.hear("Processing /wheels/xatlas-1.0-py3-none-any.whl (from -r /a/lock (line 2))\n")
    assert not tally.hear("Installing collected packages: torch, numba\n")
    said = [decode(line) for line in capsys.readouterr().out.splitlines()]
    named = [each.message for each in said if isinstance(each, Phase) and each.name == "download"]
    assert named == ["torch (184.3 MB)", "numba (2 MB)", "xatlas"]
    assert [each.step for each in said if isinstance(each, Progress)][-5:] == [0, 10, 20, 40, 80]


def test_only_environments_are_deleted(tmp_path: Path) -> None:
    for name in ("keep", "photos"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "a.png").touch()
    remove_others(tmp_path / "keep")
    assert (tmp_path / "photos" / "a.png").exists()


def test_the_lock_files_name_all_libraries_with_hashes() -> None:
    locks = sorted((ROOT / "wheels" / "locks").glob("*.lock"))
    names = {each.stem for each in locks}
    assert {
        f"{each}-py{python}" for each in ("linux-x64", "windows-x64", "macos-arm64") for python in (311, 313)
    } <= names
    tested = (ROOT / "wheels" / "backend-cpu-linux-py311.lock").read_text()
    pins = {line.split("==")[0].lower(): line for line in tested.splitlines() if "==" in line}
    for lock in locks:
        text = lock.read_text()
        found = installer.requirements(text)
        assert {each.lower() for each in LIBRARIES} <= {each.replace("_", "-").lower() for each in found}, lock
        entries = text.split("\n\n")[0].replace(" \\\n", " ").splitlines()
        pinned = [line for line in entries if "==" in line and not line.startswith("#")]
        assert len(pinned) == len(found)
        assert all("--hash=sha256:" in line for line in pinned), lock
        for line in pinned:
            own = line.split(" ")[0].split(" ;")[0]
            tested_pin = pins.get(own.split("==")[0].lower())
            assert tested_pin is None or own.replace("+cpu", "").lower() == tested_pin.lower(), own
        assert "://" not in text
        assert ("nvidia-" in text) == (lock.stem.startswith("linux-x64-py")), lock

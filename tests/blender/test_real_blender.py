"""A real Blender, with and without a window: the commands a person types, with their exit codes.

$BLENDER is the command that starts Blender without a window (default: blender, where it is on PATH); $BLENDER_WINDOW
is one that starts it with a window (default: the same on a virtual screen by xvfb-run, or on the screen there is).
$DREAMLATHE_PYTHON is the backend's Python, for the test with its own worker. Run ``python -m pytest tests/blender``
where there is the bpy wheel, whose tool builds the zip.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLENDER = shlex.split(os.environ.get("BLENDER", shutil.which("blender") or ""))
PYTHON = os.environ.get("DREAMLATHE_PYTHON", "")
VIRTUAL = ["xvfb-run", "--auto-servernum", "--server-args=-screen 0 1600x900x24"]
NO_SPLASH = "import bpy; bpy.context.preferences.view.show_splash = False; bpy.ops.wm.save_userpref()"
LOOK = """
import bpy, sys
names = [each.name for each in bpy.data.objects]
assert names == ["a red duck"], names
assert bpy.data.images["a red duck"].packed_file is not None
assert bpy.data.objects["a red duck"]["dreamlathe_seed"] == 3
"""


def window_command() -> list[str]:
    """How Blender is started with a window; empty if there is no screen."""
    if "BLENDER_WINDOW" in os.environ:
        return shlex.split(os.environ["BLENDER_WINDOW"])
    if BLENDER and shutil.which(VIRTUAL[0]):
        return [*VIRTUAL, *BLENDER]
    return BLENDER if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else []


WINDOW = window_command()
pytestmark = pytest.mark.skipif(not BLENDER, reason="needs Blender: set BLENDER to the command that starts it")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Blender's resources of its own, the extension installed, and the stand-in interpreter."""
    home = tmp_path_factory.mktemp("blender")
    (home / "resources").mkdir()
    stand_in = home / "python"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tests" / "bpy" / "stand_in_worker.py"}"\n')
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    spec = importlib.util.spec_from_file_location("build_extension", ROOT / "wheels" / "build_extension.py")
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    archive = builder.build(ROOT, home / "dist")
    done = blender(home, "--command", "extension", "install-file", "-r", "user_default", "--enable", str(archive))
    assert done.returncode == 0, done.stderr
    done = blender(home, "-b", "--python-expr", NO_SPLASH)  # it would take the first key that is pressed
    assert done.returncode == 0, done.stderr
    return home


def blender(
    home: Path, *arguments: str, start: list[str] = BLENDER, resources: str = "resources", timeout: float = 180.0
) -> subprocess.CompletedProcess[str]:
    """Run Blender to its end."""
    (home / resources).mkdir(exist_ok=True)
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(home / resources)}
    return subprocess.run(
        [*start, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


def own_errors(text: str) -> list[str]:
    """The extension's lines on the standard error; others come from Blender and its surroundings."""
    return [line for line in text.splitlines() if line.startswith("dreamlathe")]


def test_the_command(home: Path, tmp_path: Path) -> None:
    own = ["--seed", "3", "--python", str(home / "python"), "--out", str(tmp_path / "out")]
    done = blender(home, "--command", "dreamlathe", "generate", "--prompt", "a red duck", *own)
    assert done.returncode == 0, done.stderr
    (tmp_path / "look.py").write_text(LOOK)
    blend = str(tmp_path / "out" / "scene.blend")
    look = blender(home, "-b", blend, "--python-exit-code", "7", "--python", str(tmp_path / "look.py"))
    assert look.returncode == 0, look.stderr
    again = blender(home, blend, "--command", "dreamlathe", "generate", *own, "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr  # the prompt is that of the file
    assert (tmp_path / "again" / "scene.blend").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--prompt", "a duck that fails"], 2, "zebra"),
        (["--prompt", "a duck that dies"], 1, "MemoryError"),
        (["--prompt", ""], 2, "prompt is empty"),
        (["--prompt", "a duck", "--set", "optimize.iterations=-1"], 2, "optimize.iterations"),
    ],
)
def test_the_command_fails_with_a_code(home: Path, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    own = ["--python", str(home / "python"), "--out", str(tmp_path / "out")]
    done = blender(home, "--command", "dreamlathe", "generate", *arguments, *own)
    assert done.returncode == code
    assert len(own_errors(done.stderr)) == 1, done.stderr
    assert words in own_errors(done.stderr)[0]
    assert not (tmp_path / "out" / "scene.blend").exists()


@pytest.mark.parametrize("resources", ["resources", "empty"])
def test_the_script(home: Path, tmp_path: Path, resources: str) -> None:
    """With the extension installed, and in a Blender that knows nothing of it."""
    own = ["--python", str(home / "python"), "--out", str(tmp_path / "out"), "--seed", "3"]
    script = ["-b", "--python", str(ROOT / "scripts" / "generate.py"), "--", *own]
    assert blender(home, *script, "--prompt", "a red duck", resources=resources).returncode == 0
    assert (tmp_path / "out" / "scene.blend").is_file()
    failed = blender(home, *script, "--prompt", "a duck that fails", resources=resources)
    assert failed.returncode == 2
    assert len(own_errors(failed.stderr)) == 1


def test_ctrl_c_cancels(home: Path, tmp_path: Path) -> None:
    own = ["--prompt", "a duck that takes long", "--python", str(home / "python"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*BLENDER, "--command", "dreamlathe", "generate", *own],
        env={**os.environ, "BLENDER_USER_RESOURCES": str(home / "resources")},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Optimize" in line:
            break
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert own_errors(errors) == ["dreamlathe: Stopped."]
    assert process.returncode in {130, -signal.SIGINT}  # the latter from a shell around Blender


@pytest.mark.skipif(not WINDOW, reason="needs a screen: set BLENDER_WINDOW to the command that starts Blender on it")
def test_the_window(home: Path, tmp_path: Path) -> None:
    script = [
        "--enable-event-simulate",
        "--python",
        str(ROOT / "tests" / "blender" / "window.py"),
        "--",
        str(home / "python"),
        str(tmp_path),
    ]
    done = blender(home, *script, start=WINDOW, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "window: all is well" in done.stdout
    assert "Traceback" not in done.stderr, done.stderr  # of a draw or a handler, which Blender swallows
    print(*(line for line in done.stdout.splitlines() if line.startswith("window:")), sep="\n")  # shown by pytest -rP


@pytest.mark.skipif(not WINDOW, reason="needs a screen: set BLENDER_WINDOW to the command that starts Blender on it")
@pytest.mark.skipif(not PYTHON, reason="needs the backend: set DREAMLATHE_PYTHON to a Python that has it")
def test_the_real_worker(home: Path, tmp_path: Path) -> None:
    script = ["--python", str(ROOT / "tests" / "blender" / "real_worker.py"), "--", PYTHON, str(tmp_path)]
    done = blender(home, *script, start=WINDOW, timeout=1500)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "worker: all is well" in done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    print(*(line for line in done.stdout.splitlines() if line.startswith("worker:")), sep="\n")

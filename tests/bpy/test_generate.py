"""Generate without a window: the operator, the command line, the script; every end has its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bpy.blender import Matrix, Vector, bpy

ROOT = Path(__file__).resolve().parents[2]


def test_the_operator_blocks_and_places_the_result(backend_python: Path, settings: Any, tmp_path: Path) -> None:
    settings.prompt = "a red duck"
    assert bpy.ops.dreamlathe.generate() == {"FINISHED"}
    assert [each.name for each in bpy.context.scene.objects] == ["a red duck"]
    assert len(list((tmp_path / "jobs").iterdir())) == 1
    bpy.data.objects.remove(bpy.data.objects["a red duck"])
    assert bpy.ops.dreamlathe.generate("INVOKE_DEFAULT") == {"FINISHED"}  # without a window this runs execute
    assert [each.name for each in bpy.context.scene.objects] == ["a red duck"]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a duck that fails", "The word zebra is not known"),
        ("a duck that dies", "MemoryError"),
        ("a duck that has no mesh", "mesh.glb cannot be read"),
    ],
)
def test_the_operator_says_what_went_wrong(backend_python: Path, settings: Any, prompt: str, words: str) -> None:
    settings.prompt = prompt
    with pytest.raises(RuntimeError, match=words):
        bpy.ops.dreamlathe.generate()
    assert len(bpy.data.objects) == 0


def test_the_operator_needs_a_prompt(backend_python: Path, settings: Any) -> None:
    assert not bpy.ops.dreamlathe.generate.poll()
    settings.prompt = "  "
    assert not bpy.ops.dreamlathe.generate.poll()
    settings.prompt = "a duck"
    assert bpy.ops.dreamlathe.generate.poll()


def test_the_command_makes_a_blend(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--seed", "7", "--preset", "draft", "--blend", str(tmp_path / "x" / "duck.blend")) == 0
    said = capsys.readouterr().out
    assert "Optimize 20/20" in said
    assert "Warning: This is a stand-in." in said
    request = json.loads((tmp_path / "out" / "request.json").read_text())
    assert (request["prompt"], request["seed"], request["preset"], request["optimize"]["iterations"]) == (
        "a red duck",
        7,
        "draft",
        300,
    )
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "x" / "duck.blend"))
    assert [each.name for each in bpy.data.objects] == ["a red duck"]
    settings: Any = bpy.context.scene.dreamlathe
    assert (settings.prompt, settings.seed, settings.preset) == ("a red duck", 7, "draft")


def test_the_command_reads_the_rig_and_the_settings_of_a_file(command: Any, extension: Any, tmp_path: Path) -> None:
    rig = extension("bridge.rig").add_rig(bpy.context.scene, Matrix.LocRotScale((1, 2, 3), None, (2, 2, 2)))
    settings: Any = bpy.context.scene.dreamlathe
    settings.seed, settings.mesh.faces, settings.guidance.guidance_scale = 5, 1234, 30.0
    for index, x in enumerate((8.0, -8.0)):
        camera = bpy.data.objects.new(f"Camera {index}", bpy.data.cameras.new("Camera"))
        turn = Matrix.Rotation(np.copysign(np.pi / 2, x), 4, "Z") @ Matrix.Rotation(np.pi / 2, 4, "X")
        camera.matrix_world = Matrix.Translation((x + 1, 2, 3)) @ turn
        bpy.context.scene.collection.objects.link(camera)
    assert rig.name == "Dreamlathe Rig"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "rig.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    assert command("--open", str(tmp_path / "rig.blend"), "--cameras", "scene", "--set", "mesh.faces=777") == 0
    request = json.loads((tmp_path / "out" / "request.json").read_text())
    assert (request["seed"], request["mesh"]["faces"], request["guidance"]["guidance_scale"]) == (5, 777, 30.0)
    assert [each["name"] for each in request["cameras"]] == ["Camera 0", "Camera 1"]
    assert [row[3] for row in request["cameras"][0]["camera_to_world"]] == pytest.approx([4, 0, 0, 1])
    result = bpy.data.objects["a red duck"]
    base = Vector((0.0, -0.2, -0.4))  # of the stand-in's box
    assert np.allclose(result.matrix_world, Matrix.LocRotScale(Vector((1, 2, 3)) + 2 * base, None, (2, 2, 2)))
    assert Path(bpy.data.filepath) == tmp_path / "out" / "scene.blend"


def test_the_command_takes_no_objects_from_the_start_up_file(command: Any) -> None:
    bpy.ops.wm.read_homefile(use_factory_startup=True)
    assert "Cube" in bpy.data.objects
    assert command() == 0
    assert [each.name for each in bpy.data.objects] == ["a red duck"]


@pytest.mark.parametrize(
    ("arguments", "prompt", "code", "words"),
    [
        ((), "", 2, "The prompt is empty"),
        (("--seed", "-1"), "a duck", 2, "seed is -1"),
        (("--seed", "x"), "a duck", 2, "invalid int"),
        (("--preset", "best"), "a duck", 2, "invalid choice"),
        (("--set", "optimize.iterations=0"), "a duck", 2, "optimize.iterations"),
        (("--set", "optimize.orientation_weight=nan"), "a duck", 2, "optimize.orientation_weight is nan"),
        (("--set", "mesh.texture_size=60000"), "a duck", 2, "mesh.texture_size"),
        (("--set", "nonsense=1"), "a duck", 2, "nonsense"),
        (("--set", "nonsense"), "a duck", 2, "no value"),
        (("--open", "/no/such.blend"), "a duck", 2, "cannot be opened"),
        (("--cameras", "scene"), "a duck", 2, "no cameras"),
        (("--python", "/no/such/python"), "a duck", 1, "There is no Python"),
        (("--blend", "/proc/x/a.blend"), "a duck", 2, "cannot be written"),
        (("--blend", "/dev/null/a.blend"), "a duck", 2, "cannot be written"),
        (("--blend", "a.txt"), "a duck", 2, "End it with .blend"),
        ((), "a duck that fails", 2, "zebra"),
        ((), "a duck that dies", 1, "exit code 3"),
        ((), "a duck that is killed", 1, "killed"),
        ((), "a duck that has no mesh", 2, "mesh.glb cannot be read"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    command: Any, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], prompt: str, code: int, words: str
) -> None:
    assert command(*arguments, prompt=prompt) == code
    said = capfd.readouterr().err
    own = [line for line in said.splitlines() if line.startswith("dreamlathe")]
    assert len(own) == 1, said
    assert words in own[0]
    assert "Traceback" not in said


def test_help_and_nothing(extension: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main = extension("bridge.command_line").main
    assert main(["--help"]) == 0
    assert main([]) == 2
    assert main(["generate", "--help"]) == 0
    assert "--preset" in capsys.readouterr().out


def test_signals_are_as_they_were(command: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert command() == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def script(stand_in: Path, tmp_path: Path, prompt: str, *arguments: str) -> subprocess.Popen[str]:
    """scripts/generate.py in a process of its own, as a Blender module that has nothing enabled."""
    resources = tmp_path / "resources"
    resources.mkdir(exist_ok=True)
    own = ["--prompt", prompt, "--python", str(stand_in), "--out", str(tmp_path / "out"), *arguments]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "generate.py"), "--", *own],
        cwd=tmp_path,
        env={**os.environ, "BLENDER_USER_RESOURCES": str(resources)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_script_from_a_checkout(stand_in: Path, tmp_path: Path) -> None:
    process = script(stand_in, tmp_path, "a red duck", "--blend", str(tmp_path / "duck.blend"))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Done in" in output
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "duck.blend"))
    assert [each.name for each in bpy.data.objects] == ["a red duck"]
    assert bpy.data.images[0].packed_file is not None


def test_the_script_fails_with_a_code(stand_in: Path, tmp_path: Path) -> None:
    process = script(stand_in, tmp_path, "a duck that fails")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip() == "dreamlathe: The word zebra is not known. Known are: duck, car."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_script(stand_in: Path, tmp_path: Path, number: int) -> None:
    process = script(stand_in, tmp_path, "a duck that takes long")
    assert process.stdout is not None
    deadline = time.monotonic() + 30
    while "Optimize" not in process.stdout.readline():
        assert time.monotonic() < deadline
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.strip() == "dreamlathe: Stopped."
    assert not (tmp_path / "out" / "scene.blend").exists()

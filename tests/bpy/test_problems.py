"""What stands in a job's way is named, and its button repairs it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bpy.blender import Matrix, bpy


@pytest.fixture
def found(extension: Any, backend_python: Path, settings: Any) -> Any:
    """The problems of now, as text."""
    settings.prompt = "a red duck"

    def run() -> list[Any]:
        return extension("bridge.problems").find_problems(bpy.context)

    return run


def repair(problem: Any, number: int = 0) -> None:
    """Press a problem's button."""
    button = problem.repairs[number]
    module, name = button.operator.split(".")
    assert getattr(getattr(bpy.ops, module), name)(**button.values) == {"FINISHED"}


def test_nothing_is_wrong(found: Any) -> None:
    assert found() == []
    assert bpy.ops.dreamlathe.generate.poll()


def test_an_empty_prompt(found: Any, settings: Any) -> None:
    settings.prompt = " "
    (problem,) = found()
    assert "empty" in problem.text
    assert not bpy.ops.dreamlathe.generate.poll()
    repair(problem)
    assert (settings.prompt, found()) == ("a red duck", [])


def test_a_word_the_model_does_not_know(found: Any, settings: Any) -> None:
    settings.prompt = "a read zebra with a hat"
    (problem,) = found()
    assert problem.text == "The model does not know “read”, “zebra”"
    assert not problem.blocking
    repair(problem)
    assert settings.prompt == "a red zebra with a hat"
    assert bpy.ops.dreamlathe.generate.poll()  # the worker has the last word
    settings.model = "someone/else"
    assert all("zebra" not in each.text for each in found())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (" ", "No model"),
        ("/no/such/folder", "does not exist"),
        ("someone/model", "may not go online"),
        ("{tmp}", "no model_index.json"),
    ],
)
def test_a_model_that_is_not_there(found: Any, settings: Any, tmp_path: Path, model: str, words: str) -> None:
    settings.model = model.format(tmp=tmp_path)
    (problem,) = found()
    assert words in problem.text
    repair(problem, -1)
    assert (settings.model, found()) == ("toybox", [])


def test_a_model_of_the_hub_that_is_there(found: Any, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "models--someone--model" / "snapshots").mkdir(parents=True)
    preferences: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    settings.model = "someone/model"
    preferences.models = str(tmp_path)
    assert found() == []
    settings.model = "someone/model@v2"
    assert found() == []
    preferences.models = ""


def test_a_checkpoint_in_one_file(found: Any, settings: Any, tmp_path: Path) -> None:
    settings.model = str(tmp_path / "tuned.safetensors")
    (problem,) = found()
    assert "does not exist" in problem.text
    (tmp_path / "tuned.safetensors").write_bytes(b"weights")
    assert found() == []
    settings.source = "BOTH"  # a model of pictures is a folder
    settings.view_model = settings.model
    assert any("model for pictures's folder does not exist" in problem.text for problem in found())


def test_no_cameras(found: Any, settings: Any) -> None:
    settings.camera_source = "SELECTED"
    (problem,) = found()
    assert "no camera" in problem.text
    repair(problem)
    assert (settings.camera_source, found()) == ("COLLECTION", [])
    settings.camera_source = "SELECTED"
    for camera in bpy.data.objects:
        camera.select_set(False)
    repair(found()[0], 1)
    assert (settings.camera_source, found()) == ("ORBIT", [])


def test_a_camera_without_perspective(found: Any) -> None:
    bpy.ops.dreamlathe.cameras_add(count=3)
    bpy.data.cameras[0].type = "ORTHO"
    (problem,) = found()
    assert "no perspective" in problem.text
    repair(problem)
    assert found() == []


def test_a_stretched_rig_and_a_camera_inside(found: Any, settings: Any) -> None:
    bpy.ops.dreamlathe.rig_add()
    bpy.ops.dreamlathe.cameras_add(count=2)
    settings.rig.scale = (1, 1, -2)
    bpy.context.view_layer.update()
    (problem,) = found()
    assert "stretched or mirrored" in problem.text
    repair(problem)
    bpy.context.view_layer.update()
    assert found() == []
    bpy.data.objects["Orbit 1"].matrix_world = Matrix.Translation((0, 0, 0.5))
    bpy.context.view_layer.update()
    assert "Orbit 1 stands inside" in found()[0].text


def test_no_environment(found: Any) -> None:
    preferences: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    preferences.python = "/no/such/python"
    (problem,) = found()
    assert "There is no Python at" in problem.text
    assert [each.operator for each in problem.repairs] == ["preferences.addon_show"]


def test_no_environment_yet(found: Any, extension: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set Up is offered, once Blender may go online."""
    preferences: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    preferences.python = ""
    monkeypatch.delenv("DREAMLATHE_PYTHON", raising=False)
    monkeypatch.setattr(extension("bridge.environment"), "ROOT", tmp_path)
    monkeypatch.setattr(extension("preferences"), "find_python", lambda *_, **__: _missing(extension))
    (problem,) = found()
    wanted = "dreamlathe.environment_set_up" if bpy.app.online_access else "extensions.userpref_allow_online"
    assert [each.operator for each in problem.repairs] == [wanted, "preferences.addon_show"]
    assert bpy.ops.dreamlathe.environment_set_up.poll() == bpy.app.online_access


def _missing(extension: Any) -> Path:
    raise extension("backend.errors").SetupError("The Python of the backend is not known.")


def test_no_room(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))
    assert "no room" in found()[0].text


def test_a_folder_that_cannot_be_written(found: Any) -> None:
    preferences: Any = bpy.context.preferences.addons["bl_ext.user_default.dreamlathe"].preferences
    preferences.results = "/proc/jobs"
    assert "no room" in found()[0].text or "cannot be written" in found()[0].text

"""Pictures as the source: the scene's list, cameras' backgrounds and prompts, what is wrong with them, and the job."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bpy.blender import Matrix, bpy
from tests.bpy.test_pictures import backed_camera, new_image, saved_image
from tests.bpy.test_problems import repair
from tests.bpy.test_rig import looking_at_origin


@pytest.fixture
def pictured(settings: Any, tmp_path: Path, backend_python: Path) -> Any:
    """Settings whose source is one picture of a file, without a model."""
    saved_image(tmp_path / "duck.png", 64, 48)
    settings.source, settings.view_model = "PICTURE", "none"
    assert bpy.ops.dreamlathe.picture_add(filepath=str(tmp_path / "duck.png")) == {"FINISHED"}
    return settings


def plan(extension: Any) -> Any:
    return extension("bridge.generation").make_plan(bpy.context).request


def texts(extension: Any) -> list[str]:
    return [each.text for each in extension("bridge.problems").find_problems(bpy.context)]


def test_a_picture_alone(extension: Any, pictured: Any, tmp_path: Path) -> None:
    pictured.prompt = "a red zebra"  # of no use here, and left alone
    item = pictured.pictures[0]
    item.azimuth, item.elevation, item.framing, item.weight = -30.0, 12.5, "as-is", 2.0
    item.depth = str(tmp_path / "duck.png")
    request = plan(extension)
    (reference,) = request.references
    assert (request.prompt, request.title, pictured.prompt) == ("", "duck", "a red zebra")
    assert (reference.file, reference.name) == (str(tmp_path / "duck.png"), "duck.png")
    assert (reference.azimuth, reference.elevation, reference.framing, reference.weight) == (-30.0, 12.5, "as-is", 2.0)
    assert (reference.distance, reference.field_of_view, reference.camera) == (3.0, 40.0, None)
    assert (reference.depth, reference.normals) == (str(tmp_path / "duck.png"), "")
    assert texts(extension) == []


def test_the_source_decides(extension: Any, pictured: Any) -> None:
    pictured.prompt = "a red duck"
    pictured.source = "BOTH"
    assert (plan(extension).prompt, len(plan(extension).references)) == ("a red duck", 1)
    pictured.source = "PROMPT"
    assert (plan(extension).prompt, plan(extension).references) == ("a red duck", ())


def test_generate_runs_it_and_names_the_result(pictured: Any, tmp_path: Path) -> None:
    assert bpy.ops.dreamlathe.generate.poll()
    assert bpy.ops.dreamlathe.generate() == {"FINISHED"}
    (folder,) = (tmp_path / "jobs").iterdir()
    request = json.loads((folder / "request.json").read_text())
    assert [each["file"] for each in request["references"]] == [str(tmp_path / "duck.png")]
    assert "duck" in bpy.data.objects


def test_a_picture_seen_from_a_camera_is_that_of_the_command(extension: Any, pictured: Any, tmp_path: Path) -> None:
    """With a background: what --from-camera takes. Without one: the same as if it lay there, fitted."""
    camera = backed_camera(saved_image(tmp_path / "back.png", 90, 40), frame_method="CROP", scale=1.2)
    bpy.context.scene.camera = camera
    pictured.pictures.clear()
    assert bpy.ops.dreamlathe.picture_from_camera() == {"FINISHED"}
    assert not bpy.ops.dreamlathe.picture_from_camera.poll()  # it is there already
    background = extension("bridge.pictures").background_picture(bpy.context, camera, Matrix.Identity(4))
    assert plan(extension).references == (background,)
    item, behind = pictured.pictures[0], camera.data.background_images[0]
    item.image = behind.image
    assert plan(extension).references == (background,)
    behind.frame_method, behind.scale = "FIT", 1.0
    fitted = extension("bridge.pictures").background_picture(bpy.context, camera, Matrix.Identity(4))
    camera.data.background_images.clear()
    assert plan(extension).references == (fitted,)


def test_cameras_that_are_looked_from_bring_their_pictures_and_prompts(
    extension: Any, pictured: Any, tmp_path: Path
) -> None:
    bpy.ops.dreamlathe.cameras_add(count=3)
    cameras = sorted(pictured.camera_collection.objects, key=lambda each: each.name)
    cameras[0].data.background_images.new().image = saved_image(tmp_path / "front.png", 32, 32)
    cameras[1].dreamlathe_prompt = " a green duck "
    pictured.prompt, pictured.source = "a red duck", "BOTH"
    request = plan(extension)
    assert [each.prompt for each in request.cameras] == ["", " a green duck ", ""]
    assert [each.title for each in request.references] == ["duck", "front"]
    assert request.references[1].camera.name == cameras[0].name
    pictured.pictures[0].camera = cameras[0]  # in the list: not a second time
    assert [each.title for each in plan(extension).references] == ["duck"]
    pictured.pictures.clear()
    pictured.camera_pictures = False
    assert texts(extension) == ["There is no picture"]
    pictured.source = "PICTURE"
    pictured.camera_pictures = True
    request = plan(extension)
    assert [each.prompt for each in request.cameras] == ["", "", ""]  # a source without words
    assert [each.title for each in request.references] == ["front"]


def test_a_camera_prompt_survives_the_file(settings: Any, tmp_path: Path) -> None:
    camera = backed_camera(new_image(8, 8))
    camera.dreamlathe_prompt = "a face"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    assert bpy.data.objects["Camera"].dreamlathe_prompt == "a face"


def test_no_picture(extension: Any, pictured: Any) -> None:
    pictured.pictures.clear()
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert (problem.text, problem.blocking) == ("There is no picture", True)
    assert [each.operator for each in problem.repairs][:2] == [
        "dreamlathe.picture_add",
        "dreamlathe.picture_from_camera",
    ]
    assert not bpy.ops.dreamlathe.generate.poll()
    with pytest.raises(extension("backend.errors").RequestError, match="There is no picture"):
        plan(extension)
    pictured.prompt = "a red duck"
    repair(problem, -1)
    assert (pictured.source, texts(extension)) == ("PROMPT", [])


def test_both_without_a_prompt(extension: Any, pictured: Any) -> None:
    pictured.source = "BOTH"
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert "prompt is empty" in problem.text
    repair(problem, 1)
    assert (pictured.source, texts(extension)) == ("PICTURE", [])


def test_an_image_that_is_missing(extension: Any, pictured: Any, tmp_path: Path) -> None:
    (tmp_path / "duck.png").unlink()
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert problem.text == "The file of the image duck.png is missing"
    saved_image(tmp_path / "other.png", 32, 32)
    assert bpy.ops.dreamlathe.picture_add(filepath=str(tmp_path / "other.png"), **problem.repairs[0].values)
    assert [each.image.name for each in pictured.pictures] == ["other.png"]
    assert texts(extension) == []
    pictured.pictures.add()
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert problem.text == "Picture 2 has no image"
    repair(problem, 1)
    assert (len(pictured.pictures), texts(extension)) == (1, [])


def test_a_packed_image_needs_no_file(extension: Any, pictured: Any, tmp_path: Path) -> None:
    content = (tmp_path / "duck.png").read_bytes()
    pictured.pictures[0].image.pack()
    (tmp_path / "duck.png").unlink()
    assert texts(extension) == []
    (reference,) = plan(extension).references
    assert (Path(reference.file).read_bytes(), reference.name) == (content, "duck.png")


def test_maps_that_are_missing(extension: Any, pictured: Any) -> None:
    pictured.pictures[0].normals = "/no/such/normals.png"
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert problem.text == "The file of the normals of picture 1 is missing"
    repair(problem)
    assert (pictured.pictures[0].normals, texts(extension)) == ("", [])


def test_cameras_that_saw_nothing_useful(extension: Any, pictured: Any) -> None:
    image = pictured.pictures[0].image
    camera = backed_camera(image, offset=(0.1, 0.0), use_flip_x=True)
    pictured.pictures[0].camera = camera
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert problem.text == "The picture behind Camera is moved, turned or mirrored"
    repair(problem)
    assert texts(extension) == []
    camera.data.type = "ORTHO"
    repair(extension("bridge.problems").find_problems(bpy.context)[0])
    assert (camera.data.type, texts(extension)) == ("PERSP", [])
    camera.matrix_world = Matrix.Translation((0, 0, 0.5))
    bpy.context.view_layer.update()
    assert texts(extension) == ["Camera stands inside the rig's ball"]
    camera.data.background_images.clear()
    camera.matrix_world = looking_at_origin(1.0, -4.0, 1.5)
    pictured.pictures[0].image = None
    bpy.context.view_layer.update()
    assert texts(extension) == ["Camera has no picture behind it"]


def test_the_model_for_pictures(extension: Any, pictured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = extension("bridge.model_problems")
    monkeypatch.setattr(module, "VIEW_WEIGHTS", tmp_path)
    pictured.view_model = "toybox-views"
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert "no weights" in problem.text
    (tmp_path / "model_index.json").touch()
    assert texts(extension) == []
    (tmp_path / "model_index.json").unlink()
    repair(problem)
    assert (pictured.view_model, texts(extension)) == ("none", [])
    for name, words in ((" ", "No model for pictures"), ("/no/where", "does not exist"), ("a/b", "may not go online")):
        pictured.view_model = name
        (problem,) = extension("bridge.problems").find_problems(bpy.context)
        assert words in problem.text


def test_strange_words_in_a_camera_prompt(extension: Any, settings: Any, backend_python: Path) -> None:
    settings.prompt = "a red duck"
    bpy.ops.dreamlathe.cameras_add(count=1)
    (camera,) = settings.camera_collection.objects
    camera.dreamlathe_prompt = "a zebra"
    (problem,) = extension("bridge.problems").find_problems(bpy.context)
    assert (problem.text, problem.blocking) == ("The model does not know “zebra” in the prompt of Orbit 1", False)
    repair(problem)
    assert (camera.dreamlathe_prompt, texts(extension)) == ("", [])


def test_recalled_pictures(extension: Any, pictured: Any, tmp_path: Path) -> None:
    """Those of the orbit, those of a camera that is there, and those of one that is gone."""
    camera = backed_camera(saved_image(tmp_path / "back.png", 64, 64))
    camera.data.background_images[0].scale = 1.0
    pictured.pictures[0].azimuth = 45.0
    item = pictured.pictures.add()
    item.camera = camera
    before = plan(extension)
    module, properties = extension("bridge.pictures"), extension("properties")
    pictured.pictures.clear()
    pictured.source = "PROMPT"
    properties.from_request(pictured, before)
    assert module.list_pictures(bpy.context.scene, pictured, before.references) == []
    assert pictured.source == "PICTURE"
    assert plan(extension).references == before.references
    bpy.data.objects.remove(camera)
    assert module.list_pictures(bpy.context.scene, pictured, before.references) == []
    gone = plan(extension).references[1]
    assert gone.is_as_is
    place = [row[3] for row in before.references[1].camera.camera_to_world[:3]]
    assert gone.distance == pytest.approx(math.dist(place, (0, 0, 0)), rel=1e-5)
    (tmp_path / "duck.png").unlink()
    bpy.data.images.remove(pictured.pictures[0].image)
    assert module.list_pictures(bpy.context.scene, pictured, before.references) == ["duck"]


def test_the_command_takes_the_scenes_pictures(command: Any, pictured: Any, tmp_path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    assert command("--open", str(tmp_path / "a.blend"), prompt="") == 0
    request = json.loads((tmp_path / "out" / "request.json").read_text())
    assert ([each["name"] for each in request["references"]], request["prompt"]) == (["duck.png"], "")
    more = ("--open", str(tmp_path / "a.blend"), "--out", str(tmp_path / "both"))
    assert command(*more, prompt="a red duck") == 0
    request = json.loads((tmp_path / "both" / "request.json").read_text())
    assert (len(request["references"]), request["prompt"]) == (1, "a red duck")
    saved_image(tmp_path / "cat.png", 32, 32)
    more = ("--open", str(tmp_path / "a.blend"), "--out", str(tmp_path / "cat"), "--image", str(tmp_path / "cat.png"))
    assert command(*more, prompt="") == 0
    request = json.loads((tmp_path / "cat" / "request.json").read_text())
    assert [Path(each["file"]).name for each in request["references"]] == ["cat.png"]
    saved = bpy.context.scene.dreamlathe  # the file that was saved says how it was made
    assert (saved.source, [each.image.name for each in saved.pictures]) == ("PICTURE", ["cat.png"])


def test_every_property_of_a_picture_says_what_it_is(settings: Any) -> None:
    item = settings.pictures.add()
    for prop in item.bl_rna.properties:
        if prop.identifier not in {"rna_type", "name"}:
            assert len(prop.description) > 3, prop.identifier
    assert {"image", "camera", "azimuth", "elevation", "distance", "field_of_view", "weight", "cutout"} <= set(
        item.bl_rna.properties.keys()
    )


def test_dropped_pictures(extension: Any, settings: Any, tmp_path: Path) -> None:
    """On the tab they are taken, and the source becomes one of pictures; the next press of a button asks again."""
    handler = extension("operators.pictures").DREAMLATHE_FH_pictures
    places = {"VIEW_3D": {"UI": True, "WINDOW": False}, "IMAGE_EDITOR": {"UI": False}}
    for area, regions in places.items():
        for region, wanted in regions.items():
            context = SimpleNamespace(area=SimpleNamespace(type=area), region=SimpleNamespace(type=region))
            assert handler.poll_drop(context) is wanted
    other = SimpleNamespace(type="UI", active_panel_category="Item")
    assert not handler.poll_drop(SimpleNamespace(area=SimpleNamespace(type="VIEW_3D"), region=other))
    files = [{"name": "one.png"}, {"name": "two.png"}]
    for each in files:
        saved_image(tmp_path / each["name"], 8, 8)

    def drop() -> Any:
        return bpy.ops.dreamlathe.picture_add("INVOKE_DEFAULT", directory=str(tmp_path), files=files)

    settings.prompt = ""
    assert drop() == {"FINISHED"}
    assert (settings.source, len(settings.pictures)) == ("PICTURE", 2)
    settings.source, settings.prompt = "PROMPT", "a duck"
    assert drop() == {"FINISHED"}
    assert (settings.source, len(settings.pictures)) == ("BOTH", 4)

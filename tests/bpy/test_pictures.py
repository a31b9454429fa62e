"""Pictures behind cameras: where they lie in the frame, what is written of them, and the command that takes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import cameras as plain
from backend.reference import FixedCamera
from tests.bpy.blender import Matrix, bpy
from tests.bpy.test_rig import POINTS, add_camera, frame, in_frame, looking_at_origin


def new_image(width: int, height: int, name: str = "Backdrop") -> Any:
    image = bpy.data.images.new(name, width, height)
    pixels = np.ones((height, width, 4), np.float32)
    pixels[height // 4 : height // 2, width // 4 : width // 2, :3] = (0.8, 0.1, 0.1)
    image.pixels.foreach_set(pixels.ravel())
    image.update()
    return image


def saved_image(path: Path, width: int, height: int) -> Any:
    image = new_image(width, height)
    image.file_format = "PNG"
    image.save(filepath=str(path))
    bpy.data.images.remove(image)
    return bpy.data.images.load(str(path))


def backed_camera(image: Any, matrix: Any | None = None, **values: Any) -> Any:
    camera = add_camera(looking_at_origin(1.0, -4.0, 1.5) if matrix is None else matrix, lens=45.0)
    behind = camera.data.background_images.new()
    behind.image = image
    for name, value in values.items():
        setattr(behind, name, value)
    return camera


def picture_of(extension: Any, camera: Any, rig: Any | None = None) -> Any:
    return extension("bridge.pictures").background_picture(bpy.context, camera, rig or Matrix.Identity(4))


def in_picture(place: np.ndarray, size: tuple[int, int], method: str, scale: float = 1.0) -> np.ndarray:
    """From the frame (0 to 1) to the picture (0 to 1): where Blender lays it, worked out in pixels of the frame."""
    render = bpy.context.scene.render
    whole = np.array([render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y])
    factors = whole / np.array(size, float)
    if method == "FIT":
        factors = np.full(2, factors.min())
    elif method == "CROP":
        factors = np.full(2, factors.max())
    return (place - 0.5) * whole / (np.array(size) * factors * scale) + 0.5


def to_square(place: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """From the picture (0 to 1) to the ndc of the smallest square around it."""
    return (place * 2.0 - 1.0) * np.array(size) / max(size)


@pytest.mark.parametrize("method", ["STRETCH", "FIT", "CROP"])
@pytest.mark.parametrize("size", [(64, 64), (96, 48), (40, 90)])
@pytest.mark.parametrize("shape", [(1920, 1080), (500, 500), (300, 700)])
def test_the_picture_is_seen_where_it_lies(
    extension: Any, tmp_path: Path, method: str, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    frame(*shape, 1.0, 1.25)
    camera = backed_camera(saved_image(tmp_path / "a.png", *size), frame_method=method, scale=1.3)
    camera.data.shift_x, camera.data.shift_y = 0.1, -0.05
    bpy.context.view_layer.update()
    reference = picture_of(extension, camera)
    assert reference.is_as_is
    assert Path(reference.file) == tmp_path / "a.png"
    seen = reference.camera
    found = plain.world_to_ndc(
        plain.fixed_cameras([FixedCamera(seen.camera_to_world, seen.focal, seen.center)]), POINTS
    )[0]
    assert np.allclose(found, to_square(in_picture(in_frame(camera, POINTS), size, method, 1.3), size), atol=2e-5)


def test_the_pose_is_the_rigs(extension: Any, tmp_path: Path) -> None:
    rig = Matrix.LocRotScale((1, 2, 3), None, (2, 2, 2))
    turn = Matrix.Rotation(math.pi / 2, 4, "Z") @ Matrix.Rotation(math.pi / 2, 4, "X")
    camera = backed_camera(saved_image(tmp_path / "a.png", 64, 64), Matrix.Translation((9, 2, 3)) @ turn)
    rows = picture_of(extension, camera, rig).camera.camera_to_world
    assert [row[3] for row in rows] == pytest.approx([4, 0, 0, 1])


def test_a_packed_picture_is_written_as_it_is(extension: Any, tmp_path: Path) -> None:
    image = saved_image(tmp_path / "duck.png", 64, 48)
    content = (tmp_path / "duck.png").read_bytes()
    image.pack()
    (tmp_path / "duck.png").unlink()
    reference = picture_of(extension, backed_camera(image))
    assert Path(reference.file).read_bytes() == content
    assert reference.name == "duck.png"
    assert Path(reference.file).is_relative_to(bpy.app.tempdir)


def test_a_painted_picture_is_written_as_a_file(extension: Any) -> None:
    image = new_image(64, 48)
    reference = picture_of(extension, backed_camera(image))
    again = bpy.data.images.load(reference.file)
    assert tuple(again.size) == (64, 48)
    assert again.pixels[(15 * 64 + 20) * 4 : (15 * 64 + 20) * 4 + 3] == pytest.approx((0.8, 0.1, 0.1), abs=0.01)
    assert image.source == "GENERATED"  # it is left as it was
    assert image.filepath == ""
    assert len(bpy.data.images) == 2


def test_backgrounds_that_cannot_be_used(extension: Any, tmp_path: Path) -> None:
    request_error = extension("backend.errors").RequestError
    image = saved_image(tmp_path / "a.png", 64, 64)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"offset": (0.1, 0.0)}, "moved, turned or mirrored"),
        ({"rotation": 0.3}, "moved, turned or mirrored"),
        ({"rotation": math.pi}, "moved, turned or mirrored"),
        ({"use_flip_x": True}, "moved, turned or mirrored"),
        ({"show_background_image": False}, "has no background image"),
        ({"image": None}, "has no background image"),
    ]
    for values, words in cases:
        with pytest.raises(request_error, match=words):
            picture_of(extension, backed_camera(values.pop("image", image), **values))
    with pytest.raises(request_error, match="has no background image"):
        picture_of(extension, add_camera(looking_at_origin(0, -4, 0)))
    lost = bpy.data.images.load(str(tmp_path / "a.png"))
    lost.filepath = str(tmp_path / "gone.png")
    lost.reload()
    with pytest.raises(extension("backend.errors").PictureError, match="cannot be"):
        picture_of(extension, backed_camera(lost))
    camera = backed_camera(image)
    camera.data.type = "ORTHO"
    with pytest.raises(request_error, match="no perspective"):
        picture_of(extension, camera)


def request_in(folder: Path) -> Any:
    return json.loads((folder / "request.json").read_text())


def test_the_command_takes_files(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bpy.context.scene.dreamlathe.orbit.distance = (4.0, 5.0)
    bpy.context.scene.dreamlathe.prompt = ""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    images = ("--image", "duck.png", "--azimuth", "-30", "--fov", "25", "--image", "b.png", "--normal", "n.png")
    more = ("--view-model", "none", "--set", "reference.rays=32")
    assert command("--open", str(tmp_path / "a.blend"), *images, *more, prompt="") == 0
    request = request_in(tmp_path / "out")
    first, second = request["references"]
    assert (first["file"], first["azimuth"]) == (str(tmp_path / "duck.png"), -30.0)
    assert (first["distance"], first["field_of_view"]) == (4.5, 25.0)
    assert (second["normals"], second["field_of_view"]) == (str(tmp_path / "n.png"), 40.0)
    assert (request["view_model"], request["reference"]["rays"]) == ("none", 32)
    assert "duck" in bpy.data.objects  # the picture's name is the result's
    assert bpy.context.scene.dreamlathe.view_model == "none"


def test_the_command_takes_pictures_behind_cameras(command: Any, tmp_path: Path) -> None:
    image = saved_image(tmp_path / "duck.png", 64, 64)
    image.pack()
    camera = backed_camera(image)
    bpy.context.scene.camera = camera
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    both = ("--from-camera", "--from-camera", "Camera")
    assert command("--open", str(tmp_path / "a.blend"), *both, prompt="") == 0
    references = request_in(tmp_path / "out")["references"]
    assert [each["camera"]["name"] for each in references] == ["Camera", "Camera"]
    assert references[0]["name"] == "duck.png"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from-camera",), "The scene has no camera"),
        (("--from-camera", "Eye"), "There is no camera Eye"),
        (("--image", "a.png", "--elevation", "100"), "references[0].elevation is 100"),
        (("--azimuth", "3"), "belongs to a picture"),
    ],
)
def test_what_goes_wrong_is_said(
    command: Any,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert command(*arguments, prompt="") == 2
    said = capfd.readouterr().err
    assert words in said
    assert "Traceback" not in said

"""Pictures of the object for a request: files, and the pictures behind the scene's cameras, seen from them."""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path
from typing import Any, cast

import bpy
import numpy as np
from bpy.types import Context, Image, Object
from mathutils import Matrix
from numpy.typing import NDArray

from ..backend.errors import PictureError, RequestError
from ..backend.reference import FixedCamera, ReferenceImage
from .blender import absolute, scene_of
from .rig import fixed_camera

_SAVED = ".png"


def background_picture(context: Context, camera: Object, rig: Matrix) -> ReferenceImage:
    """The picture in a camera's background, seen from that camera in the space of the rig whose matrix is given.

    Pictures that are packed or only in memory are written to Blender's temporary folder; the job keeps its own copy.
    Raises RequestError for a camera that has no such picture, and PictureError for one that cannot be read.
    """
    shown, image = _background(camera)
    seen = fixed_camera(camera, rig, scene_of(context), context.evaluated_depsgraph_get())
    width, height = (int(side) for side in cast("Any", image).size)
    if width <= 0 or height <= 0:
        raise PictureError(f"The image {image.name} cannot be loaded.", "Find its file, or pack it.")
    lens = _through_picture(seen, _frame(context), (width, height), shown)
    return ReferenceImage(str(image_file(image)), camera=lens, name=_file_name(image))


def image_file(image: Image) -> Path:
    """Where an image lies as a file of its own; one that is packed, painted or generated is written first."""
    stored = absolute(image.filepath_from_user()) if image.source == "FILE" and image.filepath else None
    if stored is not None and stored.is_file() and image.packed_file is None and not image.is_dirty:
        return stored
    folder = Path(tempfile.mkdtemp(prefix="picture-", dir=bpy.app.tempdir))
    packed = cast("Any", image.packed_file)
    if packed is not None and not image.is_dirty:
        path = folder / _file_name(image)
        path.write_bytes(packed.data)
        return path
    path = (folder / _file_name(image)).with_suffix(_SAVED)
    try:
        _save_copy(image, path)
    except RuntimeError:
        raise PictureError(f"The image {image.name} cannot be read.", "Find its file, or pack it.") from None
    return path


def camera_named(context: Context, name: str) -> Object:
    """A camera of the scene by its name; by "" the scene's own. Raises RequestError."""
    scene = scene_of(context)
    found = scene.objects.get(name) if name else scene.camera
    if found is None or found.type != "CAMERA":
        what = f"There is no camera {name} in the scene." if name else "The scene has no camera."
        raise RequestError(what, "Name one of its cameras.")
    return found


def _save_copy(image: Image, path: Path) -> None:
    """Write an image's pixels as a PNG; saving the image itself would make it that file's."""
    source = cast("Any", image)
    pixels = np.empty(len(source.pixels), np.float32)
    source.pixels.foreach_get(pixels)
    width, height = source.size
    copy = cast("Any", bpy.data.images.new(image.name, width, height, alpha=True, float_buffer=source.is_float))
    try:
        copy.pixels.foreach_set(_with_alpha(pixels.reshape(height, width, -1)).ravel())
        copy.update()
        copy.file_format = "PNG"
        copy.save(filepath=str(path))
    finally:
        bpy.data.images.remove(copy)


def _with_alpha(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W, 4] of pixels with one to four channels."""
    channels = pixels.shape[2]
    colour = pixels[..., :3] if channels >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    alpha = pixels[..., 3:] if channels == 4 else np.ones_like(pixels[..., :1])
    return np.concatenate([colour, alpha], axis=2)


def _background(camera: Object) -> tuple[Any, Image]:
    """The first picture in the camera's background that is shown."""
    data = camera.data
    assert isinstance(data, bpy.types.Camera)
    found = [each for each in data.background_images if each.show_background_image and each.source == "IMAGE"]
    shown = next((each for each in found if each.image is not None), None)
    if shown is None:
        raise RequestError(f"The camera {camera.name} has no background image.", "Give it one, and let it be shown.")
    moved = max(abs(value) for value in shown.offset) > 1e-6 or abs(math.sin(shown.rotation)) > 1e-6
    if moved or math.cos(shown.rotation) < 0 or shown.use_flip_x or shown.use_flip_y:
        raise RequestError(
            f"The background image of {camera.name} is moved, turned or mirrored.",
            "Set its offset and rotation to zero, and move the camera or shift its lens instead.",
        )
    image = cast("Image", shown.image)
    if image.source not in {"FILE", "GENERATED"}:
        raise RequestError(f"The background of {camera.name} is no single picture.", "Use an image, not a sequence.")
    return shown, image


def _frame(context: Context) -> tuple[float, float]:
    """Half width and half height of the camera's frame, in ndc of the smallest square that holds it."""
    render = scene_of(context).render
    width, height = render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y
    return width / max(width, height), height / max(width, height)


def _through_picture(seen: FixedCamera, frame: tuple[float, float], size: tuple[int, int], shown: Any) -> FixedCamera:
    """The camera whose picture is the background's, padded to a square, instead of the frame, padded to a square."""
    across, upward = frame
    ratio = size[0] / size[1]
    if shown.frame_method == "STRETCH":
        half = (across, upward)
    elif (ratio > across / upward) == (shown.frame_method == "FIT"):  # as wide as the frame
        half = (across, across / ratio)
    else:
        half = (upward * ratio, upward)
    padded = (size[0] / max(size), size[1] / max(size))
    scale_x, scale_y = (own / (part * shown.scale) for own, part in zip(padded, half, strict=True))
    return FixedCamera(
        camera_to_world=seen.camera_to_world,
        focal=(seen.focal[0] * scale_x, seen.focal[1] * scale_y),
        center=(seen.center[0] * scale_x, seen.center[1] * scale_y),
        name=seen.name,
    )


def _file_name(image: Image) -> str:
    """A plain name for the image as a file."""
    own = Path(image.filepath.replace("\\", "/").removeprefix("//")).name or image.name
    return re.sub(r"[^\w.\- ]+", "_", own) or "picture"

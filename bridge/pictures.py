"""Pictures of the object for a request: files, and the pictures behind the scene's cameras, seen from them."""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import bpy
import numpy as np
from bpy.types import Context, Image, Object, Scene
from mathutils import Matrix
from numpy.typing import NDArray

from ..backend.cameras import fixed_cameras
from ..backend.errors import PictureError, RequestError
from ..backend.reference import FixedCamera, ReferenceImage
from .blender import absolute, scene_of
from .picture_group import MAPS, POSE, TREATMENT
from .rig import fixed_camera
from .settings_groups import read_values

_SAVED = ".png"
_FITTED = SimpleNamespace(frame_method="FIT", scale=1.0)
"""How a picture that no camera has behind it lies in a camera's frame."""


def scene_pictures(
    context: Context, settings: Any, rig: Matrix, cameras: Sequence[Object]
) -> tuple[ReferenceImage, ...]:
    """The pictures of the scene's list, then those behind ``cameras``, which are looked from, if the settings say so.

    ``rig`` is the rig's matrix. A camera that is in the list gives one picture. Raises RequestError and PictureError
    for pictures that cannot be used, and where there is none.
    """
    listed = [_listed_picture(context, item, rig) for item in settings.pictures]
    behind = [background_picture(context, camera, rig) for camera in unlisted_cameras(settings, cameras)]
    if not listed and not behind:
        raise RequestError("There is no picture.", "Open one, or give a camera a background image.")
    return (*listed, *behind)


def unlisted_cameras(settings: Any, cameras: Iterable[Object]) -> list[Object]:
    """Those that have a picture behind them and are not in the scene's list; none unless the settings want them."""
    if not settings.camera_pictures:
        return []
    known = {item.camera for item in settings.pictures}
    return [camera for camera in cameras if camera not in known and has_picture(camera)]


def has_picture(camera: Object) -> bool:
    """Whether an image lies behind the camera and is shown."""
    return any(each.image is not None for each in _shown_images(camera))


def list_pictures(scene: Scene, settings: Any, references: Sequence[ReferenceImage]) -> list[str]:
    """Make the scene's list that of a request with pictures; returns the names of the files that Blender cannot open.

    A picture with a camera takes the scene's camera of that name; where it is gone, the place that it had.
    """
    if references:
        settings.pictures.clear()
    settings.picture, lost = 0, list[str]()
    for each in references:
        camera = scene.objects.get(each.camera.name) if each.camera is not None else None
        if camera is not None and camera.type != "CAMERA":
            camera = None
        try:
            image = (
                None
                if camera is not None and has_picture(camera)
                else bpy.data.images.load(each.file, check_existing=True)
            )
        except RuntimeError:
            lost.append(each.title)
            continue
        item = settings.pictures.add()
        item.image, item.camera = image, camera
        for name in (*POSE, *TREATMENT, *MAPS, "framing"):
            setattr(item, name, getattr(each, name))
        if each.camera is not None and camera is None:
            _write_pose(item, each.camera)
    return lost


def _write_pose(item: Any, camera: FixedCamera) -> None:
    """The place on the orbit that is nearest to a camera's."""
    seen = fixed_cameras([camera])
    item.azimuth, item.elevation, item.distance = seen.azimuth[0], seen.elevation[0], seen.distance[0]
    item.field_of_view = math.degrees(2.0 * math.atan(1.0 / camera.focal[0]))
    item.framing = "as-is"


def _listed_picture(context: Context, item: Any, rig: Matrix) -> ReferenceImage:
    """One picture of the scene's list."""
    values = read_values(item, TREATMENT)
    values |= {name: str(absolute(path)) for name in MAPS if (path := getattr(item, name).strip())}
    if item.camera is not None:
        found = background_picture(context, item.camera, rig, item.image)
        return dataclasses.replace(found, **values)
    if item.image is None:
        raise RequestError("A picture of the list has no image.", "Open one, or take it off the list.")
    _check_image(item.image, f"The image {item.image.name}")
    values |= read_values(item, (*POSE, "framing"))
    return ReferenceImage(str(image_file(item.image)), name=_file_name(item.image), **values)


def background_picture(context: Context, camera: Object, rig: Matrix, image: Image | None = None) -> ReferenceImage:
    """The picture in a camera's background, seen from that camera in the space of the rig whose matrix is given.

    Another ``image`` is seen as if it lay there, fitted into the frame.
    Pictures that are packed or only in memory are written to Blender's temporary folder; the job keeps its own copy.
    Raises RequestError for a camera that has no such picture, and PictureError for one that cannot be read.
    """
    if image is None or any(each.image == image for each in _shown_images(camera)):
        shown, image = _background(camera, image)
    else:
        shown = _FITTED
        _check_image(image, f"The image {image.name}")
    seen = fixed_camera(camera, rig, scene_of(context), context.evaluated_depsgraph_get())
    width, height = cast("Any", image).size
    lens = _through_picture(seen, _frame(context), (int(width), int(height)), shown)
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


def _shown_images(camera: Object) -> list[Any]:
    """The images behind a camera that are shown."""
    data = cast("bpy.types.Camera", camera.data)
    return [each for each in data.background_images if each.show_background_image and each.source == "IMAGE"]


def is_moved(camera: Object) -> bool:
    """Whether the picture behind a camera is moved, turned or mirrored, so that it cannot be used."""
    return next((_moved(each) for each in _shown_images(camera) if each.image is not None), False)


def straighten(camera: Object) -> None:
    """Put the pictures behind a camera back where they can be used."""
    for each in _shown_images(camera):
        each.offset, each.rotation, each.use_flip_x, each.use_flip_y = (0.0, 0.0), 0.0, False, False


def _moved(shown: Any) -> bool:
    turned = abs(math.sin(shown.rotation)) > 1e-6 or math.cos(shown.rotation) < 0
    return turned or max(abs(value) for value in shown.offset) > 1e-6 or shown.use_flip_x or shown.use_flip_y


def _background(camera: Object, wanted: Image | None = None) -> tuple[Any, Image]:
    """The first picture in the camera's background that is shown, or the wanted one."""
    found = [each for each in _shown_images(camera) if each.image is not None]
    shown = next((each for each in found if wanted in (None, each.image)), None)
    if shown is None:
        raise RequestError(f"The camera {camera.name} has no background image.", "Give it one, and let it be shown.")
    if _moved(shown):
        raise RequestError(
            f"The background image of {camera.name} is moved, turned or mirrored.",
            "Set its offset and rotation to zero, and move the camera or shift its lens instead.",
        )
    image = cast("Image", shown.image)
    _check_image(image, f"The background of {camera.name}")
    return shown, image


def _check_image(image: Image, what: str) -> None:
    """Raise RequestError for what is no single picture, PictureError for one that cannot be loaded."""
    if image.source not in {"FILE", "GENERATED"}:
        raise RequestError(f"{what} is no single picture.", "Use an image, not a sequence.")
    if min(cast("Any", image).size) <= 0:
        raise PictureError(f"The image {image.name} cannot be loaded.", "Find its file, or pack it.")


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

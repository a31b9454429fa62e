"""The pictures of a request as files: bound by their content, kept in the job's folder, prepared for the optimizer.

A job's folder holds ``references/1.png``, ``1-depth.npy`` and ``1-normals.png`` as they were given, which its
request.json names, and ``1-seen.png``: what the optimizer sees.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cameras import CameraBatch, fixed_cameras, mirror_images, orbit_cameras
from .errors import PictureError
from .events import Event, Message, Preview
from .files import output_errors, write_atomically
from .reference import ReferenceImage, ReferenceSettings
from .request import Request

if TYPE_CHECKING:
    from .picture import Cutout, Reference

FOLDER = "references"
SHOWN = 256
"""Side of the picture that a model is shown, which resizes it to its own."""
FINEST = 2048
"""Side, at most, of the picture that goes into the texture."""
MOST_PIXELS = 1 << 26
"""Of all of these together."""
LARGEST_FILE = 1 << 30
"""Bytes."""
_STRAIGHT = 5.0
"""Degrees; a picture from nearer to the mirror is its own mirror image."""
_CUT_OFF = 0.02
"""Share of a picture's border that is object, from which it is said that some may be missing."""

Contents = Mapping[str, bytes]
"""What files hold, by their path as the request names it."""


@dataclass(frozen=True)
class ReferenceView:
    """A picture as the optimizer and the models see it."""

    camera: CameraBatch
    """One."""
    weight: float
    """Above 0."""
    sizes: tuple[Reference, ...]
    """From the smallest to the largest."""
    shown: Reference
    """What a model is shown, SHOWN × SHOWN."""
    fine: NDArray[np.uint8] | None = None
    """[S, S, 4], straight sRGB and opacity: what goes into the texture, as finely as picture and texture allow."""


def bind(request: Request) -> tuple[Request, Contents]:
    """Read the pictures' files; the request with their names and contents filled in.

    Raises PictureError for a file that cannot be read, or that is not the one whose content the request knows.
    """
    contents: dict[str, bytes] = {}
    bound: list[ReferenceImage] = []
    for each in request.references:
        total = hashlib.sha256()
        for field, path in each.files.items():
            contents[path] = _read(Path(path))
            total.update(f"{field} {hashlib.sha256(contents[path]).hexdigest()}\n".encode())
        content = total.hexdigest()
        if each.content not in ("", content):
            raise PictureError(
                f"{each.file} is not the picture that the job began with.",
                "Put that one back, or start over with this one: name it with --image and use another folder.",
            )
        bound.append(dataclasses.replace(each, name=each.name or Path(each.file).name, content=content))
    return request.replace(references=tuple(bound)), contents


def keep(request: Request, contents: Contents, folder: Path) -> Request:
    """Copy a bound request's files into a job's folder; the request that names the copies, relative to the folder."""
    kept: list[ReferenceImage] = []
    for number, each in enumerate(request.references, start=1):
        names = {field: f"{FOLDER}/{_copy_name(number, field, path)}" for field, path in each.files.items()}
        for field, path in each.files.items():
            place = folder / names[field]
            with output_errors(place):
                place.parent.mkdir(exist_ok=True)
            write_atomically(place, contents[path])
        kept.append(dataclasses.replace(each, **names))
    return request.replace(references=tuple(kept))


def forget(folder: Path) -> None:
    """Delete what :func:`keep` and :func:`show` left in a job's folder."""
    with output_errors(folder):
        if (folder / FOLDER).exists():
            shutil.rmtree(folder / FOLDER)


def prepare(request: Request, report: Callable[[Event], None]) -> tuple[ReferenceView, ...]:
    """Cut out and frame the pictures of a request; ``report`` hears how. Raises PictureError."""
    finest = min(FINEST, math.isqrt(MOST_PIXELS // max(len(request.references), 1)), request.mesh.texture_size)
    return tuple(_prepare(each, request.reference, finest, report) for each in request.references)


def with_mirror_images(views: Sequence[ReferenceView]) -> tuple[ReferenceView, ...]:
    """The views of an object whose left and right mirror each other, and those it has from the other side as well.

    A picture that looks straight along the mirror has none beside itself.
    """
    twins = tuple(_mirror_image(view) for view in views if _off_mirror(view.camera) > _STRAIGHT)
    return (*views, *twins)


def _off_mirror(camera: CameraBatch) -> float:
    """Degrees between the direction a camera looks in and the YZ plane."""
    return float(np.degrees(np.arcsin(np.clip(abs(camera.camera_to_world[0, 0, 2]), 0.0, 1.0))))


def _mirror_image(view: ReferenceView) -> ReferenceView:
    flipped = tuple(_flipped(each) for each in (*view.sizes, view.shown))
    fine = None if view.fine is None else np.ascontiguousarray(view.fine[:, ::-1])
    return ReferenceView(mirror_images(view.camera), view.weight, flipped[:-1], flipped[-1], fine)


def _flipped(picture: Reference) -> Reference:
    depth, normals = picture.depth, picture.normals
    return dataclasses.replace(
        picture,
        rgba=np.ascontiguousarray(picture.rgba[:, ::-1]),
        depth=None if depth is None else np.ascontiguousarray(depth[:, ::-1]),
        normals=None if normals is None else normals[:, ::-1] * np.array((-1.0, 1.0, 1.0), np.float32),
    )


def show(views: Sequence[ReferenceView], folder: Path, report: Callable[[Event], None]) -> None:
    """Write what the optimizer sees into a job's folder; the first of them is reported as a preview."""
    from .picture import save_preview  # noqa: PLC0415  (heavy, and most jobs have no pictures)

    for number, view in enumerate(views, start=1):
        path, seen = folder / FOLDER / f"{number}-seen.png", view.sizes[-1]
        save_preview(path, seen.rgba, seen.depth, seen.normals)
        if number == 1:
            report(Preview(str(path), 0))


def sizes(settings: ReferenceSettings) -> tuple[int, ...]:
    """Sides of the pictures during a run: doubling from ``resolution_start`` to ``resolution``."""
    found = [settings.resolution_start]
    while 2 * found[-1] < settings.resolution:
        found.append(2 * found[-1])
    return (*(size for size in found if size < settings.resolution), settings.resolution)


def camera_of(reference: ReferenceImage) -> CameraBatch:
    """The camera a picture is seen from."""
    if reference.camera is not None:
        return fixed_cameras([reference.camera])
    return orbit_cameras(reference.azimuth, reference.elevation, reference.distance, reference.field_of_view)


def _prepare(
    each: ReferenceImage, settings: ReferenceSettings, finest: int, report: Callable[[Event], None]
) -> ReferenceView:
    from .picture import cut_out, frame, read_maps, read_picture, square_of  # noqa: PLC0415  (heavy)

    picture = dataclasses.replace(read_picture(each.file), name=each.name or Path(each.file).name)
    maps = read_maps(picture, each.depth or None, each.normals or None)
    cutout = cut_out(picture, each.cutout)
    _tell(each, cutout, report)
    framing = "as-is" if each.is_as_is else "object"

    def at(size: int) -> Reference:
        return frame(cutout, size, distance=each.distance, field_of_view=each.field_of_view, framing=framing, maps=maps)

    framed = tuple(at(size) for size in (*sizes(settings), SHOWN))
    square = square_of(cutout, distance=each.distance, field_of_view=each.field_of_view, framing=framing)
    side = min(max(square.side(*cutout.rgba.shape[:2]), SHOWN), finest)
    fine = np.rint(square.colours(cutout.rgba, side) * 255.0).astype(np.uint8)
    return ReferenceView(camera_of(each), each.weight, framed[:-1], framed[-1], fine)


def _tell(each: ReferenceImage, cutout: Cutout, report: Callable[[Event], None]) -> None:
    ways = {"transparency": "its transparency", "rembg": "rembg", "plain": "its plain background"}
    report(Message("info", f"{cutout.name}: the object was told from its background by {ways[cutout.way]}."))
    if cutout.border_share > _CUT_OFF and not each.is_as_is:
        report(Message("warning", f"{cutout.name}: the object reaches the border; what lies beyond it is missing."))


def _read(path: Path) -> bytes:
    from .picture.read import check_file  # noqa: PLC0415  (heavy)

    check_file(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise PictureError(f"{path.name} has more than {LARGEST_FILE >> 20} MB.", "Make the picture smaller.")
        return path.read_bytes()
    except PermissionError:
        raise PictureError(f"{path.name} may not be read.", "Check the file's permissions.") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read ({error.strerror or error}).", "Choose another file.") from None


def _copy_name(number: int, field: str, path: str) -> str:
    suffix = Path(path).suffix.lower()
    plain = suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""
    return f"{number}{'' if field == 'file' else f'-{field}'}{plain}"

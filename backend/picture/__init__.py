"""A reference view from a picture's file: read, cut out, framed to a camera. numpy, scipy, scikit-image and Pillow.

:func:`prepare` does it all; :func:`read_picture`, :func:`cut_out` and :func:`frame` are its steps, for whoever needs
the same picture in several sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import PictureError
from ..reference import DepthKind
from .colour import Floats
from .cutout import Cutout, Way, cut_out
from .framing import LARGEST_EXTENT, Frame, Framing, ball_extent, frame_object, frame_picture
from .maps import frame_depth, frame_normals, read_depth, read_normals
from .preview import preview_image, save_preview
from .read import Picture, read_picture

__all__ = [
    "Cutout",
    "Framing",
    "Maps",
    "Picture",
    "Reference",
    "Way",
    "ball_extent",
    "cut_out",
    "frame",
    "prepare",
    "preview_image",
    "read_maps",
    "read_picture",
    "save_preview",
    "square_of",
]

_LEAST_OPACITY = 0.2
"""Of an object's most solid pixel, for there to be anything to see."""


@dataclass(frozen=True)
class Maps:
    """What is known of a picture besides its colours; of the whole picture, at any resolution."""

    depth: Floats | None = None
    """[H, W], larger is farther, in any unit; NaN where it is unknown."""
    normals: Floats | None = None
    """[H, W, 3], unit, in the camera's axes (x right, y up, z towards the viewer); 0 where they are unknown."""


@dataclass(frozen=True)
class Reference:
    """What the optimizer sees of a reference view: S × S pixels, row 0 is the top."""

    rgba: Floats
    """[S, S, 4] straight sRGB and opacity in [0, 1], NaN where it is unknown; colours are 0 where nothing is."""
    way: Way
    """How the object was told from its background."""
    depth: Floats | None = None
    """[S, S], larger is farther; NaN where it is unknown or the object is not."""
    normals: Floats | None = None
    """[S, S, 3], unit, in the camera's axes; 0 where they are unknown or the object is not."""
    depth_kind: DepthKind = "relative"


def read_maps(picture: Picture, depth: str | Path | None = None, normals: str | Path | None = None) -> Maps:
    """Read the maps that go with a picture; see :mod:`.maps` for their formats. Raises PictureError."""
    ratio = picture.width / picture.height
    return Maps(
        None if depth is None else read_depth(depth, ratio), None if normals is None else read_normals(normals, ratio)
    )


def square_of(cutout: Cutout, *, distance: float, field_of_view: float, framing: Framing = "object") -> Frame:
    """The part of a cut-out picture that :func:`frame` shows; arguments as there."""
    if framing == "object":
        return frame_object(cutout.rgba[..., 3], min(ball_extent(distance, field_of_view), LARGEST_EXTENT))
    return frame_picture(*cutout.rgba.shape[:2])


def frame(
    cutout: Cutout,
    size: int,
    *,
    distance: float,
    field_of_view: float,
    framing: Framing = "object",
    maps: Maps | None = None,
) -> Reference:
    """Place a cut-out object in ``size`` × ``size`` pixels as a camera sees an object that fills the scene's ball.

    ``distance`` from the ball's centre, above 1, in its radii; ``field_of_view`` in degrees, of a square image.
    ``framing``: ``object`` moves and scales the object so that the smallest circle around it is the silhouette of a
    ball of radius 0.92 (or the largest that fits, where the camera is too near to see all of it); ``as-is`` takes the
    picture for what the camera saw, padded to a square.
    """
    square = square_of(cutout, distance=distance, field_of_view=field_of_view, framing=framing)
    rgba = square.colours(cutout.rgba, size)
    if rgba[..., 3].max() < _LEAST_OPACITY:
        raise PictureError(f"{cutout.name}: nothing of the object is left in {size} × {size} pixels.", "Choose more.")
    inside = rgba[..., 3] >= 0.5
    maps = maps or Maps()
    return Reference(
        rgba,
        cutout.way,
        None if maps.depth is None else frame_depth(maps.depth, square, inside),
        None if maps.normals is None else frame_normals(maps.normals, square, inside),
    )


def prepare(
    path: str | Path,
    size: int,
    *,
    distance: float,
    field_of_view: float,
    framing: Framing = "object",
    background: Way | Literal["auto"] = "auto",
    depth: str | Path | None = None,
    normals: str | Path | None = None,
    preview: Path | None = None,
) -> Reference:
    """A reference view from files; see :func:`read_picture`, :func:`cut_out`, :func:`frame` and :func:`read_maps`.

    With ``preview``, a PNG of what the optimizer will see is written there. Raises PictureError for what is wrong with
    the files and OutputError where the preview cannot be written; nothing is left behind then.
    """
    picture = read_picture(path)
    maps = read_maps(picture, depth, normals)
    cutout = cut_out(picture, background)
    reference = frame(cutout, size, distance=distance, field_of_view=field_of_view, framing=framing, maps=maps)
    if preview is not None:
        save_preview(preview, reference.rgba, reference.depth, reference.normals)
    return reference

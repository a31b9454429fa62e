"""The object from all around: one picture of many views, an animation, and a thumbnail."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..cameras import orbit_cameras
from ..errors import OutputError
from ..files import write_atomically
from .export import png_bytes
from .mesh import Bytes, Mesh, to_bytes
from .rasterize import render_mesh

SHEET_AZIMUTHS = tuple(range(0, 360, 45))
SHEET_ELEVATIONS = (10.0, 40.0)
FRAMES = 36
FRAME_MILLISECONDS = 80
ANIMATION_ELEVATION = 20.0
DISTANCE, FIELD_OF_VIEW = 3.0, 40.0
"""The ball of radius 1 just fits: asin(1 / 3) is 19.5°."""
THUMBNAIL_AZIMUTH, THUMBNAIL_ELEVATION = 30.0, 20.0


def write_turntable(mesh: Mesh, png_path: str | Path, animation_path: str | Path, size: int = 256) -> None:
    """Write a contact sheet and an animation, both on white; ``size`` is the side of a view in pixels.

    The sheet has 8 azimuths from 0° (front) in steps of 45° as columns, and elevations 10° and 40° as rows. The
    animation turns once in 36 frames and repeats; it is a WebP or a GIF, by the name's ending.
    Raises OutputError for another ending, or if a path cannot be written.
    """
    kind = Path(animation_path).suffix.lower()
    if kind not in (".webp", ".gif"):
        raise OutputError(f"{animation_path} is neither a .webp nor a .gif.", "Choose one of these endings.")
    rows = [_views(mesh, SHEET_AZIMUTHS, elevation, size) for elevation in SHEET_ELEVATIONS]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    write_atomically(Path(png_path), png_bytes(sheet))
    frames = _views(mesh, np.arange(FRAMES) * (360.0 / FRAMES), ANIMATION_ELEVATION, size)
    write_atomically(Path(animation_path), _animation(frames, kind))


def write_thumbnail(mesh: Mesh, path: str | Path, size: int = 256) -> None:
    """Write one view, from the front, the side and above, on nothing: a PNG with transparency, ``size`` pixels square.

    Raises OutputError if the path cannot be written.
    """
    camera = orbit_cameras(THUMBNAIL_AZIMUTH, THUMBNAIL_ELEVATION, DISTANCE, FIELD_OF_VIEW)
    write_atomically(Path(path), png_bytes(to_bytes(render_mesh(mesh, camera, size, size)[0])))


def _views(mesh: Mesh, azimuths: ArrayLike, elevation: float, size: int) -> Bytes:
    """[B, size, size, 3], on white."""
    cameras = orbit_cameras(azimuths, elevation, DISTANCE, FIELD_OF_VIEW)
    rgba = render_mesh(mesh, cameras, size, size)
    alpha = rgba[..., 3:]
    return to_bytes(rgba[..., :3] * alpha + (1.0 - alpha))


def _animation(frames: Bytes, kind: str) -> bytes:
    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    options = {"quality": 85, "method": 2} if kind == ".webp" else {}
    pictures[0].save(
        buffer,
        "WEBP" if kind == ".webp" else "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=FRAME_MILLISECONDS,
        loop=0,
        **options,
    )
    return buffer.getvalue()

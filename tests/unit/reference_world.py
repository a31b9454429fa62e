"""Pictures with known cameras of known objects: Toybox's, ray cast exactly, and an ellipsoid with depth and normals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.cameras import CameraBatch, orbit_cameras, rays
from backend.picture import Reference
from backend.picture.colour import linear_to_srgb
from backend.reference import ReferenceImage
from backend.reference_files import ReferenceView
from backend.toybox.raycast import Light, render
from backend.toybox.shapes import Solids
from tests.unit.silhouette import AXES, RED

ALBEDO = Light((0.0, 0.0, 5.0), 1.0)


def seen(solids: Solids, azimuth: float, elevation: float, size: int) -> NDArray[np.float32]:
    """[S, S, 4] straight sRGB and opacity, from distance 3 with a field of view of 40°."""
    camera = orbit_cameras(azimuth, elevation, 3.0, 40.0)
    focal = float(camera.focal[0, 0])
    linear, cover = render(solids, camera.camera_to_world[0], (focal, focal), (0.0, 0.0), size, ALBEDO)
    return np.concatenate([linear_to_srgb(linear), cover[..., None]], axis=-1).astype(np.float32)


def write_picture(path: Path, rgba: NDArray[np.float32]) -> Path:
    """A PNG with transparency."""
    Image.fromarray(np.round(rgba * 255).astype(np.uint8)).save(path)
    return path


def write_pictures(
    folder: Path, solids: Solids, poses: Sequence[tuple[float, float]], size: int
) -> tuple[ReferenceImage, ...]:
    """Pictures from azimuths and elevations, as their cameras saw them."""
    return tuple(
        ReferenceImage(
            str(write_picture(folder / f"view {index}.png", seen(solids, azimuth, elevation, size))),
            azimuth,
            elevation,
            framing="as-is",
        )
        for index, (azimuth, elevation) in enumerate(poses)
    )


def ellipsoid(camera: CameraBatch, size: int) -> Reference:
    """The red ellipsoid of :mod:`tests.unit.silhouette` from one camera, with its depth and normals."""
    origins, directions = rays(camera, size, size)
    o, d = (origins / AXES)[:, None, None, :], directions / AXES
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    inside = (b * b - a * c > 0)[0]
    along = ((-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a)[0]
    point = origins[0] + along[..., None] * directions[0]
    normal = point / AXES**2
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    axes = camera.camera_to_world[0, :3, :3]
    depth = along * (directions[0] @ -axes[:, 2])
    rgba = np.broadcast_to(np.array([*RED, 1.0], np.float32), (size, size, 4))
    return Reference(
        np.where(inside[..., None], rgba, 0.0).astype(np.float32),
        "transparency",
        np.where(inside, depth, np.nan).astype(np.float32),
        np.where(inside[..., None], normal @ axes, 0.0).astype(np.float32),
    )


def ellipsoid_views(azimuths: Sequence[float], sizes: Sequence[int] = (16, 32)) -> tuple[ReferenceView, ...]:
    """Views of the ellipsoid from all around, as the loop is given them."""
    cameras = [orbit_cameras(azimuth, 20.0, 3.0, 40.0) for azimuth in azimuths]
    return tuple(
        ReferenceView(camera, 1.0, tuple(ellipsoid(camera, size) for size in sizes), ellipsoid(camera, 32))
        for camera in cameras
    )

"""Depth and normals that belong to a picture.

Depth: a 16-bit grey PNG or TIFF (0 means unknown), a float TIFF or a .npy [H, W] (what is not finite means unknown);
larger is farther, in any unit. Normals: a colour picture, 8 or 16 bits, or a .npy [H, W, 3] in [−1, 1]; in the camera's
axes, x right, y up, z towards the viewer, n = 2·colour − 1; a length far from 1 means unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import PictureError
from .colour import Floats
from .framing import Frame
from .masks import Mask
from .read import LARGEST, check_file, load_image
from .resample import resample, weights

_SHORTEST, _LONGEST = 0.5, 1.5
"""Length of a normal that is one."""
_SAME_SHAPE = 0.02
"""How far the ratio of the sides may be off the picture's."""


def read_depth(path: str | Path, ratio: float) -> Floats:
    """A depth map [H, W], NaN where it is unknown, for a picture of that width to height. Raises PictureError."""
    path = Path(path)
    if path.suffix.lower() == ".npy":
        depth = _read_array(path, 2, "Give depth as an array of two dimensions.")
    else:
        image = load_image(path)
        if image.mode not in {"F", "I"} and not image.mode.startswith("I;16"):
            raise PictureError(
                f"{path.name} is no depth map: it has 8 bits or colours.", "Save it as 16-bit grey PNG, TIFF or .npy."
            )
        depth = np.asarray(image).astype(np.float32)
        if image.mode != "F":
            depth = np.where(depth > 0.0, depth / 65535.0, np.nan).astype(np.float32)
    _check_shape(depth.shape[1] / depth.shape[0], ratio, path.name)
    depth = np.where(np.isfinite(depth), depth, np.nan).astype(np.float32)
    known = depth[np.isfinite(depth)]
    if known.size == 0 or np.ptp(known) <= 0.0:
        raise PictureError(f"{path.name} holds no depth: it is flat or empty.", "Give another depth map.")
    return depth


def read_normals(path: str | Path, ratio: float) -> Floats:
    """A normal map [H, W, 3], unit, 0 where it is unknown, for a picture of that ratio. Raises PictureError."""
    path = Path(path)
    if path.suffix.lower() == ".npy":
        normals = _read_array(path, 3, "Give normals as an array [height, width, 3].")
        if normals.shape[2] != 3:
            raise PictureError(f"{path.name} has {normals.shape[2]} channels.", "Normals have three.")
    else:
        image = load_image(path)
        if image.mode not in {"RGB", "RGBA"}:
            raise PictureError(f"{path.name} is no normal map: it has no colours.", "Save it as an RGB PNG or .npy.")
        normals = np.asarray(image.convert("RGB")).astype(np.float32) / 127.5 - 1.0
    _check_shape(normals.shape[1] / normals.shape[0], ratio, path.name)
    length = np.linalg.norm(np.nan_to_num(normals), axis=-1, keepdims=True)
    known = (length > _SHORTEST) & (length < _LONGEST)
    if known.mean() < 0.001:
        raise PictureError(f"{path.name} holds no normals: no colour in it is one.", "Give another normal map.")
    return np.where(known, np.nan_to_num(normals) / np.where(known, length, 1.0), 0.0).astype(np.float32)


def frame_depth(depth: Floats, frame: Frame, inside: Mask) -> Floats:
    """Depth [size, size] in a frame: the nearest pixel's, for depths must not mix across an edge; NaN outside."""
    rows, columns = frame.nearest(depth.shape[0], depth.shape[1], len(inside))
    there = inside & (rows >= 0)[:, None] & (columns >= 0)[None]
    return np.where(there, depth[rows[:, None], columns[None]], np.nan).astype(np.float32)


def frame_normals(normals: Floats, frame: Frame, inside: Mask) -> Floats:
    """Normals [size, size, 3] in a frame: averaged over the known ones and of unit length again; 0 outside."""
    height, width = normals.shape[:2]
    rows, columns = frame.axes(height, width, len(inside))
    mean = resample(normals, weights(height, len(inside), *rows), weights(width, len(inside), *columns))
    length = np.linalg.norm(mean, axis=-1, keepdims=True)
    there = inside[..., None] & (length > 0.05)
    return np.where(there, mean / np.where(there, length, 1.0), 0.0).astype(np.float32)


def _read_array(path: Path, dimensions: int, hint: str) -> Floats:
    check_file(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # noqa: BLE001  (a damaged header makes numpy raise whatever it stumbles over)
        raise PictureError(f"{path.name} is no array that can be read.", "Save it with numpy.save.") from None
    if not isinstance(array, np.ndarray) or array.ndim != dimensions or array.dtype.kind not in "fiu":
        raise PictureError(f"{path.name} is no map of numbers.", hint)
    if max(array.shape[:2]) > LARGEST or min(array.shape) < 1:
        raise PictureError(f"{path.name} has a shape of {array.shape}.", f"{LARGEST} a side are the most.")
    with np.errstate(over="ignore"):
        return np.array(array, np.float32)


def _check_shape(ratio: float, wanted: float, name: str) -> None:
    if abs(ratio / wanted - 1.0) > _SAME_SHAPE:
        raise PictureError(
            f"{name} is {ratio:.2f} times as wide as high, and the picture {wanted:.2f} times.",
            "Give a map of the whole picture.",
        )

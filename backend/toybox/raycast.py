"""Renders of Toybox's world: exact ray casting of its solids on the CPU, independent of the renderer under training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from .shapes import SPHERE, Solids, within

Float = NDArray[np.float64]
_holds: Any = njit(cache=True, nogil=True, fastmath=True)(within)


@dataclass(frozen=True)
class Light:
    """A point light with an ambient share; ambient 1 shows the albedo alone."""

    position: tuple[float, float, float]
    ambient: float


def render(
    solids: Solids,
    camera_to_world: Float,
    focal: tuple[float, float],
    center: tuple[float, float],
    size: int,
    light: Light,
    supersample: int = 3,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One picture: linear colour, straight (not premultiplied) [size, size, 3], and coverage [size, size] in [0, 1].

    Camera conventions are the project's: looks down −Z, normalised intrinsics, row 0 on top.
    """
    scene, camera, lens = _prepared(solids, camera_to_world, focal, center)
    colour, hits = _cast(
        scene, solids.colour, camera, lens, size, supersample, np.array(light.position, np.float64), light.ambient
    )
    coverage = hits / supersample**2
    colour /= np.maximum(hits, 1)[..., None]
    return colour.astype(np.float32), coverage.astype(np.float32)


def render_maps(
    solids: Solids, camera_to_world: Float, focal: tuple[float, float], center: tuple[float, float], size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What lies behind the pixels' middles, without colours.

    Depth along the camera's axis [size, size], NaN where nothing is; and unit normals in the camera's axes [size, size,
    3], 0 there.
    """
    depth, normals = _cast_maps(*_prepared(solids, camera_to_world, focal, center), size)
    return depth.astype(np.float32), normals.astype(np.float32)


def render_columns(
    solids: Solids,
    camera_to_world: Float,
    focal: tuple[float, float],
    center: tuple[float, float],
    size: int,
    slabs: int,
) -> NDArray[np.bool_]:
    """Which cells' middles lie in the object: [size, size, slabs].

    The cells of a column lie on the ray through a pixel's middle, from the plane one unit before the origin to the one
    behind it, as the camera looks.
    """
    scene, camera, lens = _prepared(solids, camera_to_world, focal, center)
    cells = np.zeros((size, size, slabs), np.bool_)
    step = 2 / slabs
    first = float(np.linalg.norm(camera[:3, 3])) - 1 + step / 2
    _fill_columns(cells, scene, camera, lens, first, step)
    return cells


def _prepared(
    solids: Solids, camera_to_world: Float, focal: tuple[float, float], center: tuple[float, float]
) -> tuple[tuple[NDArray[Any], ...], Float, Float]:
    """For the compiled loops: the solids as the camera's rays meet them, its pose, and its focal lengths and centre."""
    camera = np.ascontiguousarray(camera_to_world, np.float64)
    origin = camera[:3, 3]
    inverse, spread = solids.from_world, solids.to_world[:, :, :3]
    offset = np.ascontiguousarray(solids.to_world[:, :, 3] - origin)
    radius = np.where(solids.shape == SPHERE, np.linalg.norm(spread, 2, (1, 2)), np.linalg.norm(spread, axis=(1, 2)))
    tangent = (offset**2).sum(1) - radius**2  # squared length, from the camera to the bounding ball
    local_origin = np.ascontiguousarray(inverse[:, :, :3] @ origin + inverse[:, :, 3])
    scene = solids.shape, solids.taper, np.ascontiguousarray(inverse), local_origin, offset, tangent
    return scene, camera, np.array((*focal, *center), np.float64)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _aim(ray: Any, camera: Any, lens: Any, row: Any, column: Any, size: Any) -> None:  # pragma: no cover
    """Writes the direction through a pixel's middle, one unit long along the camera's axis."""
    x = (2 * (column + 0.5) / size - 1 - lens[2]) / lens[0]
    y = (1 - 2 * (row + 0.5) / size - lens[3]) / lens[1]
    for i in range(3):
        ray[i] = camera[i, 0] * x + camera[i, 1] * y - camera[i, 2]


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _turn(direction: Any, inverse: Any, ray: Any) -> None:  # pragma: no cover
    """Writes the ray's direction in a solid's own space."""
    for i in range(3):
        direction[i] = inverse[i, 0] * ray[0] + inverse[i, 1] * ray[1] + inverse[i, 2] * ray[2]


@njit(cache=True, nogil=True, fastmath=True)
def _cast(
    scene: Any, colour: Any, camera: Any, lens: Any, size: Any, supersample: Any, light: Any, ambient: Any
) -> Any:  # pragma: no cover
    out = np.zeros((size, size, 3))
    hits = np.zeros((size, size))
    fine = size * supersample
    ray, direction, scratch, normal = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for row in range(fine):
        for column in range(fine):
            _aim(ray, camera, lens, row, column, fine)
            distance, who = _nearest(scene, ray, direction, scratch, normal)
            if who < 0:
                continue
            dot, lengths, norm = 0.0, 0.0, 0.0
            for i in range(3):
                toward = light[i] - camera[i, 3] - distance * ray[i]
                dot += toward * normal[i]
                lengths += toward**2
                norm += normal[i] ** 2
            shade = ambient + (1 - ambient) * max(dot, 0.0) / np.sqrt(lengths * norm + 1e-12)
            r, c = row // supersample, column // supersample
            hits[r, c] += 1
            for i in range(3):
                out[r, c, i] += colour[who, i] * shade
    return out, hits


@njit(cache=True, nogil=True, fastmath=True)
def _cast_maps(scene: Any, camera: Any, lens: Any, size: Any) -> Any:  # pragma: no cover
    depth, normals = np.full((size, size), np.nan), np.zeros((size, size, 3))
    ray, direction, scratch, normal = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for row in range(size):
        for column in range(size):
            _aim(ray, camera, lens, row, column, size)
            distance, who = _nearest(scene, ray, direction, scratch, normal)
            if who < 0:
                continue
            depth[row, column] = distance  # the ray goes one unit along the axis
            length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
            for i in range(3):
                along = camera[0, i] * normal[0] + camera[1, i] * normal[1] + camera[2, i] * normal[2]
                normals[row, column, i] = along / length
    return depth, normals


@njit(cache=True, nogil=True, fastmath=True)
def _fill_columns(cells: Any, scene: Any, camera: Any, lens: Any, first: Any, step: Any) -> None:  # pragma: no cover
    shape, taper, inverse, local_origin, _, _ = scene
    size, slabs = cells.shape[0], cells.shape[2]
    ray, d = np.empty(3), np.empty(3)
    for row in range(size):
        for column in range(size):
            _aim(ray, camera, lens, row, column, size)
            for k in range(len(shape)):
                o = local_origin[k]
                _turn(d, inverse[k], ray)
                # Every solid lies in the ball of radius √3 of its own space.
                square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
                middle = -(o[0] * d[0] + o[1] * d[1] + o[2] * d[2]) / square
                reach = middle * middle - (o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 3) / square
                if reach <= 0:
                    continue
                half = np.sqrt(reach)
                low = max(0, int(np.ceil((middle - half - first) / step)))
                high = min(slabs - 1, int(np.floor((middle + half - first) / step)))
                for s in range(low, high + 1):
                    t = first + s * step
                    if _holds(shape[k], taper[k], o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]):
                        cells[row, column, s] = True


@njit(cache=True, nogil=True, fastmath=True)
def _nearest(scene: Any, ray: Any, direction: Any, scratch: Any, normal: Any) -> Any:  # pragma: no cover
    """The first solid that a ray meets: distance and index (−1: none); writes its world normal, not normalised."""
    shape, taper, inverse, local_origin, offset, tangent = scene
    nearest, who = 1e9, -1
    square = ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]
    for k in range(len(shape)):
        along = ray[0] * offset[k, 0] + ray[1] * offset[k, 1] + ray[2] * offset[k, 2]
        if along * along < tangent[k] * square:  # misses the bounding ball
            continue
        _turn(direction, inverse[k], ray)
        t = _enter(shape[k], taper[k], local_origin[k], direction, scratch)
        if 0 < t < nearest:
            nearest, who = t, k
            for i in range(3):  # normals go by the transposed inverse
                normal[i] = (
                    inverse[k, 0, i] * scratch[0] + inverse[k, 1, i] * scratch[1] + inverse[k, 2, i] * scratch[2]
                )
    return nearest, who


@njit(cache=True, nogil=True, fastmath=True)
def _enter(shape: Any, taper: Any, o: Any, d: Any, normal: Any) -> Any:  # pragma: no cover
    """Distance at which the ray o + t·d enters a unit solid (−1: never); writes the outward normal there."""
    if shape == 0:
        a = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
        b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
        root = b * b - a * (o[0] ** 2 + o[1] ** 2 + o[2] ** 2 - 1)
        if root <= 0:
            return -1.0
        t = (-b - np.sqrt(root)) / a
        for i in range(3):
            normal[i] = o[i] + t * d[i]
        return t
    if shape == 1:
        return _enter_box(o, d, normal)
    return _enter_frustum(taper, o, d, normal)


@njit(cache=True, nogil=True, fastmath=True)
def _enter_box(o: Any, d: Any, normal: Any) -> Any:  # pragma: no cover
    low, high, axis = -1e9, 1e9, 0
    for i in range(3):
        if abs(d[i]) < 1e-12:
            if abs(o[i]) > 1:
                return -1.0
            continue
        first, last = (-1 - o[i]) / d[i], (1 - o[i]) / d[i]
        if first > last:
            first, last = last, first
        if first > low:
            low, axis = first, i
        high = min(high, last)
    if low > high:
        return -1.0
    normal[:] = 0
    normal[axis] = -1.0 if d[axis] > 0 else 1.0
    return low


@njit(cache=True, nogil=True, fastmath=True)
def _enter_frustum(taper: Any, o: Any, d: Any, normal: Any) -> Any:  # pragma: no cover
    mean, slope = (1 + taper) / 2, (taper - 1) / 2  # radius(z) = mean + slope·z
    best = -1.0
    radius, change = mean + slope * o[2], slope * d[2]
    a = d[0] ** 2 + d[1] ** 2 - change**2
    b = o[0] * d[0] + o[1] * d[1] - radius * change
    root = b * b - a * (o[0] ** 2 + o[1] ** 2 - radius**2)
    if root > 0 and abs(a) > 1e-12:
        for sign in (-1.0, 1.0):
            t = (-b + sign * np.sqrt(root)) / a
            z = o[2] + t * d[2]
            if t > 0 and abs(z) <= 1 and mean + slope * z >= 0 and (best < 0 or t < best):
                best = t
                normal[0], normal[1] = o[0] + t * d[0], o[1] + t * d[1]
                normal[2] = -slope * (mean + slope * z)
    if abs(d[2]) > 1e-12:
        for side in (-1.0, 1.0):
            t = (side - o[2]) / d[2]
            x, y = o[0] + t * d[0], o[1] + t * d[1]
            if t > 0 and x * x + y * y <= (mean + slope * side) ** 2 and (best < 0 or t < best):
                best = t
                normal[0], normal[1], normal[2] = 0.0, 0.0, side
    return best

"""From the field to triangles: sample the density, choose the level, drop floaters and cavities, march the cubes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import marching_cubes
from torch import Tensor

from ..errors import DivergedError
from .lacking import Thickened, lacking
from .mesh import Booleans, Floats, Integers, signed_volume
from .projection import PictureView
from .solidify import hollow
from .threshold import choose_level

CHUNK = 1 << 18
"""Points a query of the field."""
CONTRAST = 4.0
"""Log densities are clipped this far from the level's; a jump from nothing to solid then crosses in the middle."""
FLOATER_SHARE = 0.05
"""Parts with less than this share of the largest part's volume are dropped, but for those that are near it."""
NEAR, NEAR_SHARE = 0.1, 0.005
"""Within this distance, in radii of the ball, a part stays from this share on: feet with a gap above them."""
FULLEST = 0.97
"""A field whose inside takes up more than this share of the ball is no object."""
REFINEMENTS = 5
"""Halvings of each grid edge in the search for the true crossing."""
HINT = "Try another seed, more iterations or a larger guidance scale."


class FieldSampleLike(Protocol):
    """What :meth:`FieldLike.query` gives: albedo [N, 3], linear, in [0, 1]."""

    albedo: Tensor


class FieldLike(Protocol):
    """What this room needs of a field; points are [N, 3] float32 in the unit ball."""

    def density(self, x: Tensor) -> Tensor:
        """[N], ≥ 0, per unit of length."""
        ...

    def query(self, x: Tensor) -> Any:
        """A sample with ``albedo`` [N, 3], linear, in [0, 1]."""
        ...


class OccupancyLike(Protocol):
    """What this room needs of an occupancy grid."""

    @property
    def binary(self) -> Tensor:
        """[R, R, R] bool in x, y, z order, over the cube [−1, 1]³."""
        ...


@dataclass
class Surface:
    """A closed surface in rig space and what it was made from."""

    vertices: Floats
    """[V, 3]."""
    faces: Integers
    """[F, 3], counter-clockwise from outside."""
    level: float
    """The isovalue, in density."""
    spacing: float
    """Distance of the grid's nodes."""


def field_device(field: object) -> torch.device:
    """The device a field's parameters are on; the CPU for a field without parameters."""
    if isinstance(field, torch.nn.Module):
        first = next(field.parameters(), None)
        if first is not None:
            return first.device
    return torch.device("cpu")


def query_density(field: FieldLike, points: Floats) -> Floats:
    """Densities [N] of points [N, 3], zero outside the unit ball; DivergedError if one of them is not finite."""
    device = field_device(field)
    result = np.zeros(len(points), np.float32)
    with torch.no_grad():
        for start in range(0, len(points), CHUNK):
            part = torch.from_numpy(np.ascontiguousarray(points[start : start + CHUNK], np.float32)).to(device)
            result[start : start + CHUNK] = field.density(part).float().cpu().numpy()
    if not np.isfinite(result).all():
        raise DivergedError("The field holds densities that are not numbers.", HINT)
    result[np.einsum("ni,ni->n", points, points) >= 1.0] = 0.0
    return np.maximum(result, 0.0)


def sample_grid(
    field: FieldLike, occupancy: OccupancyLike | None, resolution: int, report: Callable[[float], None]
) -> Floats:
    """Density [R + 1, R + 1, R + 1] at the nodes of a grid over [−1, 1]³, x, y, z order.

    The field is asked only in occupied cells and their neighbours, and inside the unit ball; elsewhere it is zero.
    """
    axis = np.linspace(-1.0, 1.0, resolution + 1, dtype=np.float32)
    inside = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2 < 1.0
    if occupancy is not None:
        inside &= _occupied_nodes(occupancy, axis)
    chosen = np.flatnonzero(inside)
    density = np.zeros(inside.shape, np.float32)
    # Points are made a chunk at a time, so that a grid of 10⁹ nodes does not need 12 GB of coordinates.
    for start in range(0, len(chosen), CHUNK):
        part = chosen[start : start + CHUNK]
        points = np.stack([axis[index] for index in np.unravel_index(part, inside.shape)], axis=1)
        density.ravel()[part] = query_density(field, points)
        report(min(1.0, (start + CHUNK) / len(chosen)))
    return density


def extract_surface(
    field: FieldLike,
    occupancy: OccupancyLike | None,
    resolution: int,
    report: Callable[[float], None],
    pictures: Sequence[PictureView] = (),
) -> Surface:
    """The closed visible surface of a field, without floaters and inner cavities (Lorensen and Cline 1987).

    And with what it hardly has of what ``pictures`` show, see :mod:`.lacking`.

    Raises DivergedError if the field is empty, full, or not a number.
    """
    density = sample_grid(field, occupancy, resolution, report)
    spacing = 2.0 / resolution
    level = choose_level(density, spacing, HINT).density
    factor = lacking(density, level, pictures)
    if factor is not None:
        density, field = density * factor, Thickened(field, factor)
    nodes_in_ball = 4.0 / 3.0 * np.pi / spacing**3
    if np.count_nonzero(density > level) > FULLEST * nodes_in_ball:
        raise DivergedError("The field fills the whole ball: there is no object in it.", HINT)
    values = _log_contrast(density, level)
    _limit_to_ball(values, spacing)
    values[hollow(values > 0.0)] = CONTRAST
    _keep_solid_parts(values)
    vertices, faces = _march(values)
    vertices = _refine(vertices, values, field, level, resolution)
    return Surface(vertices, faces, level, spacing)


def _occupied_nodes(occupancy: OccupancyLike, axis: Floats) -> Booleans:
    """Which nodes lie in an occupied cell or one of its 26 neighbours."""
    cells = occupancy.binary.detach().cpu().numpy().astype(bool)
    cells = np.asarray(ndimage.binary_dilation(cells, np.ones((3, 3, 3), bool)), bool)
    index = [np.clip(((axis + 1.0) * 0.5 * size).astype(np.int64), 0, size - 1) for size in cells.shape]
    return cells[np.ix_(*index)]


def _log_contrast(density: NDArray[np.floating], level: float) -> Floats:
    """log(density / level), clipped to ±CONTRAST and never zero: positive inside.

    Densities grow exponentially, so their logarithm is what linear interpolation suits.
    """
    floor = level * np.exp(-CONTRAST)
    values = np.log(np.clip(density, floor, level * np.exp(CONTRAST)) / level).astype(np.float32)
    values[np.abs(values) < 1e-6] = -1e-6
    return values


def _limit_to_ball(values: Floats, spacing: float) -> None:
    """Intersect with the unit ball, smoothly: an object cut by the ball gets a round cut, not a stair."""
    axis = np.linspace(-1.0, 1.0, values.shape[0], dtype=np.float32)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    ball = np.clip((1.0 - radius) * np.float32(CONTRAST / spacing), -CONTRAST, CONTRAST) - np.float32(1e-4)
    np.minimum(values, ball, out=values)


def _keep_solid_parts(values: Floats) -> None:
    """Turn small parts into outside and enclosed cavities into inside, in place."""
    # The classic cubes join nodes across faces only and part them across corners: label in the same way.
    labels = _label(values > 0.0, 1)
    if not labels.any():
        raise DivergedError("The field is empty: it has no surface.", HINT)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    dropped = (sizes < FLOATER_SHARE * sizes.max()) & (sizes > 0)
    for part in np.flatnonzero(dropped & (sizes >= NEAR_SHARE * sizes.max())):
        dropped[part] = _distance(labels, int(part), int(sizes.argmax())) > NEAR
    values[dropped[labels]] = -CONTRAST
    labels = _label(values <= 0.0, 3)
    # Node (0, 0, 0) is a corner of the cube, outside the ball.
    values[(labels != labels[0, 0, 0]) & (labels != 0)] = CONTRAST


def _distance(labels: Integers, part: int, other: int) -> float:
    """Of two parts, between their nearest nodes, in radii of the ball."""
    spacing = 2.0 / (len(labels) - 1)
    points: Any = KDTree(np.argwhere(labels == other) * spacing)
    return float(points.query(np.argwhere(labels == part) * spacing)[0].min())


def _label(inside: Booleans, connectivity: int) -> Integers:
    """Number the connected parts of a grid from 1; neighbours share a face (connectivity 1) or a corner (3)."""
    result: Any = ndimage.label(inside, ndimage.generate_binary_structure(3, connectivity))
    return result[0]


def _march(values: Floats) -> tuple[Floats, Integers]:
    """Vertices in node coordinates and faces that point outwards."""
    solid = values > 0.0
    low, high = [], []
    for axis in range(3):
        used = np.flatnonzero(solid.any(axis=tuple(a for a in range(3) if a != axis)))
        low.append(int(used[0]) - 1)
        high.append(int(used[-1]) + 2)
    box = values[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    result: Any = marching_cubes(box, 0.0, method="lorensen", gradient_direction="ascent", allow_degenerate=True)
    vertices = result[0].astype(np.float32) + np.asarray(low, np.float32)
    faces = result[1].astype(np.int32)
    if signed_volume(vertices, faces).sum() < 0.0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    return vertices, faces


def _refine(vertices: Floats, values: Floats, field: FieldLike, level: float, resolution: int) -> Floats:
    """Move each vertex along its grid edge to where the field itself crosses the level, and to rig space.

    Bisection, then a straight line between the log densities of what is left. Without it a density that jumps within
    a voxel gives terraces, since the grid's values then say only between which nodes it jumps.
    """
    spacing = np.float32(2.0 / resolution)
    lower = np.floor(vertices).astype(np.int64)
    along = (vertices - lower).argmax(axis=1)
    upper = lower.copy()
    upper[np.arange(len(vertices)), along] += 1
    upper = np.minimum(upper, values.shape[0] - 1)
    value_a, value_b = values[tuple(lower.T)], values[tuple(upper.T)]
    point_a = (lower * spacing - 1.0).astype(np.float32)
    point_b = (upper * spacing - 1.0).astype(np.float32)
    for _ in range(REFINEMENTS):
        middle = 0.5 * (point_a + point_b)
        value = _log_contrast(query_density(field, middle), level)
        same = (value > 0.0) == (value_a > 0.0)
        point_a, value_a = np.where(same[:, None], middle, point_a), np.where(same, value, value_a)
        point_b, value_b = np.where(same[:, None], point_b, middle), np.where(same, value_b, value)
    share = np.clip(value_a / (value_a - value_b), 0.0, 1.0)
    return point_a + share[:, None] * (point_b - point_a)

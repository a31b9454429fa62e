"""How open the places of a solid's surroundings are to the outside: compiled, or numpy where numba is missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = tuple((x, y, z) for x, y, z in itertools.product((-1, 0, 1), repeat=3) if x or y or z)
"""Along the axes and the diagonals of the grid: 26."""

try:
    from . import view_kernels
except ImportError:  # numba is missing
    view_kernels = None

Booleans = NDArray[np.bool_]
Direction = tuple[int, int, int]


def openness(solid: Booleans, *groups: Iterable[Direction]) -> tuple[NDArray[np.uint8], ...]:
    """For each group: in how many of its directions each node of a grid [A, B, C] sees the outside; 0 if solid."""
    if view_kernels is None:
        counts = (sum((_open(solid, way).astype(np.uint8) for way in group), np.uint8(0)) for group in groups)
        return tuple(np.broadcast_to(count, solid.shape) for count in counts)
    ways = view_kernels.open_ways(~solid, np.array(DIRECTIONS))
    masks = (np.uint32(sum(1 << DIRECTIONS.index(way) for way in group)) for group in groups)
    return tuple(view_kernels.count_ways(ways, mask) for mask in masks)


def _open(solid: Booleans, direction: Direction) -> Booleans:
    """Which nodes see the outside in ``direction``: nothing solid lies there or between."""
    axis = next(i for i, step in enumerate(direction) if step)
    free = np.moveaxis(~solid, axis, 0)
    if direction[axis] > 0:
        free = free[::-1]
    first, second = (step for i, step in enumerate(direction) if i != axis)
    result = np.empty_like(free)
    result[0] = free[0]
    for index in range(1, len(free)):
        result[index] = free[index] & _shifted(result[index - 1], -first, -second)
    if direction[axis] > 0:
        result = result[::-1]
    return np.moveaxis(result, 0, axis)


def _shifted(plane: Booleans, first: int, second: int) -> Booleans:
    """``plane`` moved by a node along its axes; what comes in from the rim is open."""
    result = np.roll(plane, (first, second), (0, 1))
    if first:
        result[0 if first > 0 else -1] = True
    if second:
        result[:, 0 if second > 0 else -1] = True
    return result

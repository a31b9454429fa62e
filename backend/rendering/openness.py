"""How open the places of a solid's surroundings are to the outside, by numpy alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = tuple((x, y, z) for x, y, z in itertools.product((-1, 0, 1), repeat=3) if x or y or z)
"""Along the axes and the diagonals of the grid: 26."""

Booleans = NDArray[np.bool_]
Direction = tuple[int, int, int]


def openness(solid: Booleans, directions: Iterable[Direction] = DIRECTIONS) -> NDArray[np.uint8]:
    """In how many of these ``directions`` each node of a grid [R, R, R] sees the outside; a solid one in none."""
    seen = np.zeros(solid.shape, np.uint8)
    for direction in directions:
        seen += _open(solid, direction)
    return seen


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

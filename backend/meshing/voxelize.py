"""Solid voxels of a closed mesh: a column of cells along z is inside between every other crossing."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from .mesh import Booleans, Integers

JITTER = (1.2345e-6, 2.7183e-6)
"""Columns stand this share of a cell beside the cells' centres, so that they miss vertices placed on a regular grid."""


def voxelize(
    vertices: NDArray[np.floating], faces: Integers, resolution: int, rule: Literal["parity", "winding"] = "parity"
) -> Booleans:
    """Cells [R, R, R] (x, y, z) of the cube [−1, 1]³ whose centres are inside a closed mesh.

    ``parity`` counts crossings along z, whatever way faces point; ``winding`` counts them with their sign, so that
    overlapping closed parts make a union. Both are exact where columns hit edges: an edge's two triangles decide by
    the same arithmetic, so that a column passes exactly one of them. What lies outside the cube is cut off.
    """
    corners = (np.asarray(vertices, np.float64) + 1.0) * (0.5 * resolution) - 0.5
    crossings = _crossings(corners, np.asarray(faces, np.int64), resolution, JITTER[0], JITTER[1], rule == "winding")
    count = np.cumsum(crossings, axis=2, dtype=np.int32)[:, :, :resolution]
    return count != 0 if rule == "winding" else (count & 1).astype(bool)


@njit(cache=True)
def _side(ax: Any, ay: Any, a: Any, bx: Any, by: Any, b: Any, x: Any, y: Any) -> Any:
    """Whether (x, y) is left of the edge from vertex a to b: exactly the opposite for the edge from b to a."""
    # Seen from the edge's lower end (by coordinates, then number), so that both directions round alike.
    if ax < bx or (ax == bx and (ay < by or (ay == by and a < b))):
        return (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0.0
    return not ((ax - bx) * (y - by) - (ay - by) * (x - bx) >= 0.0)


@njit(cache=True)
def _crossings(corners: Any, faces: Any, size: Any, jitter_x: Any, jitter_y: Any, signed: Any) -> Any:
    """Changes [R, R, R + 1] of the count at the first cell whose centre is above each crossing."""
    change = np.zeros((size, size, size + 1), np.int16)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = corners[a, 0] - jitter_x, corners[a, 1] - jitter_y, corners[a, 2]
        bx, by, bz = corners[b, 0] - jitter_x, corners[b, 1] - jitter_y, corners[b, 2]
        cx, cy, cz = corners[c, 0] - jitter_x, corners[c, 1] - jitter_y, corners[c, 2]
        first_x, last_x = max(int(np.ceil(min(ax, bx, cx))), 0), min(int(np.floor(max(ax, bx, cx))), size - 1)
        first_y, last_y = max(int(np.ceil(min(ay, by, cy))), 0), min(int(np.floor(max(ay, by, cy))), size - 1)
        for x in range(first_x, last_x + 1):
            for y in range(first_y, last_y + 1):
                left = _side(ax, ay, a, bx, by, b, x, y)
                if left != _side(bx, by, b, cx, cy, c, x, y) or left != _side(cx, cy, c, ax, ay, a, x, y):
                    continue
                u = (bx - x) * (cy - y) - (by - y) * (cx - x)
                v = (cx - x) * (ay - y) - (cy - y) * (ax - x)
                w = (ax - x) * (by - y) - (ay - y) * (bx - x)
                area = u + v + w
                height = (u * az + v * bz + w * cz) / area if area != 0.0 else az
                cell = min(max(int(np.ceil(height)), 0), size)
                # A face that looks up (left) ends the inside above it; one that looks down begins it.
                change[x, y, cell] += -1 if left and signed else 1
    return change

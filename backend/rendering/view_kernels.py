"""Compiled loops about views and cells as wholes: what is seen through, what is open, whether a view is full."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_F32 = np.float32
_U32 = np.uint32


@njit(cache=True, nogil=True)
def mark_passed(passed: Any, start: Any, way: Any, clear: Any, along: Any, step: Any) -> None:
    """Note ``step`` in the cells [R, R, R] along rays [N] that are ``clear``, at ``along`` [S] of their half chords.

    Rays have ``start`` [N, 3] and unit ``way`` [N, 3].
    """
    side = passed.shape[0]
    half_side = _F32(side * 0.5)
    for r in range(start.shape[0]):
        if not clear[r]:
            continue
        dx, dy, dz = way[r, 0], way[r, 1], way[r, 2]
        toward = start[r, 0] * dx + start[r, 1] * dy + start[r, 2] * dz
        mx, my, mz = start[r, 0] - toward * dx, start[r, 1] - toward * dy, start[r, 2] - toward * dz
        half = math.sqrt(max(_F32(1.0) - (mx * mx + my * my + mz * mz), _F32(0.0)))
        for s in range(along.shape[0]):
            t = half * along[s]
            ix = min(max(int((mx + t * dx + _F32(1.0)) * half_side), 0), side - 1)
            iy = min(max(int((my + t * dy + _F32(1.0)) * half_side), 0), side - 1)
            iz = min(max(int((mz + t * dz + _F32(1.0)) * half_side), 0), side - 1)
            passed[ix, iy, iz] = max(passed[ix, iy, iz], step)


@njit(cache=True, nogil=True)
def _gather(ways: Any, x: Any, y: Any, directions: Any, first: Any, last: Any, row: Any) -> None:
    """The bits of some directions for a row of nodes, from rows that are done."""
    row[:] = _U32(0)
    for d in range(first, last):
        bit = _U32(1) << _U32(d)
        dz = directions[d, 2]
        ahead = ways[x + directions[d, 0], y + directions[d, 1], 1 + dz : 1 + dz + row.shape[0]]
        for k in range(row.shape[0]):
            row[k] |= ahead[k] & bit


@njit(cache=True, nogil=True)
def open_ways(free: Any, directions: Any) -> Any:
    """For each node of ``free`` [A, B, C] a bit for each of 26 directions [26, 3], in lexicographic order: it is open.

    Two sweeps, each for the 13 directions that lead to nodes it has been at; the middle two are along the row itself.
    """
    a, b, c = free.shape
    ways = np.full((a + 2, b + 2, c + 2), _U32(0xFFFFFFFF), _U32)
    row = np.empty(c, _U32)
    before, behind = _U32(1) << _U32(12), _U32(1) << _U32(13)
    for x in range(a):
        for y in range(b):
            _gather(ways, x + 1, y + 1, directions, 0, 12, row)
            own = ways[x + 1, y + 1]
            for z in range(c):
                own[z + 1] = (row[z] | (own[z] & before)) if free[x, y, z] else _U32(0)
    for x in range(a - 1, -1, -1):
        for y in range(b - 1, -1, -1):
            _gather(ways, x + 1, y + 1, directions, 14, 26, row)
            own = ways[x + 1, y + 1]
            for z in range(c - 1, -1, -1):
                own[z + 1] |= (row[z] | (own[z + 2] & behind)) if free[x, y, z] else _U32(0)
    return ways[1:-1, 1:-1, 1:-1]


@njit(cache=True, nogil=True)
def count_ways(ways: Any, mask: Any) -> Any:
    """How many of the bits of ``mask`` each node of ``ways`` [A, B, C] has."""
    counts = np.empty(ways.shape, np.uint8)
    for x in range(ways.shape[0]):
        for y in range(ways.shape[1]):
            for z in range(ways.shape[2]):
                bits = ways[x, y, z] & mask
                bits -= (bits >> _U32(1)) & _U32(0x55555555)
                bits = (bits & _U32(0x33333333)) + ((bits >> _U32(2)) & _U32(0x33333333))
                bits = (bits + (bits >> _U32(4))) & _U32(0x0F0F0F0F)
                counts[x, y, z] = _U32(bits * _U32(0x01010101)) >> _U32(24)
    return counts


@njit(cache=True, nogil=True)
def fullness(opacity: Any, pose: Any, focal: Any, center: Any, least: Any) -> Any:
    """Highest opacity [B, H, W], and its mean over every other ray each way that runs ``least`` in the unit ball."""
    batch, height, width = opacity.shape
    most = opacity.max()
    total, count = 0.0, 0
    for b in range(batch):
        at = pose[b, :3, 3]
        away = at[0] * at[0] + at[1] * at[1] + at[2] * at[2]
        for h in range(0, height, 2):
            y = (1.0 - (h + 0.5) / height * 2.0 - center[b, 1]) / focal[b, 1]
            for w in range(0, width, 2):
                x = ((w + 0.5) / width * 2.0 - 1.0 - center[b, 0]) / focal[b, 0]
                toward = 0.0
                for axis in range(3):
                    toward += (x * pose[b, axis, 0] + y * pose[b, axis, 1] - pose[b, axis, 2]) * at[axis]
                if toward * toward / (x * x + y * y + 1.0) - away + 1.0 > least * least * 0.25:
                    total += opacity[b, h, w]
                    count += 1
    return most, total / max(count, 1)

"""What the rig looks like in the viewport, as line segments in the ball's space. numpy alone."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..backend.cameras import orbit_cameras
from ..backend.request import OrbitRig

Segments: TypeAlias = NDArray[np.float32]
"""[2·N, 3]: both ends of each segment."""

_DEGREES = 5.0
"""Between two points of an arc."""


def front_arrow() -> Segments:
    """An arrow on the ground from the ball's front outwards: where the object's face will look."""
    tail, tip = (0.0, -1.0, 0.0), (0.0, -1.6, 0.0)
    left, right = (-0.14, -1.38, 0.0), (0.14, -1.38, 0.0)
    return np.array([tail, tip, tip, left, tip, right, left, right], np.float32)


def orbit_range(orbit: OrbitRig) -> Segments:
    """Where the orbit's cameras stand: the edges of the range, and a meridian every 45 degrees."""
    turn = _steps(*orbit.azimuth)
    rise = _steps(*orbit.elevation)
    full = orbit.azimuth[1] - orbit.azimuth[0] >= 360.0
    meridians = np.arange(-180.0, 180.0, 45.0)
    inside = meridians[(meridians > orbit.azimuth[0]) & (meridians < orbit.azimuth[1])]
    sides = inside if full else np.concatenate([inside, orbit.azimuth])
    if full:
        sides = np.concatenate([sides, [-180.0]])
    arcs: list[Segments] = []
    for distance in dict.fromkeys(orbit.distance):
        arcs += [_arc(turn, np.full_like(turn, each), distance) for each in dict.fromkeys(orbit.elevation)]
        arcs += [_arc(np.full_like(rise, each), rise, distance) for each in sides]
    return np.concatenate([np.zeros((0, 3), np.float32), *arcs])


def _steps(low: float, high: float) -> NDArray[np.float64]:
    return np.linspace(low, high, max(2, int(np.ceil((high - low) / _DEGREES)) + 1))


def _arc(azimuth: NDArray[np.float64], elevation: NDArray[np.float64], distance: float) -> Segments:
    """The way of a camera, as segments from point to point."""
    points = orbit_cameras(azimuth, elevation, distance, 40.0).position
    return np.stack([points[:-1], points[1:]], axis=1).reshape(-1, 3).astype(np.float32)

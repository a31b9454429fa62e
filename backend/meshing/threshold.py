"""Where the surface is: an isovalue chosen from the field itself.

What a person judges is the rendering, so the mesh should be where the rendering shows a surface: where a ray from
outside has become half opaque. The choice looks at the density grid along its three axes from both sides (parallel
rays), notes for each ray the depth at which half opacity is reached, and takes the isovalue whose first crossings
agree best with those depths; a ray on which only one of the two finds a surface pays a price, less the closer it is
to half opacity. Everything is relative to the density's own scale, so a field of ten times the density keeps its
surface where it is sharp, and moves it with the visible surface where it is soft. Where a whole band of isovalues
agrees equally well (a sharp field), its geometric middle is taken, as Otsu's rule on log density would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from ..errors import DivergedError
from .mesh import Floats

CANDIDATES = 96
"""Isovalues tried, evenly spaced in log density."""
DECADES = 4.0
"""They reach this many powers of ten below the densest samples."""
FALSE_SURFACE = 0.1
"""Price of a ray with an isosurface but nothing to be seen, and cap of the distance where there are both; in radii."""
HOLE = 0.4
"""Price of a ray with something to be seen but no isosurface: a hole is worse than a surface too far out."""
BAND = 0.1
"""Isovalues within this many voxels of the best mean disagreement count as equally good."""
FAINTEST = 0.05
"""A field through which no ray gets more opaque than this is empty."""


@dataclass(frozen=True)
class SurfaceLevel:
    """The isovalue and how it was found."""

    density: float
    """The isovalue."""
    opacity: float
    """Opacity, seen from outside, that counts as surface: half of what the field's opaque rays reach."""
    disagreement: float
    """Mean distance between rendered surface and isosurface along rays that meet either, capped; in radii."""


def choose_level(density: Floats, spacing: float, hint: str) -> SurfaceLevel:
    """The isovalue at which the isosurface of a density grid agrees best with what rays from outside see.

    ``density`` is [N, N, N], finite, ≥ 0, zero outside the object's ball; ``spacing`` the distance of its nodes.
    Raises DivergedError (with ``hint``) if no ray through the field gets more opaque than 5 %.
    """
    stride = max(1, density.shape[0] // 160)
    depth = _optical_depths(density, spacing)
    opacity = -np.expm1(-depth)
    seen = opacity[opacity > 0.2 * opacity.max()]
    peak = float(np.percentile(seen, 90)) if len(seen) else 0.0
    if peak < FAINTEST:
        raise DivergedError("The field is empty: nothing in it is dense enough to be seen.", hint)
    high = float(np.percentile(density[density > 0.0], 99.9))
    low = max(high * 10.0**-DECADES, np.finfo(np.float32).tiny)
    levels = np.geomspace(low, high, CANDIDATES)
    target = -float(np.log1p(-0.5 * peak))
    cost, rays = np.zeros(CANDIDATES), np.zeros(CANDIDATES)
    for axis in range(3):
        lines = np.ascontiguousarray(np.moveaxis(density, axis, 2)[::stride, ::stride])
        axis_cost, axis_rays = _disagreement(lines, spacing, target, levels)
        cost += axis_cost.sum(axis=0)
        rays += axis_rays.sum(axis=0)
    mean = cost / max(float(rays.max()), 1.0)
    first, last = _band(mean, BAND * spacing)
    level = float(np.sqrt(levels[first] * levels[last]))
    return SurfaceLevel(level, 0.5 * peak, float(mean[(first + last) // 2]))


def _optical_depths(density: Floats, spacing: float) -> NDArray[np.float64]:
    """Optical depths of all axis-parallel lines, flat."""
    return np.concatenate([(density.sum(axis=a, dtype=np.float64) * spacing).ravel() for a in range(3)])


def _band(mean: NDArray[np.float64], tolerance: float) -> tuple[int, int]:
    """First and last index of the contiguous run around the minimum that is within the tolerance."""
    good = mean <= mean.min() + tolerance
    first = last = int(mean.argmin())
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(mean) - 1 and good[last + 1]:
        last += 1
    return first, last


@njit(cache=True, parallel=True)
def _disagreement(lines: Any, spacing: Any, target: Any, levels: Any) -> Any:
    """Cost [A, K] and number of rays that meet a surface [A, K] of parallel rays along the last axis, both ways."""
    n_rows, n_columns, n = lines.shape
    n_levels = len(levels)
    cost = np.zeros((n_rows, n_levels))
    rays = np.zeros((n_rows, n_levels))
    for i in prange(n_rows):
        crossing = np.empty(n_levels)
        for j in range(n_columns):
            for way in range(2):
                start, step = (0, 1) if way == 0 else (n - 1, -1)
                found = 0
                visible = -1.0
                optical = 0.0
                before = float(lines[i, j, start])
                for k in range(1, n):
                    here = float(lines[i, j, start + k * step])
                    while found < n_levels and here > levels[found]:
                        share = (levels[found] - before) / (here - before) if here > before else 0.0
                        crossing[found] = (k - 1 + max(share, 0.0)) * spacing
                        found += 1
                    gain = 0.5 * (before + here) * spacing
                    if visible < 0.0 and optical + gain >= target:
                        visible = (k - 1 + (target - optical) / gain) * spacing
                    optical += gain
                    before = here
                for k in range(n_levels):
                    if visible >= 0.0 and k < found:
                        cost[i, k] += min(abs(crossing[k] - visible), FALSE_SURFACE)
                    elif visible >= 0.0:
                        cost[i, k] += HOLE * (1.0 - target / optical)
                    elif k < found:
                        cost[i, k] += FALSE_SURFACE * (1.0 - optical / target)
                    else:
                        continue
                    rays[i, k] += 1.0
    return cost, rays

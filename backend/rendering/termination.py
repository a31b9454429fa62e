"""Early termination: samples behind opaque matter are not queried.

The occupancy grid's densities guess where each ray ends; what they hide is queried after all where the field itself
turns out not to be opaque. So a stale grid costs time, never matter, and no density is computed twice.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from .compiled import kernels_for
from .composite import accumulate
from .march import RayBundle, Samples, march, march_ahead
from .occupancy import OccupancyGrid

OPAQUE = -math.log(1e-4)
"""Optical depth at which a ray ends: less than 1e-4 of the light comes through."""
_STALE = 2.0
"""So many times too dense the grid may think matter without a second query; that costs 5 % more samples."""


class Sampled(Protocol):
    """What a field knows of N points."""

    @property
    def density(self) -> Tensor:
        """[N], per unit of length."""
        ...

    @property
    def albedo(self) -> Tensor:
        """[N, 3], linear, in [0, 1]."""
        ...


class RadianceField(Protocol):
    """What the renderer needs of a field."""

    def density(self, x: Tensor) -> Tensor:
        """Density [N] at points [N, 3] of [−1, 1]³."""
        ...

    def query(self, x: Tensor) -> Sampled:
        """Density and albedo."""
        ...

    def normal(self, x: Tensor) -> Tensor:
        """Unit outward normals [N, 3]."""
        ...


def visible_samples(
    field: RadianceField, occupancy: OccupancyGrid, rays: RayBundle, samples_per_ray: int, seed: int | None
) -> tuple[Samples, Tensor, Tensor]:
    """The samples of :func:`.march.march` that light reaches, with their density [N] and albedo [N, 3].

    What is left out lies behind an optical depth of ``OPAQUE``.
    """
    front, cut = march_ahead(rays, occupancy, samples_per_ray, seed, _STALE * OPAQUE)
    sampled = field.query(front.positions)
    if not _left_open(front, sampled.density.detach(), cut):
        return front, sampled.density, sampled.albedo
    samples = march(rays, occupancy, samples_per_ray, seed)
    place = torch.arange(len(samples), device=cut.device) - samples.offsets[samples.rays]
    likely = place < front.offsets.diff()[samples.rays]
    uncovered = ~likely & (_depth(front, sampled.density.detach()) < OPAQUE)[samples.rays]
    rest = field.query(samples.positions[uncovered])
    visible = likely | uncovered
    place = visible.cumsum(0) - 1
    order = torch.cat([place[likely], place[uncovered]])
    density = torch.cat([sampled.density, rest.density])
    albedo = torch.cat([sampled.albedo, rest.albedo])
    return (
        samples.select(visible),
        torch.zeros_like(density).index_copy(0, order, density),
        torch.zeros_like(albedo).index_copy(0, order, albedo),
    )


def _depth(samples: Samples, density: Tensor) -> Tensor:
    """Optical depth [R] of each ray."""
    return accumulate(samples.widths, density[:, None], samples.offsets)[:, 0]


def _left_open(front: Samples, density: Tensor, cut: Tensor) -> bool:
    """Whether any ray that is cut is not opaque after all."""
    if (kernels := kernels_for(density.device)) is not None:
        arrays = (each.contiguous().numpy() for each in (cut, density, front.widths, front.offsets))
        return bool(kernels.left_open(*arrays, OPAQUE))
    return bool((cut & (_depth(front, density) < OPAQUE)).any())

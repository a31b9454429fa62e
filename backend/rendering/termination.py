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
from .composite import accumulate, depth_before
from .march import Samples
from .occupancy import OccupancyGrid

OPAQUE = -math.log(1e-4)
"""Optical depth at which a ray ends: less than 1e-4 of the light comes through."""


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


def query_visible(field: RadianceField, occupancy: OccupancyGrid, samples: Samples) -> tuple[Samples, Tensor, Tensor]:
    """The samples that light reaches, with their density [N] and albedo [N, 3].

    What is left out lies behind an optical depth of ``OPAQUE``.
    """
    likely = _in_front(occupancy, samples)
    front = samples.select(likely)
    sampled = field.query(front.positions)
    depth = accumulate(front.widths, sampled.density.detach()[:, None], front.offsets)[:, 0]
    uncovered = ~likely & (depth < OPAQUE)[samples.rays]
    if not uncovered.any():
        return front, sampled.density, sampled.albedo
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


def _in_front(occupancy: OccupancyGrid, samples: Samples) -> Tensor:
    """Which samples [N] the occupancy grid's densities leave in sight."""
    if (kernels := kernels_for(samples.widths.device)) is not None:
        arrays = (each.numpy() for each in (samples.positions, samples.widths, samples.offsets, occupancy.core))
        return torch.from_numpy(kernels.in_front(*arrays, OPAQUE))
    return depth_before(occupancy.core_density(samples.positions), samples.widths, samples.offsets) < OPAQUE

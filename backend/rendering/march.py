"""Stratified ray marching in the unit ball, past empty cells.

A ray's stretch inside the ball is cut into intervals of 2 / samples_per_ray (the last one is what is left), each with
one sample at a uniform place, or its middle. Samples in empty cells are dropped; what is left is packed ray by ray.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..field.workers import run_kernels, share_count
from .compiled import kernels_for
from .composite import depth_before
from .occupancy import OccupancyGrid
from .randomness import uniform

_SHARED_RAYS = 1024
"""Rays of a thread at the least; waking it for fewer saves nothing."""


@dataclass(frozen=True)
class RayBundle:
    """R rays."""

    origins: Tensor
    """[R, 3], world space."""
    directions: Tensor
    """[R, 3], unit."""
    first: int = 0
    """Number of the first ray in its image batch; makes a chunk's random numbers those of the whole."""

    def __len__(self) -> int:
        return len(self.origins)

    def chunk(self, start: int, stop: int) -> RayBundle:
        """The rays of a range."""
        return RayBundle(self.origins[start:stop], self.directions[start:stop], self.first + start)


@dataclass(frozen=True)
class Samples:
    """N samples of R rays, ray after ray, each ray's from near to far."""

    positions: Tensor
    """[N, 3] in the ball."""
    distances: Tensor
    """[N], from the ray's origin."""
    widths: Tensor
    """[N], length of ray that the sample stands for."""
    rays: Tensor
    """[N] int64, the ray of each sample."""
    offsets: Tensor
    """[R + 1] int64, where each ray's samples begin."""

    def __len__(self) -> int:
        return len(self.distances)

    def select(self, kept: Tensor) -> Samples:
        """The samples of a boolean mask [N]."""
        if (kernels := kernels_for(kept.device)) is not None:
            own = (self.positions, self.distances, self.widths, self.rays, self.offsets)
            return Samples(*map(torch.from_numpy, kernels.select(kept.numpy(), *(each.numpy() for each in own))))
        counts = torch.zeros(len(kept) + 1, dtype=torch.int64, device=kept.device)
        counts[1:] = kept.cumsum(0)
        index = kept.nonzero()[:, 0]
        return Samples(
            self.positions[index], self.distances[index], self.widths[index], self.rays[index], counts[self.offsets]
        )


@torch.no_grad()
def march(rays: RayBundle, occupancy: OccupancyGrid, samples_per_ray: int, seed: int | None) -> Samples:
    """Samples of all rays; ``samples_per_ray`` is the number along the ball's diameter.

    ``seed`` decides the places within the intervals (None: the middles). The same on every device.
    """
    return march_ahead(rays, occupancy, samples_per_ray, seed, math.inf)[0]


@torch.no_grad()
def march_ahead(
    rays: RayBundle, occupancy: OccupancyGrid, samples_per_ray: int, seed: int | None, opaque: float
) -> tuple[Samples, Tensor]:
    """The first of :func:`march`'s samples, up to the optical depth ``opaque`` by the grid's densities.

    Also [R], whether a ray goes on behind.
    """
    near, length = ball_span(rays)
    step = float(np.float32(2.0 / samples_per_ray))
    if (kernels := kernels_for(rays.origins.device)) is not None:
        return _march_compiled(kernels, rays, near, length, occupancy, step, samples_per_ray, seed, opaque)
    samples = _march_torch(rays, near, length, occupancy, step, samples_per_ray, seed)
    if opaque == math.inf:
        return samples, torch.zeros(len(rays), dtype=torch.bool, device=near.device)
    before = depth_before(occupancy.core_density(samples.positions), samples.widths, samples.offsets)
    front = samples.select(before < opaque)
    return front, front.offsets.diff() < samples.offsets.diff()


def ball_span(rays: RayBundle) -> tuple[Tensor, Tensor]:
    """Where each ray enters the unit ball [R] and its length inside [R], 0 for a miss; never behind the origin."""
    middle = -(rays.origins * rays.directions).sum(-1)
    closest = rays.origins + middle[:, None] * rays.directions
    half = (1.0 - closest.square().sum(-1)).clamp(min=0.0).sqrt()
    near = (middle - half).clamp(min=0.0)
    return near, (middle + half - near).clamp(min=0.0)


def _march_compiled(
    kernels: Any,
    rays: RayBundle,
    near: Tensor,
    length: Tensor,
    occupancy: OccupancyGrid,
    step: float,
    samples_per_ray: int,
    seed: int | None,
    opaque: float,
) -> tuple[Samples, Tensor]:
    origins, directions = rays.origins.contiguous().numpy(), rays.directions.contiguous().numpy()
    near_, length_ = near.numpy(), length.numpy()
    noise = (np.uint32(seed or 0), seed is not None, rays.first * samples_per_ray)
    width = np.float32(step)
    kept, counts = np.empty((len(rays), samples_per_ray), np.int32), np.empty(len(rays), np.int64)
    cut = np.empty(len(rays), np.bool_)
    grid = (occupancy.binary.numpy(), occupancy.blocks.numpy())
    ahead = (occupancy.core.numpy(), opaque, kept, counts, cut)
    shares = share_count(len(rays) // _SHARED_RAYS)
    run_kernels(
        lambda *mine: kernels.find_samples(origins, directions, near_, length_, *grid, width, noise, *ahead, *mine),
        shares,
    )
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    total = int(offsets[-1])
    found = (np.empty((total, 3), np.float32), *np.empty((2, total), np.float32), np.empty(total, np.int64))
    packed = (kept, offsets, width, noise, *found)
    run_kernels(lambda *mine: kernels.pack_samples(origins, directions, near_, length_, *packed, *mine), shares)
    return Samples(*map(torch.from_numpy, (*found, offsets))), torch.from_numpy(cut)


def _march_torch(
    rays: RayBundle,
    near: Tensor,
    length: Tensor,
    occupancy: OccupancyGrid,
    step: float,
    samples_per_ray: int,
    seed: int | None,
) -> Samples:
    device = rays.origins.device
    index = torch.arange(samples_per_ray, device=device)
    low = index.to(torch.float32) * step
    width = (length[:, None] - low).clamp(max=step)
    place: Tensor | float = 0.5
    if seed is not None:
        ray = torch.arange(len(rays), device=device)
        place = uniform((rays.first + ray[:, None]) * samples_per_ray + index, seed)
    distance = near[:, None] + (low + place * width)
    positions = rays.origins[:, None] + distance[..., None] * rays.directions[:, None]
    kept = (low < length[:, None]) & occupancy.contains(positions)
    ray, k = kept.nonzero(as_tuple=True)
    offsets = torch.zeros(len(rays) + 1, dtype=torch.int64, device=device)
    offsets[1:] = kept.sum(1).cumsum(0)
    return Samples(positions[ray, k].clamp(-1.0, 1.0), distance[ray, k], width[ray, k], ray, offsets)

"""Which cells of [−1, 1]³ hold matter (Müller et al. 2022, App. E.1; nerfacc's schedule)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .randomness import draw_seed, uniform

BLOCK = 4
"""Cells a side of a block, as in :mod:`.kernels`."""
_CHUNK = 1 << 17


class OccupancyGrid(nn.Module):
    """A grid of decayed density maxima and, from it, of occupied cells.

    Cells are tried at random places, never at fixed ones, and forget slowly, so a feature thinner than a cell is found
    sooner or later and kept for many updates once found; occupied cells also occupy their face neighbours. A cell is
    occupied when its density reaches ``min(mean, opacity_threshold / cell size)``, the mean that of the ball's cells:
    what a ray loses in an unoccupied cell is about 1 % of its light at the most.
    """

    density: Tensor
    """[R, R, R] float32, x, y, z order."""
    binary: Tensor
    """[R, R, R] bool: occupied. All of the ball before the first update."""
    core: Tensor
    """[R, R, R] float32: least density of a cell and its face neighbours, so 0 along surfaces."""
    ball: Tensor
    """[R, R, R] bool: cells that touch the unit ball; no others are ever occupied."""
    blocks: Tensor
    """[⌈R/4⌉]³ bool: a block with an occupied cell."""

    def __init__(
        self,
        resolution: int,
        device: torch.device | str = "cpu",
        *,
        interval: int = 16,
        full_until: int = 256,
        decay: float = 0.95,
        opacity_threshold: float = 0.01,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.interval = interval
        self.full_until = full_until
        self.decay = decay
        self.max_threshold = opacity_threshold * resolution / 2.0
        # A cell belongs to the ball when its nearest point does.
        edge = (torch.arange(resolution + 1, device=device) * (2.0 / resolution) - 1.0).abs()
        nearest = torch.minimum(edge[:-1], edge[1:]).square()
        if resolution % 2:
            nearest[resolution // 2] = 0.0
        ball = nearest[:, None, None] + nearest[:, None] + nearest <= 1.0
        self.register_buffer("density", torch.zeros((resolution,) * 3, device=device))
        self.register_buffer("core", torch.zeros_like(self.density))
        self.register_buffer("binary", ball.clone())
        self.register_buffer("blocks", _blocks(ball))
        self.register_buffer("ball", ball, persistent=False)

    @property
    def occupied_fraction(self) -> float:
        """Share of the ball's cells that are occupied."""
        return float(self.binary.sum() / self.ball.sum())

    def contains(self, positions: Tensor) -> Tensor:
        """Whether positions [..., 3] in [−1, 1]³ lie in occupied cells: [...] bool."""
        return self.binary.view(-1)[self._cell(positions)]

    def core_density(self, positions: Tensor) -> Tensor:
        """A cautious guess at the densities [...] at positions [..., 3]: that of the core."""
        return self.core.view(-1)[self._cell(positions)]

    def _cell(self, positions: Tensor) -> Tensor:
        """Flat indices of the cells."""
        cell = ((positions + 1.0) * (self.resolution * 0.5)).to(torch.int64).clamp(0, self.resolution - 1)
        return (cell[..., 0] * self.resolution + cell[..., 1]) * self.resolution + cell[..., 2]

    @torch.no_grad()
    def update(self, density_fn: Callable[[Tensor], Tensor], step: int, rng: np.random.Generator) -> None:
        """Take a look at the field; does something at every ``interval``-th step only.

        ``density_fn`` maps positions [N, 3] to densities [N]. All cells are looked at before step ``full_until``, later
        the occupied ones and a random quarter of the rest. Random numbers are drawn only when there is an update.
        """
        if step % self.interval:
            return
        seed = draw_seed(rng)
        cells = self._cells_to_visit(step, seed)
        values = torch.cat([self._look(density_fn, part, seed) for part in cells.split(_CHUNK)])
        flat = self.density.view(-1)
        flat.mul_(self.decay)
        # A field that went astray must not blind the grid for good: NaN counts as empty, infinity as dense.
        values = torch.nan_to_num(values.to(flat.dtype), nan=0.0, posinf=1e6, neginf=0.0)
        flat[cells] = torch.maximum(flat[cells], values)
        mean = self.density[self.ball].mean()
        occupied = (self.density >= mean.clamp(max=self.max_threshold)) & (self.density > 0.0)
        self.core.copy_(_spread(self.density, torch.minimum))
        self.binary.copy_(_spread(occupied, torch.logical_or) & self.ball)
        self.blocks.copy_(_blocks(self.binary))

    def _cells_to_visit(self, step: int, seed: int) -> Tensor:
        """Flat indices of cells, ascending."""
        if step < self.full_until:
            return self.ball.reshape(-1).nonzero()[:, 0]
        counter = torch.arange(self.resolution**3, device=self.density.device)
        chosen = uniform(counter, seed).view_as(self.ball) < 0.25
        return ((chosen | self.binary) & self.ball).reshape(-1).nonzero()[:, 0]

    def _look(self, density_fn: Callable[[Tensor], Tensor], cells: Tensor, seed: int) -> Tensor:
        """Density at a random place of each cell."""
        resolution = self.resolution
        corner = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], -1)
        # The first resolution³ counters choose cells.
        counter = resolution**3 + cells[:, None] * 3 + torch.arange(3, device=cells.device)
        return density_fn((corner + uniform(counter, seed)) * (2.0 / resolution) - 1.0)


def _spread(cells: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Each cell combined with its face neighbours."""
    result = cells.clone()
    for axis in range(3):
        length = cells.shape[axis] - 1
        for here, there in ((0, 1), (1, 0)):
            view = result.narrow(axis, here, length)
            view.copy_(combine(view, cells.narrow(axis, there, length)))
    return result


def _blocks(cells: Tensor) -> Tensor:
    """Blocks with an occupied cell. Plain reductions: 3D pooling is missing on some devices."""
    side = -(-cells.shape[0] // BLOCK)
    padded = cells.new_zeros((side * BLOCK,) * 3)
    padded[: cells.shape[0], : cells.shape[1], : cells.shape[2]] = cells
    return padded.view(side, BLOCK, side, BLOCK, side, BLOCK).any(5).any(3).any(1)

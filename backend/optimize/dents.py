"""Fills the dents that guidance carves.

A dent shaded from the right side looks like a bulge (the hollow-face illusion), so score distillation digs where it
should build: on Toybox's animals a quarter of the volume was missing. No silhouette shows a dent. Each step's view
says along which rays one sees past the object; what no recent view has seen through is the visual hull (Laurentini
1994). Where a cell is free inside of it and enclosed on most sides, its density is drawn up. Bowls and cups look like
dents, too: weight 0 keeps them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..cameras import rays_of
from ..rendering.compiled import view_kernels_for
from ..rendering.openness import DIRECTIONS, openness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..cameras import CameraBatch
    from ..field import Field
    from ..rendering import OccupancyGrid

INTERVAL = 16
"""Steps between two looks for dents."""
RAYS, SAMPLES = 832, 48
"""Rays a step, and points of each inside the ball, that mark what is seen through if they pass the object."""
_ALONG = np.linspace(-1, 1, SAMPLES, dtype=np.float32)
CLEAR = 0.5
"""Below this opacity one sees past the object."""
WINDOW = 0.15
"""Share of the run for which a cell that was seen through is remembered."""
ENCLOSED = len(DIRECTIONS) // 2
"""A dent sees the outside in at most so many of 26 directions: on flat ground it is about half of them."""
DOWNWARD = tuple(way for way in DIRECTIONS if way[2] < 0)
"""What is open mostly downwards, between legs or wheels, is no dent: no view from there has carved it."""
POINTS = 512
"""Points in dents that the loss is taken at."""
SOLID = 2 / 3
"""A cell counts as solid from this optical depth on (half of the light is gone at 0.69)."""
WANTED = 2 * SOLID
"""Optical depth to which cells in dents are drawn."""
MANY = 0.2
"""The loss has its whole weight when dents take up this share of the solid's volume; less, in proportion."""
FAINTEST = 1e-6
"""Density that counts as none."""


class Dents(nn.Module):
    """What has been seen through, and where the dents are; a part of the run's state."""

    cells: Tensor
    """[R, R, R] bool, of the occupancy grid: in a dent."""
    passed: Tensor
    """[R, R, R] int32: the last step whose view saw through the cell; −1 for never."""
    share: Tensor
    """[] float32: of the dents in the solid's volume."""

    def __init__(self, resolution: int, device: torch.device) -> None:
        super().__init__()
        shape = (resolution,) * 3
        self.register_buffer("cells", torch.zeros(shape, dtype=torch.bool, device=device))
        self.register_buffer("passed", torch.full(shape, -1, dtype=torch.int32, device=device))
        self.register_buffer("share", torch.zeros((), device=device))

    def see(self, cameras: CameraBatch, opacity: Tensor, step: int, rng: np.random.Generator) -> None:
        """Mark the cells along some of the rays that pass the object; ``opacity`` [B, H, W] is the step's view.

        Rays are drawn before anybody knows which of them pass, so the device is not waited for.
        """
        batch, height, width = opacity.shape
        image = rng.integers(batch, size=RAYS)
        pixel = rng.integers((height, width), size=(RAYS, 2))
        place = ((pixel[:, ::-1] + 0.5) / (width, height) * 2.0 - 1.0) * (1.0, -1.0)
        start, way = rays_of(cameras[image], place)
        hit = torch.from_numpy((image * height + pixel[:, 0]) * width + pixel[:, 1]).to(opacity.device)
        clear = opacity.detach().reshape(-1)[hit] < CLEAR
        if (kernels := view_kernels_for(self.passed.device)) is not None:
            kernels.mark_passed(self.passed.numpy(), start, way, clear.numpy(), _ALONG, np.int32(step))
        else:
            self._mark(start, way, clear, step)

    def _mark(self, start: NDArray[np.float32], way: NDArray[np.float32], clear: Tensor, step: int) -> None:
        """The compiled loop's twin."""
        middle = start - (start * way).sum(1, keepdims=True) * way
        half = np.sqrt(np.maximum(1.0 - (middle**2).sum(1), 0.0))
        side = self.passed.shape[0]
        points = middle[:, None] + (half[:, None] * _ALONG)[..., None] * way[:, None]
        cell = np.clip(((points + 1.0) * (side / 2)).astype(np.int64), 0, side - 1)
        flat = torch.from_numpy((cell[..., 0] * side + cell[..., 1]) * side + cell[..., 2]).to(self.passed.device)
        seen = torch.where(clear, step, -1).to(torch.int32)
        self.passed.view(-1).scatter_reduce_(0, flat.view(-1), seen.repeat_interleave(SAMPLES), "amax")

    def look(self, occupancy: OccupancyGrid, step: int, iterations: int) -> None:
        """Find the dents of what the occupancy grid knows to be solid."""
        opaque = SOLID * occupancy.resolution / 2
        solid = occupancy.density > opaque
        cells = solid.cpu().numpy()
        below, opened = openness(cells, DOWNWARD, DIRECTIONS)
        enclosed = torch.from_numpy((opened <= ENCLOSED) & (2 * below <= opened)).to(solid.device)
        hull = self.passed < step - WINDOW * iterations
        self.cells.copy_(~solid & enclosed & hull & occupancy.ball)
        self.share.copy_(self.cells.sum() / solid.sum().clamp_min(1))

    def loss(self, field: Field, rng: np.random.Generator) -> Tensor:
        """How far log densities fall short in the dents, weighted by how much is dented; a scalar, 0 without dents."""
        cells = self.cells.nonzero()
        pick, offset = rng.random(POINTS), rng.random((POINTS, 3), dtype=np.float32)
        if not len(cells):
            return torch.zeros((), device=cells.device)
        half = self.cells.shape[0] / 2
        corners = cells[torch.from_numpy((pick * len(cells)).astype(np.int64)).to(cells.device)]
        points = (corners + torch.from_numpy(offset).to(cells.device)) / half - 1.0
        points = points / points.norm(dim=1, keepdim=True).clamp_min(1.0)
        short = math.log(WANTED * half) - (field.density(points) + FAINTEST).log()
        return short.relu().mean() * (self.share / MANY).clamp_max(1.0)

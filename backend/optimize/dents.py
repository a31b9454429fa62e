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

from ..cameras import rays
from ..rendering.openness import DIRECTIONS, openness

if TYPE_CHECKING:
    from ..cameras import CameraBatch
    from ..field import Field
    from ..rendering import OccupancyGrid

INTERVAL = 16
"""Steps between two looks for dents."""
RAYS, SAMPLES = 512, 64
"""Rays a step, and points of each, that mark what is seen through."""
CLEAR = 0.5
"""Below this opacity one sees past the object."""
WINDOW = 0.15
"""Share of the run for which a cell that was seen through is remembered."""
ENCLOSED = len(DIRECTIONS) // 2
"""A dent sees the outside in at most so many of 26 directions: on flat ground it is about half of them."""
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
        """Mark the cells along some of the rays that pass the object; ``opacity`` [B, H, W] is the step's view."""
        pick = rng.random(RAYS)
        clear = (opacity.detach() < CLEAR).flatten().nonzero()[:, 0].cpu().numpy()
        if not len(clear):
            return
        height, width = opacity.shape[1:]
        origins, directions = rays(cameras, height, width)
        chosen = clear[(pick * len(clear)).astype(np.int64)]
        start, way = origins[chosen // (height * width)], directions.reshape(-1, 3)[chosen]
        nearest = -(start * way).sum(1, keepdims=True)
        along = nearest + np.linspace(-1, 1, SAMPLES, dtype=np.float32)
        points = start[:, None] + along[..., None] * way[:, None]
        points = points[(points**2).sum(-1) < 1.0]
        half = self.passed.shape[0] / 2
        cell = torch.from_numpy(((points + 1.0) * half).astype(np.int64)).to(self.passed.device)
        self.passed[cell[:, 0], cell[:, 1], cell[:, 2]] = step

    def look(self, occupancy: OccupancyGrid, step: int, iterations: int) -> None:
        """Find the dents of what the occupancy grid knows to be solid."""
        opaque = SOLID * occupancy.resolution / 2
        solid = occupancy.density > opaque
        enclosed = torch.from_numpy(openness(solid.cpu().numpy()) <= ENCLOSED).to(solid.device)
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

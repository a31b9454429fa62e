"""(a) The hash grid by engine, batch and levels, and (b) rendering by resolution and occupancy; forward and backward.

``gather`` is the textbook hash grid in PyTorch, all levels' corners gathered at once and differentiated by autograd.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.cameras import orbit_cameras
from backend.field import Field, GridLayout, HashGridConfig, build_field, select_engine
from backend.field.layout import PRIME_Y, PRIME_Z
from backend.rendering import OccupancyGrid, Renderer, RenderOutput, Shading
from backend.request import OptimizeSettings

from .cases import Action, Case

ENGINES = ("gather", "torch", "numba")
FINEST, FEATURES, TABLE = 2048, 2, 15
"""Instant NGP's finest level and features, with a table that fits a core's cache, as on a CPU it should."""


class Gather:
    """The textbook grid: corners [8, L, N] and one index into the table for all of them."""

    def __init__(self, layout: GridLayout) -> None:
        self.layout = layout
        levels = layout.levels
        self.scale = torch.tensor([level.scale for level in levels])[:, None, None]
        self.resolution = torch.tensor([level.resolution for level in levels])[:, None]
        self.offset = torch.tensor([level.offset for level in levels])[:, None]
        self.entries = torch.tensor([level.size for level in levels])[:, None]
        self.hashed = torch.tensor([level.hashed for level in levels])[:, None]
        self.corners = torch.tensor([(c & 1, c >> 1 & 1, c >> 2) for c in range(8)])

    def encode(self, x: Tensor, params: Tensor, levels: int) -> Tensor:
        """Features [N, L·F] at x [N, 3]; all levels."""
        del levels
        position = x * self.scale + 0.5
        cell, fraction = position.floor().long(), position - position.floor()
        at = cell[None] + self.corners[:, None, None]
        hashed = (at[..., 0] ^ (at[..., 1] * PRIME_Y) ^ (at[..., 2] * PRIME_Z)) & 0xFFFFFFFF
        dense = at[..., 0] + at[..., 1] * self.resolution + at[..., 2] * self.resolution**2
        index = torch.where(self.hashed, hashed, dense) % self.entries + self.offset
        high = self.corners[:, None, None].bool()
        weight = torch.where(high, fraction, 1 - fraction).prod(-1, keepdim=True)
        found = (params.view(-1, self.layout.config.n_features)[index] * weight).sum(0)
        return found.permute(1, 0, 2).reshape(len(x), -1)


def encoding(engine: str, points: int, levels: int) -> dict[str, Action]:
    """Forward and backward of one engine."""
    layout = GridLayout(HashGridConfig.from_finest(levels, FEATURES, TABLE, FINEST))
    made: Any = Gather(layout) if engine == "gather" else select_engine(layout, "cpu", engine)
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(points, 3, generator=draws)
    params = (torch.rand(layout.n_params, generator=draws) - 0.5).requires_grad_()
    kept: list[Tensor] = []

    def forward() -> None:
        kept[:] = [made.encode(x, params, levels)]

    gradient = torch.rand(points, layout.n_outputs, generator=draws)

    def backward() -> None:
        torch.autograd.grad(kept.pop(), params, gradient)

    return {"encode forward": forward, "encode backward": backward}


def shell(occupied: float, settings: OptimizeSettings) -> tuple[Field, OccupancyGrid]:
    """A field whose occupancy grid is a ball of that share of the cells; what is inside is nearly transparent."""
    field = build_field(settings, "cpu", 0)
    grid = OccupancyGrid(settings.occupancy_resolution)
    side = (torch.arange(grid.resolution) + 0.5) * (2 / grid.resolution) - 1
    radius = torch.cartesian_prod(side, side, side).norm(dim=1).view(grid.binary.shape)
    inside = radius <= torch.quantile(radius[grid.ball], occupied)
    grid.density.copy_(inside.float())
    grid.binary.copy_(inside & grid.ball)
    return field, grid


def rendering(side: int, occupied: float) -> dict[str, Action]:
    """Forward and backward of one view, lit, all that a step renders."""
    settings = OptimizeSettings()
    field, grid = shell(occupied, settings)
    grid.blocks.fill_(True)
    renderer = Renderer(field, grid, settings.samples_per_ray)
    cameras, rng = orbit_cameras(30.0, 15.0, 3.0, 40.0), np.random.default_rng(0)
    kept: list[RenderOutput] = []

    def forward() -> None:
        light = torch.from_numpy(cameras.position.astype(np.float32))
        shading = Shading("lambertian", light)
        kept[:] = [renderer.render(cameras, side, side, shading=shading, background=torch.ones(3), rng=rng)]

    def backward() -> None:
        out = kept.pop()
        (out.rgb.square().mean() + out.orientation_loss).backward()

    return {"render forward": forward, "render backward": backward}


def encode_cases(*, quick: bool) -> list[Case]:
    """Every engine by batch and by levels."""
    sizes = [(1 << 12, 5)] if quick else [(1 << 14, 16), (1 << 18, 5), (1 << 18, 16)]
    return [
        Case(
            f"{__name__}:encoding",
            {"engine": engine, "points": points, "levels": levels},
            engine,
            {"points": points, "levels": levels},
            3 if quick else (5 if engine == "gather" else 15),
        )
        for points, levels in sizes
        for engine in ENGINES
    ]


def render_cases(*, quick: bool) -> list[Case]:
    """By resolution and by occupancy."""
    sizes = [(16, 0.1)] if quick else [(side, share) for side in (32, 64, 128) for share in (0.05, 0.3, 1.0)]
    engine = dataclasses.replace(OptimizeSettings()).engine
    return [
        Case(
            f"{__name__}:rendering",
            {"side": side, "occupied": share},
            engine,
            {"side": side, "occupied": share},
            3 if quick else 15,
        )
        for side, share in sizes
    ]

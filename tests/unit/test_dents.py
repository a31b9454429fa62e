"""Dents: found where the occupancy grid is solid, and filled by the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from backend.cameras import rays, sample_orbit
from backend.field import build_field
from backend.optimize.dents import SOLID, Dents
from backend.rendering import OccupancyGrid
from backend.request import OptimizeSettings, OrbitRig, preset
from backend.schedules import DENTS_START, loss_weights

CPU = torch.device("cpu")
SETTINGS = dataclasses.replace(OptimizeSettings(), occupancy_resolution=32)


def ball(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.norm(dim=1) < 0.7, 100.0, 0.0)


def dented_ball(x: torch.Tensor) -> torch.Tensor:
    dent = (x - torch.tensor((0.0, -0.8, 0.0))).norm(dim=1) < 0.45
    return torch.where(dent, 0.0, ball(x))


def found(density: Callable[[torch.Tensor], torch.Tensor], step: int = 200) -> Dents:
    """The dents of a shape that 80 views of its silhouette have been taken of."""
    rng, dents, grid = np.random.default_rng(0), Dents(32, CPU), OccupancyGrid(32, CPU)
    grid.update(density, 0, rng)
    for at in range(120, 200):
        cameras = sample_orbit(OrbitRig(), 1, rng)
        origins, directions = rays(cameras, 32, 32)
        along = torch.linspace(2.0, 4.0, 48)[:, None, None, None]
        points = torch.from_numpy(origins)[0] + along * torch.from_numpy(directions)
        opacity = (density(points.reshape(-1, 3)).reshape(48, 1, 32, 32) > 0).any(0).float()
        dents.see(cameras, opacity, at, rng)
    dents.look(grid, step, 1000)
    return dents


def centres(dents: Dents) -> torch.Tensor:
    return (dents.cells.nonzero() + 0.5) / 16 - 1


def test_a_dent_is_found_and_little_else() -> None:
    dents = found(dented_ball)
    in_dent = (centres(dents) - torch.tensor((0.0, -0.8, 0.0))).norm(dim=1) < 0.5
    assert len(in_dent) > 100
    assert float(in_dent.float().mean()) > 0.9
    assert 0.02 < float(dents.share) < 0.3
    assert float(found(ball).share) < 0.01


def test_what_a_view_has_seen_through_is_no_dent() -> None:
    def legs(x: torch.Tensor) -> torch.Tensor:
        seat = (x[:, :2].abs().amax(1) < 0.5) & ((x[:, 2] - 0.3).abs() < 0.1)
        leg = (x[:, :2].abs() - 0.4).abs().amax(1).lt(0.1) & (x[:, 2].abs() < 0.4)
        return torch.where(seat | leg, 100.0, 0.0)

    dents = found(legs)
    under = (centres(dents)[:, :2].abs().amax(1) < 0.2) & (centres(dents)[:, 2].abs() < 0.1)
    assert not under.any()
    assert float(dents.share) < 0.05  # a cell here and there beside a surface


def bowl(opening: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A ball with a well in it that opens upwards (1) or downwards (−1)."""

    def density(x: torch.Tensor) -> torch.Tensor:
        well = (x[:, :2].norm(dim=1) < 0.35) & (x[:, 2] * opening > -0.2)
        return torch.where(well, 0.0, ball(x))

    return density


def test_what_opens_downwards_is_no_dent() -> None:
    """No view from there has carved it: the space under a car."""
    assert float(found(bowl(1.0)).share) > 0.05
    assert float(found(bowl(-1.0)).share) < 0.02


def test_what_was_seen_through_long_ago_may_have_been_filled_since() -> None:
    assert float(found(dented_ball, step=1000).share) >= float(found(dented_ball).share)


def test_the_loss_fills_the_dent_and_then_falls_silent() -> None:
    field, dents, rng = build_field(SETTINGS, CPU, 0), found(dented_ball), np.random.default_rng(0)
    adam = torch.optim.Adam(field.parameter_groups(0.05), eps=1e-15)
    first = float(dents.loss(field, rng).detach())
    for _ in range(100):
        adam.zero_grad()
        dents.loss(field, rng).backward()
        adam.step()
    assert first > 0.1
    assert float(dents.loss(field, rng).detach()) < 0.1 * first
    assert float((field.density(centres(dents)) * 2 / 32 > SOLID).float().mean()) > 0.9


def test_without_dents_there_is_no_loss_and_chance_goes_on_alike() -> None:
    field, dents = build_field(SETTINGS, CPU, 0), Dents(32, CPU)
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    assert float(dents.loss(field, rng)) == 0.0
    dents.cells[16, 16, 16] = True
    dents.loss(field, other)
    assert rng.random() == other.random()


def test_the_loss_starts_late_and_a_weight_of_zero_leaves_it_out() -> None:
    settings = preset("standard", "a duck").optimize
    before, after = (loss_weights(round((DENTS_START + d) * 1000), settings).dents for d in (-0.01, 0.01))
    assert (before, after) == (0.0, settings.dent_weight)
    assert loss_weights(900, dataclasses.replace(settings, dent_weight=0.0)).dents == 0.0


def test_the_compiled_marking_is_its_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen() -> torch.Tensor:
        rng, dents = np.random.default_rng(0), Dents(32, CPU)
        for step in range(3):
            cameras = sample_orbit(OrbitRig(), 2, rng)
            dents.see(cameras, torch.from_numpy(rng.random((2, 24, 32), dtype=np.float32)), step, rng)
        return dents.passed

    compiled = seen()
    monkeypatch.setattr("backend.optimize.dents.view_kernels_for", lambda _: None)
    assert torch.equal(compiled, seen())
    assert set(compiled.unique().tolist()) == {-1, 0, 1, 2}

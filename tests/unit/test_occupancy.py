"""The occupancy grid: what it keeps, what it drops, and that it can be stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.rendering import OccupancyGrid
from backend.rendering.randomness import uniform

pytestmark = pytest.mark.usefixtures("one_thread")


def sphere(radius: float, density: float = 100.0):
    return lambda x: density * (x.norm(dim=-1) < radius).float()


def centers(grid: OccupancyGrid) -> Tensor:
    axis = (torch.arange(grid.resolution) + 0.5) * (2.0 / grid.resolution) - 1.0
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def trained(density_fn, resolution: int = 32, updates: int = 16, seed: int = 0) -> OccupancyGrid:
    grid, rng = OccupancyGrid(resolution), np.random.default_rng(seed)
    for step in range(0, 16 * updates, 16):
        grid.update(density_fn, step, rng)
    return grid


def test_before_the_first_update_the_ball_is_full() -> None:
    for resolution in (8, 15, 32):
        grid = OccupancyGrid(resolution)
        points = torch.nn.functional.normalize(torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
        assert grid.contains(points * 0.999).all()
        assert grid.occupied_fraction == 1.0
        corners = centers(grid)[0, 0, 0]
        assert not grid.contains(corners) or resolution < 8


def test_a_sphere_is_found_and_little_else() -> None:
    grid = trained(sphere(0.5))
    distance = centers(grid).norm(dim=-1)
    cell = 2.0 / 32
    assert grid.binary[distance < 0.5 - 0.5 * cell].all()
    assert not grid.binary[distance > 0.5 + 2.5 * cell].any()


def test_axes_are_x_y_z() -> None:
    grid = trained(lambda x: 50.0 * ((x - torch.tensor([0.5, -0.25, 0.1])).norm(dim=-1) < 0.1).float())
    where = centers(grid)[grid.binary].mean(0)
    torch.testing.assert_close(where, torch.tensor([0.5, -0.25, 0.1]), atol=0.03, rtol=0.0)
    assert grid.contains(torch.tensor([[0.5, -0.25, 0.1]])).item()
    assert not grid.contains(torch.tensor([[-0.25, 0.5, 0.1]])).item()


@pytest.mark.parametrize("seed", range(3))
def test_thin_plates_and_wires_are_kept(seed: int) -> None:
    """A plate of a quarter of a cell and a wire of a third of one have no hole, also after many sparse updates."""
    cell = 2.0 / 32

    def plate(x: Tensor) -> Tensor:
        return 200.0 * ((x[:, 2] - 0.333 * cell).abs() < cell / 8).float()

    def wire(x: Tensor) -> Tensor:
        off = (x[:, :2] - torch.tensor([0.4 * cell, 0.6 * cell])).abs().amax(-1)
        return 200.0 * (off < cell / 6).float()

    for field, fixed in ((plate, {2: 0.333 * cell}), (wire, {0: 0.4 * cell, 1: 0.6 * cell})):
        grid = trained(field, updates=60, seed=seed)
        points = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8
        for axis, value in fixed.items():
            points[:, axis] = value
        points = points[points.norm(dim=-1) < 0.95]
        assert grid.contains(points).all()
        assert grid.occupied_fraction < 0.2


def test_what_vanished_is_forgotten() -> None:
    grid, rng = OccupancyGrid(16), np.random.default_rng(0)
    for step in range(0, 512, 16):
        grid.update(sphere(0.6, density=5.0), step, rng)
    assert grid.occupied_fraction > 0.1
    for step in range(512, 512 + 16 * 150, 16):
        grid.update(lambda x: torch.zeros(len(x)), step, rng)
    assert grid.density.max() < 0.01


def test_new_matter_is_found_after_the_first_phase() -> None:
    grid, rng = OccupancyGrid(16), np.random.default_rng(0)
    for step in range(0, 512, 16):
        grid.update(sphere(0.2), step, rng)
    before = grid.occupied_fraction
    for step in range(512, 512 + 16 * 30, 16):
        grid.update(sphere(0.7), step, rng)
    assert before < 0.05
    assert grid.binary[centers(grid).norm(dim=-1) < 0.6].all()


def test_looks_when_and_as_often_as_it_says() -> None:
    seen: list[Tensor] = []

    def watch(x: Tensor) -> Tensor:
        seen.append(x)
        return 100.0 * (x.norm(dim=-1) < 0.3).float()

    grid, rng = OccupancyGrid(24), np.random.default_rng(0)
    for step in range(257 + 16):
        grid.update(watch, step, rng)
    cells = int(grid.ball.sum())
    assert [len(x) for x in seen[:16]] == [cells] * 16
    occupied = int(grid.binary.sum())
    expected = occupied + (cells - occupied) / 4
    assert len(seen[16:]) == 2 and all(abs(len(x) - expected) < 0.1 * cells for x in seen[16:])
    for x in seen:
        assert x.abs().max() <= 1.0 and x.dtype == torch.float32
    assert not torch.equal(seen[0], seen[1])
    # One look a cell, inside the cell.
    flat = ((seen[0] + 1.0) * 12.0).long()
    assert len(torch.unique(flat, dim=0)) == cells


def test_faint_fog_follows_the_threshold() -> None:
    """Below 1 % of opacity a cell in an otherwise dense scene is empty; a scene of fog alone is not."""
    size = 2.0 / 16
    faint = trained(lambda x: torch.where(x[:, 0] > 0, 500.0, 0.005 / size), 16)
    assert not faint.binary[:6].any() and faint.binary[8:][faint.ball[8:]].all()
    alone = trained(lambda x: torch.full((len(x),), 0.005 / size), 16)
    assert alone.occupied_fraction == 1.0
    assert trained(lambda x: torch.zeros(len(x)), 16).occupied_fraction == 0.0


def test_broken_values_do_not_stay() -> None:
    grid, rng = OccupancyGrid(16), np.random.default_rng(0)
    grid.update(lambda x: torch.full((len(x),), float("nan")), 0, rng)
    grid.update(lambda x: torch.where(x[:, 0] > 0, float("inf"), 0.0), 16, rng)
    assert torch.isfinite(grid.density).all()


def test_state_goes_into_a_checkpoint_and_back() -> None:
    grid, rng = OccupancyGrid(15), np.random.default_rng(0)
    grid.update(sphere(0.4), 0, rng)
    other = OccupancyGrid(15)
    other.load_state_dict({name: value.clone() for name, value in grid.state_dict().items()})
    for name in ("density", "core", "binary", "blocks"):
        assert torch.equal(getattr(grid, name), getattr(other, name))
    ours, theirs = np.random.default_rng(1), np.random.default_rng(1)
    grid.update(sphere(0.6), 304, ours)
    other.update(sphere(0.6), 304, theirs)
    assert torch.equal(grid.density, other.density) and torch.equal(grid.blocks, other.blocks)


def test_the_core_is_the_least_of_the_neighbours() -> None:
    grid = trained(lambda x: torch.rand(len(x), generator=torch.Generator().manual_seed(0)) + 1.0, 8, 1)
    padded = np.pad(grid.density.numpy(), 1, constant_values=np.inf)
    around = [padded[1:-1, 1:-1, 1:-1]]
    for axis in range(3):
        around += [np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1] for shift in (-1, 1)]
    np.testing.assert_array_equal(grid.core.numpy(), np.min(around, axis=0))
    inside = torch.tensor([[0.01, 0.02, 0.03]])
    assert grid.core_density(inside).item() == grid.core[4, 4, 4].item()


@pytest.mark.parametrize("resolution", [15, 16])
def test_blocks_cover_the_cells(resolution: int) -> None:
    grid = trained(sphere(0.3), resolution, 2)
    block = torch.zeros_like(grid.blocks)
    for x, y, z in grid.binary.nonzero().tolist():
        block[x // 4, y // 4, z // 4] = True
    assert torch.equal(block, grid.blocks)


def test_random_numbers_are_uniform_and_independent_of_order() -> None:
    counter = torch.arange(1 << 16)
    values = uniform(counter, 12345)
    assert values.min() >= 0.0 and values.max() < 1.0
    ordered = values.double().sort().values
    steps = (torch.arange(len(values)).double() + 0.5) / len(values)
    assert (ordered - steps).abs().max() < 1.63 / len(values) ** 0.5
    assert abs(torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([values, uniform(counter, 12346)]))[0, 1]) < 0.02
    order = torch.randperm(len(counter), generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniform(counter[order], 12345), values[order])

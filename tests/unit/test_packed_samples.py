"""Samples that are selected and cut by depth: the compiled loops do as their PyTorch twins."""

from __future__ import annotations

import dataclasses
from unittest import mock

import pytest
import torch

from backend.cameras import orbit_cameras, rays
from backend.rendering import OccupancyGrid, termination
from backend.rendering import march as march_room
from backend.rendering.march import RayBundle, Samples

SIDE = 12
COMPILED = pytest.importorskip("backend.rendering.kernels", reason="needs numba")


def twin(module: object) -> mock._patch[object]:
    """Without the compiled loops."""
    return mock.patch.object(module, "kernels_for", return_value=None)


def scene(seed: int) -> tuple[OccupancyGrid, Samples]:
    draws = torch.Generator().manual_seed(seed)
    grid = OccupancyGrid(8)
    grid.binary.copy_((torch.rand(8, 8, 8, generator=draws) < 0.6) & grid.ball)
    grid.blocks.fill_(True)
    grid.core.copy_(60 * torch.rand(8, 8, 8, generator=draws))
    origins, directions = rays(orbit_cameras([20.0, 170.0], 15.0, 3.0, 40.0), SIDE, SIDE)
    start = torch.from_numpy(origins).repeat_interleave(SIDE * SIDE, 0)
    bundle = RayBundle(start, torch.from_numpy(directions).reshape(-1, 3))
    return grid, march_room.march(bundle, grid, 40, seed)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_in_front_is_the_same(seed: int) -> None:
    grid, samples = scene(seed)
    found = termination._in_front(grid, samples)
    with twin(termination):
        assert torch.equal(found, termination._in_front(grid, samples))
    assert 0 < int(found.sum()) < len(samples)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_what_is_selected_is_the_same(share: float) -> None:
    _, samples = scene(0)
    kept = torch.rand(len(samples), generator=torch.Generator().manual_seed(1)) < share
    found = samples.select(kept)
    with twin(march_room):
        expected = samples.select(kept)
    for item in dataclasses.fields(Samples):
        assert torch.equal(getattr(found, item.name), getattr(expected, item.name)), item.name


def test_samples_are_the_same_for_every_number_of_threads() -> None:
    before, found = torch.get_num_threads(), list[Samples]()
    try:
        with mock.patch.object(march_room, "_SHARED_RAYS", 64):
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(scene(0)[1])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(getattr(found[0], f.name), getattr(other, f.name)) for f in dataclasses.fields(Samples))

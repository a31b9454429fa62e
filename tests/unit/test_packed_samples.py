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


def scene(seed: int) -> tuple[OccupancyGrid, RayBundle]:
    draws = torch.Generator().manual_seed(seed)
    grid = OccupancyGrid(8)
    grid.binary.copy_((torch.rand(8, 8, 8, generator=draws) < 0.6) & grid.ball)
    grid.blocks.fill_(True)
    grid.core.copy_(60 * torch.rand(8, 8, 8, generator=draws))
    origins, directions = rays(orbit_cameras([20.0, 170.0], 15.0, 3.0, 40.0), SIDE, SIDE)
    start = torch.from_numpy(origins).repeat_interleave(SIDE * SIDE, 0)
    return grid, RayBundle(start, torch.from_numpy(directions).reshape(-1, 3))


def same(ours: Samples, theirs: Samples) -> None:
    for item in dataclasses.fields(Samples):
        torch.testing.assert_close(getattr(ours, item.name), getattr(theirs, item.name), msg=item.name)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_in_front_is_the_same(seed: int) -> None:
    """And is the beginning of what is there on each ray; a ray that is cut is said to be."""
    grid, bundle = scene(seed)
    found, cut = march_room.march_ahead(bundle, grid, 40, seed, 9.0)
    with twin(march_room):
        expected, shortened = march_room.march_ahead(bundle, grid, 40, seed, 9.0)
    same(found, expected)
    whole = march_room.march(bundle, grid, 40, seed)
    assert 0 < len(found) < len(whole) and shortened.any() and not cut.all()
    assert not (shortened & ~cut).any()
    place = torch.arange(len(whole)) - whole.offsets[whole.rays]
    same(whole.select(place < found.offsets.diff()[whole.rays]), found)


@pytest.mark.parametrize("seed", range(3))
def test_rays_that_are_left_open_are_found(seed: int) -> None:
    grid, bundle = scene(seed)
    samples, cut = march_room.march_ahead(bundle, grid, 40, seed, 9.0)
    density = grid.core_density(samples.positions)
    for times, expected in ((2.0, False), (0.5, True), (0.0, True)):
        assert termination._left_open(samples, times * density, cut) is expected
        with twin(termination):
            assert termination._left_open(samples, times * density, cut) is expected
    assert not termination._left_open(samples, 0.0 * density, torch.zeros_like(cut))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_what_is_selected_is_the_same(share: float) -> None:
    grid, bundle = scene(0)
    samples = march_room.march(bundle, grid, 40, 0)
    kept = torch.rand(len(samples), generator=torch.Generator().manual_seed(1)) < share
    found = samples.select(kept)
    with twin(march_room):
        expected = samples.select(kept)
    for item in dataclasses.fields(Samples):
        assert torch.equal(getattr(found, item.name), getattr(expected, item.name)), item.name


def test_samples_are_the_same_for_every_number_of_threads() -> None:
    before, found = torch.get_num_threads(), list[Samples]()
    grid, bundle = scene(0)
    try:
        with mock.patch.object(march_room, "_SHARED_RAYS", 64):
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(march_room.march(bundle, grid, 40, 0))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(getattr(found[0], f.name), getattr(other, f.name)) for f in dataclasses.fields(Samples))

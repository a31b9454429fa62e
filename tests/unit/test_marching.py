"""Ray marching and compositing: compiled and PyTorch twins against each other and against plain loops."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backend.cameras import orbit_cameras, rays
from backend.rendering import OccupancyGrid
from backend.rendering import compiled as compiled_module
from backend.rendering.composite import accumulate, transmittance_weights
from backend.rendering.march import RayBundle, Samples, ball_span, march

BOTH = pytest.mark.parametrize("engine", ["kernels", "torch"])


pytestmark = pytest.mark.usefixtures("one_thread")


def run(engine: str, function, *arguments):
    if engine == "kernels":
        assert compiled_module.kernels is not None
        return function(*arguments)
    with mock.patch.object(compiled_module, "kernels", None):
        return function(*arguments)


def bundle(azimuth: float, elevation: float, distance: float, side: int = 12, fov: float = 50.0) -> RayBundle:
    origins, directions = rays(orbit_cameras(azimuth, elevation, distance, fov), side, side)
    count = side * side
    return RayBundle(torch.from_numpy(origins).repeat_interleave(count, 0), torch.from_numpy(directions).view(-1, 3))


def scattered_grid(resolution: int, share: float, seed: int) -> OccupancyGrid:
    """Any set of cells, blocks matching."""
    grid = OccupancyGrid(resolution)
    chosen = torch.rand((resolution,) * 3, generator=torch.Generator().manual_seed(seed)) < share
    grid.update(lambda x: torch.zeros(len(x)), 0, np.random.default_rng(0))
    grid.binary.copy_(chosen & grid.ball)
    for x, y, z in grid.binary.nonzero().tolist():
        grid.blocks[x // 4, y // 4, z // 4] = True
    return grid


def same(a: Samples, b: Samples) -> None:
    for name in ("positions", "distances", "widths", "rays", "offsets"):
        one, two = getattr(a, name), getattr(b, name)
        assert one.dtype == two.dtype and torch.equal(one, two), name


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-180, 180),
    st.floats(-90, 90),
    st.floats(0.0, 6.0),
    st.integers(8, 130),
    st.integers(8, 33),
    st.sampled_from([0.0, 0.003, 0.05, 0.5]),
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)
def test_kernels_give_the_samples_of_the_dense_march(azimuth, elevation, distance, count, resolution, share, seed):
    """Skipping cells and blocks loses nothing and adds nothing: the PyTorch twin tests every interval."""
    grid = scattered_grid(resolution, share, 1)
    cast = bundle(azimuth, elevation, max(distance, 1e-3))
    same(run("kernels", march, cast, grid, count, seed), run("torch", march, cast, grid, count, seed))


@pytest.mark.parametrize("azimuth", [0.0, 37.0, 180.0])
@pytest.mark.parametrize("corner", [(0, 0, 0), (9, 4, 11), (15, 15, 15)])
def test_rays_skip_to_the_box_around_all_matter(azimuth: float, corner: tuple[int, int, int]) -> None:
    """One cell in one block, seen along the axes and across: nothing is lost at the box's faces."""
    grid = scattered_grid(16, 0.0, 0)
    grid.binary[corner] = True
    grid.blocks[tuple(each // 4 for each in corner)] = True
    cast = bundle(azimuth, 0.0, 3.0, side=33)
    found = run("kernels", march, cast, grid, 96, 3)
    same(found, run("torch", march, cast, grid, 96, 3))
    assert len(found) > 0 or corner != (9, 4, 11)


@BOTH
@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("distance", [0.4, 1.5, 3.0, 60.0])
def test_samples_are_stratified(engine: str, seed: int | None, distance: float) -> None:
    """In a full ball each interval of each ray holds one sample, and the widths fill the ray's stretch."""
    cast = bundle(30.0, 20.0, distance, fov=50.0 if distance < 3.0 else math.degrees(2.0 / distance))
    grid, step = OccupancyGrid(16), 2.0 / 50
    samples = run(engine, march, cast, grid, 50, seed)
    near, length = ball_span(cast)
    for r in range(0, len(cast), 7):
        own = slice(int(samples.offsets[r]), int(samples.offsets[r + 1]))
        count = own.stop - own.start
        assert abs(count - math.ceil(float(length[r]) / step)) <= 1
        low = near[r] + torch.arange(count) * step
        widths, t = samples.widths[own], samples.distances[own]
        assert torch.all(t >= low - 1e-5) and torch.all(t <= low + widths + 1e-5)
        assert widths.sum().item() == pytest.approx(float(length[r]), abs=1e-5)
        if seed is None:
            torch.testing.assert_close(t, low + widths / 2, atol=1e-5, rtol=1e-6)
        assert torch.all(samples.rays[own] == r)
        expected = cast.origins[r] + t[:, None] * cast.directions[r]
        torch.testing.assert_close(samples.positions[own], expected, atol=1e-5, rtol=0)
    assert samples.positions.norm(dim=-1).max() <= 1.0 + 1e-4
    assert samples.positions.abs().max() <= 1.0


def test_places_are_uniform_and_follow_the_seed() -> None:
    cast, grid = bundle(0.0, 0.0, 3.0, side=32), OccupancyGrid(8)
    one = march(cast, grid, 64, 11)
    place = ((one.distances - ball_span(cast)[0][one.rays]) / (2.0 / 64)) % 1.0
    whole = one.widths > 0.999 * 2.0 / 64
    share = torch.histc(place[whole], 10, 0.0, 1.0) / whole.sum()
    torch.testing.assert_close(share, torch.full((10,), 0.1), atol=0.01, rtol=0)
    same(one, march(cast, grid, 64, 11))
    assert not torch.equal(one.distances, march(cast, grid, 64, 12).distances)


@BOTH
def test_chunks_are_the_whole(engine: str) -> None:
    cast, grid = bundle(10.0, 10.0, 2.5), scattered_grid(16, 0.2, 3)
    whole = run(engine, march, cast, grid, 40, 5)
    parts = [run(engine, march, cast.chunk(i, i + 50), grid, 40, 5) for i in range(0, len(cast), 50)]
    assert torch.equal(torch.cat([p.positions for p in parts]), whole.positions)


@BOTH
def test_rays_that_miss_have_no_samples(engine: str) -> None:
    away = RayBundle(torch.tensor([[0.0, -3.0, 0.0]] * 3), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1.0]]))
    samples = run(engine, march, away, OccupancyGrid(8), 16, None)
    assert len(samples) == 0 and samples.offsets.tolist() == [0, 0, 0, 0]
    assert transmittance_weights(torch.zeros(0), samples.widths, samples.offsets).shape == (0,)
    assert run(engine, accumulate, torch.zeros(0), torch.zeros(0, 2), samples.offsets).tolist() == [[0.0, 0.0]] * 3


def ragged(counts: list[int], seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *np.cumsum(counts)], dtype=torch.int64)
    total = int(offsets[-1])
    density = torch.rand(total, generator=generator, dtype=dtype) * 30.0
    widths = torch.rand(total, generator=generator, dtype=dtype) * 0.05
    values = torch.randn(total, 5, generator=generator, dtype=dtype)
    return density, widths, values, offsets


def naive(density: Tensor, widths: Tensor, values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Ray by ray, sample by sample, out of the definition; autograd does the rest."""
    weights, sums = [], []
    for r in range(len(offsets) - 1):
        transmittance = torch.ones((), dtype=density.dtype)
        total = torch.zeros(values.shape[1], dtype=values.dtype)
        for i in range(int(offsets[r]), int(offsets[r + 1])):
            alpha = 1.0 - torch.exp(-density[i] * widths[i])
            weights.append(transmittance * alpha)
            total = total + weights[-1] * values[i]
            transmittance = transmittance * (1.0 - alpha)
        sums.append(total)
    return torch.stack(weights), torch.stack(sums)


@BOTH
def test_compositing_is_the_loop(engine: str) -> None:
    density, widths, values, offsets = ragged([3, 0, 7, 1, 40, 0])
    leaves = [density.clone().requires_grad_() for _ in range(2)], [values.clone().requires_grad_() for _ in range(2)]

    def ours() -> tuple[Tensor, Tensor]:
        weights = transmittance_weights(leaves[0][0], widths, offsets)
        sums = accumulate(weights, leaves[1][0], offsets)
        (sums.sin().sum() + (weights * torch.arange(len(weights))).sum()).backward()
        return weights, sums

    weights, sums = run(engine, ours)
    expected_weights, expected_sums = naive(leaves[0][1], widths, leaves[1][1], offsets)
    (expected_sums.sin().sum() + (expected_weights * torch.arange(len(weights))).sum()).backward()
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(sums, expected_sums)
    torch.testing.assert_close(leaves[0][0].grad, leaves[0][1].grad)
    torch.testing.assert_close(leaves[1][0].grad, leaves[1][1].grad)


@BOTH
def test_gradcheck(engine: str) -> None:
    density, widths, values, offsets = ragged([4, 0, 6, 1])
    inputs = (density.requires_grad_(), values.requires_grad_())

    def function(density: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        weights = transmittance_weights(density, widths, offsets)
        return weights, accumulate(weights, values, offsets)

    assert run(engine, torch.autograd.gradcheck, function, inputs)


@BOTH
def test_float32_stays_accurate_behind_opaque_matter(engine: str) -> None:
    """Many rays, some very dense: no error may creep from one ray into another."""
    counts = [60] * 2000
    density, widths, values, offsets = ragged(counts, dtype=torch.float32)
    density[: 60 * 1000] *= 1e4
    weights = run(engine, transmittance_weights, density, widths, offsets)
    exact = transmittance_weights(density.double(), widths.double(), offsets)
    torch.testing.assert_close(weights.double(), exact, atol=2e-6, rtol=1e-4)
    sums = run(engine, accumulate, weights, values, offsets)
    torch.testing.assert_close(sums.double(), accumulate(exact, values.double(), offsets), atol=2e-5, rtol=1e-4)


def test_weights_and_what_is_left_make_one() -> None:
    density, widths, _, offsets = ragged([20, 5, 1])
    weights = transmittance_weights(density, widths, offsets)
    for r in range(3):
        own = slice(int(offsets[r]), int(offsets[r + 1]))
        left = math.exp(-float((density[own] * widths[own]).sum()))
        assert float(weights[own].sum()) == pytest.approx(1.0 - left, abs=1e-12)


def test_selection_keeps_the_rays() -> None:
    samples = march(bundle(0.0, 0.0, 3.0), OccupancyGrid(8), 32, 1)
    kept = torch.rand(len(samples), generator=torch.Generator().manual_seed(0)) < 0.3
    some = samples.select(kept)
    assert len(some) == int(kept.sum()) and torch.equal(some.positions, samples.positions[kept])
    for r in range(len(samples.offsets) - 1):
        assert torch.all(some.rays[some.offsets[r] : some.offsets[r + 1]] == r)

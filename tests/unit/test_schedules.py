"""Schedules: what the loop does at each step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import schedules
from backend.request import OptimizeSettings, OrbitRig, Request


@given(st.integers(1, 5000), st.integers(1, 24))
def test_levels_grow_from_a_third_to_all_at_two_fifths(iterations: int, levels: int) -> None:
    active = [schedules.active_levels(step, iterations, levels) for step in range(0, iterations, 7)]
    assert active[0] == -(-levels // 3)
    assert active == sorted(active)
    assert all(1 <= n <= levels for n in active)
    for step in range(iterations):
        if schedules.progress(step, iterations) >= 0.4:
            assert schedules.active_levels(step, iterations, levels) == levels
            break


@given(st.integers(1, 5000))
def test_progress_runs_from_0_to_1(iterations: int) -> None:
    assert schedules.progress(0, iterations) == 0
    assert schedules.progress(iterations - 1, iterations) == (1 if iterations > 1 else 0)


def test_the_coarse_share_renders_at_half_the_resolution() -> None:
    settings = OptimizeSettings(iterations=100, resolution=64, coarse_share=0.3)
    assert [schedules.resolution(step, settings) for step in (0, 29, 30, 99)] == [32, 32, 64, 64]
    assert schedules.resolution(0, OptimizeSettings(resolution=20, coarse_share=1.0)) == 16
    assert schedules.resolution(0, OptimizeSettings(resolution=64, coarse_share=0.0)) == 64


def test_losses_are_ramped() -> None:
    settings = OptimizeSettings(iterations=301, orientation_weight=2.0, opacity_weight=3.0, entropy_weight=4.0)
    first, third, half, last = (schedules.loss_weights(step, settings) for step in (0, 100, 150, 300))
    assert first.orientation == pytest.approx(0.02)
    assert first.entropy == 0
    assert third.orientation == pytest.approx(2 * (0.01 + 0.99))
    assert half.entropy == pytest.approx(4)
    assert (last.orientation, last.opacity, last.entropy) == (2, 3, 4)


def test_shading_starts_with_albedo_and_keeps_its_shares() -> None:
    settings = OptimizeSettings(iterations=10_000, albedo_share=0.2, shaded_share=0.75, textureless_share=0.4)
    rng = np.random.default_rng(0)
    modes = [schedules.shading_mode(step, settings, rng) for step in range(10_000)]
    assert set(modes[:2000]) == {"albedo"}
    later = modes[2000:]
    assert later.count("albedo") / 8000 == pytest.approx(0.25, abs=0.02)
    assert later.count("textureless") / 8000 == pytest.approx(0.75 * 0.4, abs=0.02)


def test_shading_draws_the_same_numbers_whatever_it_chooses() -> None:
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    for step in range(20):
        schedules.shading_mode(step, OptimizeSettings(iterations=20, albedo_share=1.0), one)
        schedules.shading_mode(step, OptimizeSettings(iterations=20, albedo_share=0.0, textureless_share=1.0), other)
    assert one.random() == other.random()


def test_the_learning_rate_falls_in_the_second_half():
    settings = OptimizeSettings(iterations=101, learning_rate_end=0.2)
    factors = [schedules.learning_rate_factor(step, settings) for step in range(101)]
    assert factors[:51] == [1.0] * 51
    assert factors[75] == pytest.approx(0.6)
    assert factors[100] == pytest.approx(0.2)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors))


def test_a_growing_orbit_starts_near_the_front_and_becomes_whole() -> None:
    request = Request("a duck", optimize=OptimizeSettings(iterations=101, view_growth=0.5))
    ranges = [schedules.orbit(step, request).azimuth for step in range(101)]
    widths = [high - low for low, high in ranges]
    assert ranges[0] == pytest.approx((-180 * schedules.FIRST_VIEWS, 180 * schedules.FIRST_VIEWS))
    assert widths == sorted(widths)
    assert ranges[49][1] < 180 and all(each == (-180.0, 180.0) for each in ranges[50:])


def test_a_growing_orbit_stays_within_a_range_that_has_no_front() -> None:
    rig = OrbitRig(azimuth=(40.0, 120.0))
    request = Request("a duck", orbit=rig, optimize=OptimizeSettings(iterations=11, view_growth=1.0))
    ranges = [schedules.orbit(step, request).azimuth for step in range(11)]
    assert all(low == 40.0 and 40.0 < high <= 120.0 for low, high in ranges)
    assert ranges[0][1] == pytest.approx(40 + 80 * schedules.FIRST_VIEWS) and ranges[-1] == rig.azimuth


def test_an_orbit_that_does_not_grow_is_the_requests_own() -> None:
    request = Request("a duck")
    assert schedules.orbit(0, request) is request.orbit


def test_samples_are_halved_until_all_levels_are_active() -> None:
    settings = OptimizeSettings(iterations=101, samples_per_ray=64)
    counts = [schedules.samples_per_ray(step, settings) for step in range(101)]
    assert counts == [32] * 40 + [64] * 61
    levels = [schedules.active_levels(step, 101, 5) for step in range(101)]
    assert all(count == 64 or level < 5 for count, level in zip(counts, levels, strict=True))
    assert schedules.samples_per_ray(0, OptimizeSettings(samples_per_ray=10)) == 8


def test_dents_are_watched_before_they_are_filled() -> None:
    settings = OptimizeSettings(iterations=101)
    watched = [schedules.dents_are_watched(step, settings, 0.15) for step in range(141)]
    assert watched == [False] * 45 + [True] * 96
    first = next(step for step in range(101) if schedules.loss_weights(step, settings).dents)
    assert first - watched.index(True) >= 0.15 * 100

"""Cameras against independent numpy computations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.cameras import (
    fixed_cameras,
    joined,
    off_front,
    orbit_cameras,
    rays,
    sample_fixed,
    sample_orbit,
    world_to_ndc,
)
from backend.errors import RequestError
from backend.request import FixedCamera, OrbitRig

angles = st.floats(-179.9, 180.0)
elevations = st.floats(-90.0, 90.0)


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The textbook look-at matrix of a camera that looks down −Z."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, up) / np.linalg.norm(np.cross(forward, up))
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(right, forward), -forward, position
    return pose


def rows(pose: NDArray[np.floating]) -> tuple[tuple[float, float, float, float], ...]:
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in pose)


def fixed(position: tuple[float, float, float], name: str = "") -> FixedCamera:
    pose = look_at(np.array(position), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    return FixedCamera(rows(pose), (2.0, 2.5), (0.1, -0.2), name)


@given(angles, st.floats(-89.0, 89.0), st.floats(1.05, 20.0))
def test_orbit_equals_look_at(azimuth: float, elevation: float, distance: float) -> None:
    pose = orbit_cameras(azimuth, elevation, distance, 40.0).camera_to_world[0]
    a, e = math.radians(azimuth), math.radians(elevation)
    direction = np.array([math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)])
    expected = look_at(direction * distance, np.zeros(3), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(pose, expected, atol=2e-5 * distance)


@pytest.mark.parametrize(
    ("azimuth", "position"), [(0, (0, -3, 0)), (90, (3, 0, 0)), (180, (0, 3, 0)), (-90, (-3, 0, 0))]
)
def test_named_views(azimuth: float, position: tuple[float, float, float]) -> None:
    camera = orbit_cameras(azimuth, 0.0, 3.0, 40.0)
    np.testing.assert_allclose(camera.position[0], position, atol=1e-6)
    np.testing.assert_allclose(camera.camera_to_world[0, :3, 1], (0, 0, 1), atol=1e-6)
    # Seen from the front, +X is on the right of the image.
    if azimuth == 0:
        assert world_to_ndc(camera, np.array([[0.5, 0.0, 0.0]]))[0, 0, 0] > 0


@settings(deadline=None)
@given(angles, elevations, st.floats(1.05, 50.0))
def test_pose_gives_its_angles_back(azimuth: float, elevation: float, distance: float) -> None:
    camera = orbit_cameras(azimuth, elevation, distance, 40.0)
    turn = (float(camera.azimuth[0]) - azimuth + 180.0) % 360.0 - 180.0
    room = 0.01 if abs(elevation) < 89.9 else 0.5
    assert abs(turn) < room
    assert -180.0 < camera.azimuth[0] <= 180.0
    np.testing.assert_allclose(camera.elevation, elevation, atol=1e-3)
    np.testing.assert_allclose(camera.distance, distance, rtol=1e-5)
    rotation = camera.camera_to_world[0, :3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-5)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("elevation", [-90.0, 90.0])
@pytest.mark.parametrize("azimuth", [-135.0, 0.0, 90.0, 180.0])
def test_poles_are_limits(azimuth: float, elevation: float) -> None:
    pole = orbit_cameras(azimuth, elevation, 3.0, 40.0)
    near = orbit_cameras(azimuth, math.copysign(89.999, elevation), 3.0, 40.0)
    np.testing.assert_allclose(pole.camera_to_world, near.camera_to_world, atol=1e-3)
    assert pole.azimuth[0] == pytest.approx(azimuth, abs=1e-3)


def test_broadcast() -> None:
    cameras = orbit_cameras(np.array([0.0, 90.0, 180.0]), 10.0, 3.0, [30.0, 40.0, 50.0])
    assert len(cameras) == 3
    np.testing.assert_allclose(cameras.focal[:, 0], 1 / np.tan(np.radians([15.0, 20.0, 25.0])), rtol=1e-6)
    assert len(cameras[1:]) == 2 and cameras[1:].azimuth[0] == pytest.approx(90.0)
    assert len(orbit_cameras(5.0, 10.0, 3.0, [30.0, 40.0])) == 2


@pytest.mark.parametrize("limits", [(-180.0, 180.0), (-30.0, 90.0), (100.0, 100.0)])
@pytest.mark.parametrize("batch", [1, 4, 7])
def test_azimuths_are_stratified(limits: tuple[float, float], batch: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        azimuth = np.sort(sample_orbit(OrbitRig(azimuth=limits), batch, rng).azimuth.astype(np.float64))
        edges = np.linspace(*limits, batch + 1)
        assert np.all(azimuth >= edges[:-1] - 1e-3) and np.all(azimuth <= edges[1:] + 1e-3)


def test_azimuth_fills_its_range() -> None:
    rng = np.random.default_rng(0)
    azimuth = np.array([sample_orbit(OrbitRig(azimuth=(-45.0, 135.0)), 1, rng).azimuth[0] for _ in range(4000)])
    share = np.histogram(azimuth, bins=6, range=(-45.0, 135.0))[0] / len(azimuth)
    np.testing.assert_allclose(share, 1 / 6, atol=0.03)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_elevation_law(share: float) -> None:
    """The distribution function: a mixture of uniform in angle and uniform in the sine (Kolmogorov–Smirnov)."""
    low, high = -10.0, 90.0
    rig = OrbitRig(elevation=(low, high), area_share=share)
    drawn = np.sort(sample_orbit(rig, 20_000, np.random.default_rng(1)).elevation.astype(np.float64))
    sine = np.sin(np.radians([low, high]))
    law = (1 - share) * (drawn - low) / (high - low)
    law += share * (np.sin(np.radians(drawn)) - sine[0]) / (sine[1] - sine[0])
    assert np.abs(law - (np.arange(len(drawn)) + 0.5) / len(drawn)).max() < 1.63 / math.sqrt(len(drawn))


def test_ranges_hold_and_seed_decides() -> None:
    rig = OrbitRig(elevation=(-20.0, 45.0), distance=(2.0, 3.0), field_of_view=(30.0, 60.0))
    one = sample_orbit(rig, 500, np.random.default_rng(5))
    two = sample_orbit(rig, 500, np.random.default_rng(5))
    np.testing.assert_array_equal(one.camera_to_world, two.camera_to_world)
    np.testing.assert_array_equal(one.focal, two.focal)
    assert one.distance.min() >= 2.0 - 1e-5 and one.distance.max() <= 3.0 + 1e-5
    assert one.distance.std() == pytest.approx(1 / math.sqrt(12), rel=0.1)
    fov = 2 * np.degrees(np.arctan(1 / one.focal[:, 1]))
    assert 30.0 <= fov.min() < 33.0 and 57.0 < fov.max() <= 60.001
    np.testing.assert_allclose(world_to_ndc(one, np.zeros((1, 3))), 0.0, atol=1e-5)


def test_jitter() -> None:
    plain = OrbitRig(azimuth=(30.0, 30.0), elevation=(20.0, 20.0))
    base = orbit_cameras(30.0, 20.0, 3.0, 40.0)
    count = 5000

    moved = sample_orbit(replace(plain, jitter_position=0.1), count, np.random.default_rng(0))
    offset = moved.position - base.position
    assert np.abs(offset).max() <= 0.1 + 1e-5
    np.testing.assert_allclose(offset.std(axis=0), 0.1 / math.sqrt(3), rtol=0.06)
    np.testing.assert_allclose(world_to_ndc(moved, np.zeros((1, 3))), 0.0, atol=1e-4)

    aimed = sample_orbit(replace(plain, jitter_target=0.1), count, np.random.default_rng(0))
    np.testing.assert_allclose(aimed.position, np.repeat(base.position, count, 0), atol=1e-5)
    spread = world_to_ndc(aimed, np.zeros((1, 3)))[:, 0].std(axis=0)
    np.testing.assert_allclose(spread, 0.1 * base.focal[0] / 3.0, rtol=0.06)

    rolled = sample_orbit(replace(plain, jitter_up=0.02), count, np.random.default_rng(0))
    roll = np.arcsin(np.clip(rolled.camera_to_world[:, 2, 0] / math.cos(math.radians(20.0)), -1, 1))
    assert roll.std() == pytest.approx(0.02, rel=0.06)
    for cameras in (moved, aimed, rolled):
        rotation = cameras.camera_to_world[:, :3, :3]
        np.testing.assert_allclose(rotation.transpose(0, 2, 1) @ rotation, np.tile(np.eye(3), (count, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("elevation", [-90.0, 90.0])
def test_jittered_poles_are_regular(elevation: float) -> None:
    rig = OrbitRig(elevation=(elevation, elevation), jitter_target=0.1, jitter_up=0.02)
    cameras = sample_orbit(rig, 200, np.random.default_rng(0))
    assert np.isfinite(cameras.camera_to_world).all()
    # The roll follows the azimuth: within the jitter, the right side is that of the orbit.
    azimuth = np.radians(cameras.azimuth)
    right = np.stack([np.cos(azimuth), np.sin(azimuth)], axis=-1)
    assert np.all(np.sum(cameras.camera_to_world[:, :2, 0] * right, axis=-1) > 0.98)


@settings(deadline=None, max_examples=30)
@given(angles, elevations, st.floats(10.0, 100.0), st.integers(1, 9), st.integers(1, 9))
def test_rays_project_back_to_their_pixels(
    azimuth: float, elevation: float, fov: float, height: int, width: int
) -> None:
    cameras = orbit_cameras([azimuth, azimuth + 33.0], elevation, 3.0, fov)
    origins, directions = rays(cameras, height, width)
    assert origins.dtype == directions.dtype == np.float32 and directions.shape == (2, height, width, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1.0, atol=1e-6)
    for index in range(2):
        points = (origins[index] + 2.5 * directions[index]).reshape(-1, 3)
        ndc = world_to_ndc(cameras, points)[index].reshape(height, width, 2)
        for row in range(height):
            for column in range(width):
                expected = (2 * (column + 0.5) / width - 1, 1 - 2 * (row + 0.5) / height)
                np.testing.assert_allclose(ndc[row, column], expected, atol=2e-4)


def test_first_row_is_the_top() -> None:
    _, directions = rays(orbit_cameras(0.0, 0.0, 3.0, 40.0), 8, 8)
    assert directions[0, 0, :, 2].min() > 0 > directions[0, -1, :, 2].max()
    assert directions[0, :, 0, 0].max() < 0 < directions[0, :, -1, 0].min()


def test_points_behind_are_nan() -> None:
    camera = orbit_cameras(0.0, 0.0, 3.0, 40.0)
    ndc = world_to_ndc(camera, np.array([[0.0, -4.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.0, 0.0]]))
    assert np.isnan(ndc[0, :2]).all() and np.isfinite(ndc[0, 2]).all()


def test_fixed_cameras() -> None:
    cameras = [fixed((0.0, -3.0, 1.0)), fixed((2.0, 1.0, 0.5)), fixed((-1.0, -2.0, 2.0))]
    batch = fixed_cameras(cameras)
    np.testing.assert_allclose(batch.position[1], (2.0, 1.0, 0.5), atol=1e-6)
    np.testing.assert_allclose(batch.focal[0], (2.0, 2.5))
    # The principal point is where the target lands.
    np.testing.assert_allclose(world_to_ndc(batch, np.zeros((1, 3)))[:, 0], [[0.1, -0.2]] * 3, atol=1e-6)
    origins, directions = rays(batch, 11, 7)
    point = origins[2] + 3.0 * directions[2, 4, 5]
    np.testing.assert_allclose(world_to_ndc(batch, point[None])[2, 0], (2 * 5.5 / 7 - 1, 1 - 2 * 4.5 / 11), atol=1e-5)


def test_fixed_cameras_take_turns() -> None:
    cameras = [fixed((float(i + 2), 0.0, 0.0)) for i in range(3)]
    rng = np.random.default_rng(0)
    drawn = sample_fixed(cameras, 7, rng).position[:, 0].round().astype(int)
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [2, 3, 4]
    assert list(sample_fixed(cameras, 7, rng).prompt) == [0] * 7
    firsts = {int(sample_fixed(cameras, 1, rng).position[0, 0].round()) for _ in range(50)}
    assert firsts == {2, 3, 4}


def test_broken_cameras_are_refused() -> None:
    with pytest.raises(RequestError, match="no cameras"):
        fixed_cameras([])
    good = np.array(fixed((0.0, -3.0, 1.0)).camera_to_world)
    for bad in (good * [[2.0, 1, 1, 1]], good * [[-1.0, 1, 1, 1]], good + np.eye(4)):
        with pytest.raises(RequestError, match="Eye"):
            fixed_cameras([fixed((0.0, -3.0, 1.0)), FixedCamera(rows(bad), (2.0, 2.0), name="Eye")])


def test_prompts_of_their_own_follow_the_cameras() -> None:
    words = ("", "a face", "a tail", " a face")
    cameras = [replace(fixed((x + 3.0, -3.0, 1.0)), prompt=text) for x, text in enumerate(words)]
    assert list(fixed_cameras(cameras).prompt) == [0, 1, 2, 1]
    drawn = sample_fixed(cameras, 9, np.random.default_rng(0))
    places = drawn.position[:, 0].round().astype(int) - 3
    assert list(drawn.prompt) == [(0, 1, 2, 1)[place] for place in places]
    assert list(joined([drawn[2:4], orbit_cameras([0.0], 0.0, 3.0, 40.0)]).prompt) == [*drawn.prompt[2:4], 0]


def test_turns_from_the_front_are_folded() -> None:
    given = [0, 45, -45, 135, -135, 180, -180, 190, 270, 360, 721, -359]
    np.testing.assert_allclose(off_front(given), [0, 45, 45, 135, 135, 180, 180, 170, 90, 0, 1, 1])
    assert off_front(-30.0) == 30.0

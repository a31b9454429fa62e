"""Relative poses against the training code's own way of making them, and several references by their angles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.cameras import CameraBatch, orbit_cameras, world_to_ndc
from backend.guidance.relative_pose import (
    TRAINING_FOCAL,
    angles_between,
    is_stable_zero123,
    model_distance,
    reference_shares,
    relative_poses,
    view_scales,
)

TRAINING_VIEW = 2 * math.degrees(math.atan(16 / 35))
"""Field of view of the training pictures: half of the 32 mm sensor behind a lens of 35 mm."""
angle = st.floats(-180.0, 180.0)
height = st.floats(-85.0, 85.0)
length = st.floats(1.2, 10.0)


def camera(azimuth: float, elevation: float = 0.0, distance: float = 2.0, view: float = TRAINING_VIEW) -> CameraBatch:
    return orbit_cameras(azimuth, elevation, distance, view)


def pose(
    view: CameraBatch, reference: CameraBatch, kind: str = "zero-1-to-3", extent: float = 0.5
) -> NDArray[np.float32]:
    return relative_poses(view, reference, kind, extent)[0, 0]  # type: ignore[arg-type]


def published(view: CameraBatch, reference: CameraBatch) -> list[float]:
    """T as the training data's code makes it, from 3×4 world-to-camera matrices in Blender's world.

    Zero-1-to-3's data set: the camera's place is −Rᵀt; theta is measured from +Z, azimuth from +X to +Y; each
    difference is the target's less the condition's.
    """
    spherical: list[tuple[float, float, float]] = []
    for each in (view, reference):
        world_to_camera = np.linalg.inv(each.camera_to_world[0].astype(np.float64))[:3]
        x, y, z = -world_to_camera[:, :3].T @ world_to_camera[:, 3]
        spherical.append((math.atan2(math.hypot(x, y), z), math.atan2(y, x), math.sqrt(x * x + y * y + z * z)))
    (theta, turn, radius), (theta_0, turn_0, radius_0) = spherical
    change = (turn - turn_0) % (2 * math.pi)
    return [theta - theta_0, math.sin(change), math.cos(change), radius - radius_0]


@settings(max_examples=40)
@given(angle, height, length, angle, height, length)
def test_the_pose_is_the_published_one(a: float, e: float, d: float, a_0: float, e_0: float, d_0: float):
    """With the training lens, and an object of the training's size, units are the same."""
    view, reference = camera(a, e, d), camera(a_0, e_0, d_0)
    np.testing.assert_allclose(pose(view, reference), published(view, reference), atol=2e-5)


@settings(max_examples=40)
@given(angle, height, angle, height)
def test_stable_zero123_is_told_the_pictures_own_polar_angle(a: float, e: float, a_0: float, e_0: float):
    found = pose(camera(a, e, 2.0), camera(a_0, e_0, 3.0), "stable-zero123")
    polar, polar_0, turn = math.radians(90 - e), math.radians(90 - e_0), math.radians(a - a_0)
    np.testing.assert_allclose(found, [polar - polar_0, math.sin(turn), math.cos(turn), polar_0], atol=2e-5)


@pytest.mark.parametrize(
    ("view", "reference", "expected"),
    [
        (camera(0), camera(0), [0, 0, 1, 0]),
        (camera(90), camera(0), [0, 1, 0, 0]),
        (camera(-90), camera(0), [0, -1, 0, 0]),
        (camera(180), camera(0), [0, 0, -1, 0]),
        (camera(-180), camera(0), [0, 0, -1, 0]),
        (camera(-170), camera(170), [0, math.sin(math.radians(20)), math.cos(math.radians(20)), 0]),
        (camera(170), camera(-170), [0, -math.sin(math.radians(20)), math.cos(math.radians(20)), 0]),
        (camera(0, 30), camera(0), [-math.pi / 6, 0, 1, 0]),
        (camera(0, -30), camera(0, 15), [math.pi / 4, 0, 1, 0]),
        (camera(45, 90), camera(45), [-math.pi / 2, 0, 1, 0]),
        (camera(0, 0, 2.2), camera(0, 0, 1.5), [0, 0, 1, 0.7]),
    ],
)
def test_known_poses(view: CameraBatch, reference: CameraBatch, expected: list[float]):
    np.testing.assert_allclose(pose(view, reference), expected, atol=1e-5)


@settings(max_examples=40)
@given(st.floats(1.0, 179.0), height, height)
def test_positive_azimuth_is_a_view_from_further_right(turn: float, e: float, e_0: float):
    """As the published demonstration has it: +90° is the view from the right, and above is a negative polar angle."""
    reference, view = camera(20.0, e_0), camera(20.0 + turn, e)
    found = pose(view, reference)
    right = reference.camera_to_world[0, :3, 0]
    assert found[1] > 0
    assert float(view.position[0] @ right) > 0
    assert math.copysign(1, found[0]) == math.copysign(1, e_0 - e) or abs(e - e_0) < 1e-3


@settings(max_examples=40)
@given(length, st.floats(10.0, 100.0), st.floats(0.05, 1.0))
def test_distances_keep_the_objects_size_in_the_picture(distance: float, view: float, extent: float):
    seen = camera(0.0, 0.0, distance, view)
    across = world_to_ndc(seen, np.array([[extent, 0.0, 0.0]]))[0, 0, 0]
    own = model_distance(seen, extent)[0]
    assert across == pytest.approx(TRAINING_FOCAL * 0.5 / own, rel=1e-4)
    assert pytest.approx(1 / math.tan(math.radians(TRAINING_VIEW / 2))) == TRAINING_FOCAL


def test_the_orbits_own_distance_is_one_the_models_were_trained_on():
    assert 1.5 <= model_distance(camera(0.0, 0.0, 3.0, 40.0), 0.75)[0] <= 2.2


def test_poses_of_a_batch_are_those_of_its_pairs():
    views, references = orbit_cameras([10.0, -60.0, 140.0], [0.0, 40.0, -20.0], 3.0, 40.0), camera(0.0)
    two = orbit_cameras([0.0, 100.0], [0.0, 30.0], [2.0, 4.0], 50.0)
    table = relative_poses(views, two, "zero-1-to-3", 0.5)
    assert table.shape == (3, 2, 4)
    assert table.dtype == np.float32
    for i in range(3):
        for k in range(2):
            np.testing.assert_array_equal(table[i, k], pose(views[i : i + 1], two[k : k + 1]))
    assert relative_poses(views, references, "stable-zero123", 0.5).shape == (3, 1, 4)


@settings(max_examples=40)
@given(angle, height, angle, height)
def test_angles_between_cameras(a: float, e: float, a_0: float, e_0: float):
    """By the spherical law of cosines; distances do not matter."""
    e, e_0, turn = math.radians(e), math.radians(e_0), math.radians(a - a_0)
    cosine = math.sin(e) * math.sin(e_0) + math.cos(e) * math.cos(e_0) * math.cos(turn)
    found = angles_between(camera(a, math.degrees(e), 2.0), camera(a_0, math.degrees(e_0), 5.0))
    assert found.shape == (1, 1)
    assert math.cos(math.radians(found[0, 0])) == pytest.approx(cosine, abs=1e-5)


def test_shares_fall_with_the_angle():
    angles = np.array([[10.0, 20.0, 150.0], [0.0, 90.0, 180.0], [60.0, 60.0, 60.0]])
    shares = reference_shares(angles, np.ones(3), "nearby")
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], atol=1e-12)
    own = reference_shares(angles, np.array([1.0, 4.0, 1.0]), "nearby")
    np.testing.assert_allclose(own[0], [1 / 3, 2 / 3, 0], atol=1e-12)
    nearest = reference_shares(angles, np.array([1.0, 4.0, 1.0]), "nearest")
    np.testing.assert_array_equal(nearest, [[1, 0, 0], [1, 0, 0], [1, 0, 0]])


@settings(max_examples=40)
@given(st.lists(st.floats(0.0, 180.0), min_size=1, max_size=5), st.floats(0.1, 10.0))
def test_shares_sum_to_one(row: list[float], weight: float):
    for choice in ("nearby", "nearest"):
        shares = reference_shares(np.array([row]), np.full(len(row), weight), choice)
        assert shares.sum() == pytest.approx(1.0)
        assert shares.min() >= 0
        assert shares.argmax() == np.argmin(row) or row[int(shares.argmax())] <= max(min(row), 0.01)


def test_views_by_their_angle():
    angles = np.array([[0.0, 90.0], [45.0, 130.0], [90.0, 90.0]])
    np.testing.assert_array_equal(view_scales(angles, "full"), [1, 1, 1])
    np.testing.assert_allclose(view_scales(angles, "angle"), [0, 0.5, 1])
    np.testing.assert_allclose(view_scales(np.array([[180.0], [45.0]]), "angle"), [1, 0.25])


@pytest.mark.parametrize("name", ["stable-zero123-diffusers", "models--someone--Stable_Zero123", "StableZero123"])
def test_stable_zero123_is_told_by_its_name(name: str):
    assert is_stable_zero123(name)
    assert not is_stable_zero123("zero123-xl-diffusers")
    assert not is_stable_zero123("stable-diffusion-zero123")

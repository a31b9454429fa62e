"""Toybox's world: solids, pictures of them, captions, and the facts its training relies on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.cameras import CameraBatch, orbit_cameras
from backend.guidance.camera_projection import CameraProjection, camera_features
from backend.toybox.captions import VIEWS, WORDS, caption, view_of, vocabulary
from backend.toybox.dataset import KIND_NAMES, MIRROR_FEATURES, make_pictures, sample_camera
from backend.toybox.kinds import KINDS
from backend.toybox.model import make_tokenizer
from backend.toybox.raycast import Light, render
from backend.toybox.shapes import Builder
from backend.toybox.world import BALL_FILL, BUILDS, COLOURS, SIZES, Look, make_object

MIRROR = np.diag([-1.0, 1, 1, 1])


@pytest.mark.parametrize("extras", [(), ("tall", "large", "blue"), ("wide", "small", "white")])
@pytest.mark.parametrize("kind", KINDS)
def test_an_object_fits_the_ball_and_is_mirror_symmetric(kind: str, extras: tuple[str, ...]) -> None:
    solids = make_object(Look(kind, "red", *extras), np.random.default_rng(3))
    assert np.linalg.norm(solids.hull_points(), axis=1).max() == pytest.approx(BALL_FILL)
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    inside = solids.contains(points)
    assert 0.01 < inside.mean() < 0.6
    assert (inside == solids.contains(points * (-1, 1, 1))).all()


@pytest.mark.parametrize("kind", ["train", "penguin", "sofa"])
def test_the_volume_is_what_the_object_contains(kind: str) -> None:
    solids, size = make_object(Look(kind, "red", "tall"), np.random.default_rng(1)), 24
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    assert (solids.volume(size).ravel() != solids.contains(points)).mean() < 1e-3  # rounding, on a surface


@pytest.mark.parametrize("kind", KINDS)
def test_front_and_back_look_different(kind: str) -> None:
    cameras = orbit_cameras(np.array([0.0, 180.0]), 15.0, 3.0, 40.0)
    solids = make_object(Look(kind, "green"))
    front, back = (
        render(solids, pose, (2.75, 2.75), (0, 0), 48, Light((0, 0, 9), 1.0))[0] for pose in cameras.camera_to_world
    )
    assert np.abs(front - back[:, ::-1]).mean() > 0.005


def test_ray_casting_agrees_with_containment() -> None:
    """A pixel is covered if and only if some point along its ray is inside."""
    builder = Builder()
    builder.ball((0.3, 0, 0.2), (0.4, 0.2, 0.3), (1, 0, 0), (20, 30, 40))
    builder.box((-0.4, 0.1, -0.2), (0.2, 0.3, 0.25), (0, 1, 0), (0, 25, 60))
    builder.rod((0, 0.2, -0.5), (0.2, 0.15, 0.3), (0, 0, 1), (50, 10, 0), taper=0.3)
    solids = builder.solids()
    size = 40
    camera = orbit_cameras(35.0, 20.0, 3.0, 40.0)
    focal = (float(camera.focal[0, 0]), float(camera.focal[0, 1]))
    _, cover = render(solids, camera.camera_to_world[0], focal, (0, 0), size, Light((3, -3, 3), 0.3), supersample=1)
    ndc = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(ndc, -ndc)
    local = np.stack((x / focal[0], y / focal[1], -np.ones_like(x)), -1).reshape(-1, 3)
    pose = camera.camera_to_world[0].astype(float)
    along = np.linspace(1.5, 4.5, 1500)
    points = pose[:3, 3] + (local @ pose[:3, :3].T)[:, None] * along[:, None]
    truth = solids.contains(points.reshape(-1, 3)).reshape(size, size, -1).any(-1)
    assert truth.sum() > 100
    assert (truth != (cover > 0)).sum() <= 3  # grazing rays, between two samples


def test_light_and_colour() -> None:
    builder = Builder()
    builder.ball((0, 0, 0), 0.9, (0.2, 0.4, 0.6))
    pose = orbit_cameras(0.0, 0.0, 3.0, 40.0).camera_to_world[0]
    flat, _ = render(builder.solids(), pose, (2.75, 2.75), (0, 0), 33, Light((0, -9, 0), 1.0))
    np.testing.assert_allclose(flat[16, 16], (0.2, 0.4, 0.6), rtol=1e-5)
    lit, cover = render(builder.solids(), pose, (2.75, 2.75), (0, 0), 33, Light((0, -9, 0), 0.1))
    np.testing.assert_allclose(lit[16, 16], (0.2, 0.4, 0.6), rtol=0.02)
    toward_rim = lit[16, 16:, 2][cover[16, 16:] > 0.99]
    assert (np.diff(toward_rim) < 0).all()  # the light stands behind the camera
    assert toward_rim[-1] < 0.7 * toward_rim[0]


def test_pictures_are_the_same_for_the_same_seed() -> None:
    first, again, other = (make_pictures(6, seed, 32, 0.3) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert (first.rgb != other.rgb).any()
    assert first.alpha.max() == 255
    views = [VIEWS.index(view_of(a, e)) for a, e in zip(first.azimuth, first.elevation, strict=True)]
    assert first.view.tolist() == views


def test_mirrored_features_are_those_of_the_mirrored_camera() -> None:
    camera = sample_camera(np.random.default_rng(2), 0.0)
    pose = MIRROR @ camera.camera_to_world[0] @ MIRROR
    twin = CameraBatch(pose[None].astype(np.float32), camera.focal, camera.center * np.array([-1, 1], np.float32))
    np.testing.assert_allclose(camera_features(twin), camera_features(camera) * MIRROR_FEATURES, atol=1e-5)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "view"),
    [
        (0, 0, "front"),
        (44, 10, "front"),
        (-90, 0, "side"),
        (90, 59, "side"),
        (180, 0, "back"),
        (-140, 0, "back"),
        (0, 61, "overhead"),
    ],
)
def test_view_words(azimuth: float, elevation: float, view: str) -> None:
    assert view_of(azimuth, elevation) == view


def test_captions_use_known_words_and_the_right_article() -> None:
    assert caption(Look("owl")) == "an owl"
    assert caption(Look("duck", "orange"), "back") == "an orange duck, back view"
    assert caption(Look("duck", "red"), article=False) == "red duck"
    full = Look("duck", "red", "tall", "large", "orange")
    assert caption(full, "side") == "a tall red duck with a large beak and an orange hat, side view"
    assert caption(Look("car", "blue", size="small")) == "a blue car with small wheels"
    for kind in KIND_NAMES:
        for colour in COLOURS:
            for build, size in itertools.product((*BUILDS, None), (*SIZES, None)):
                words = caption(Look(kind, colour, build, size, colour), "side").replace(",", " ,").split()
                assert set(words) <= set(WORDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_is_seen(kind: str) -> None:
    """Each attribute changes the shape, the colours, or both; an accent shows in its own colour."""
    camera = orbit_cameras(30.0, 35.0, 3.0, 40.0).camera_to_world[0]

    def picture(look: Look) -> NDArray[np.float32]:
        linear, cover = render(make_object(look), camera, (2.75, 2.75), (0, 0), 64, Light((0, 0, 9), 1.0))
        return linear * cover[..., None]

    plain = picture(Look(kind, "green"))
    for said in (Look(kind, "green", "tall"), Look(kind, "green", "wide"), Look(kind, "green", size="small")):
        assert np.abs(picture(said) - plain).mean() > 0.002
    accented = picture(Look(kind, "green", accent="purple"))
    assert (np.abs(accented - COLOURS["purple"]).max(-1) < 0.05).mean() > 0.004
    assert not (np.abs(plain - COLOURS["purple"]).max(-1) < 0.05).any()


def test_every_known_word_is_one_token(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    for word in vocabulary()["words"]:
        assert len(tokenizer(word).input_ids) == 3, word
    numbers = [tokenizer(word).input_ids[1] for word in vocabulary()["words"]]
    assert len(set(numbers)) == len(numbers)


def test_camera_projection_round_trip(tmp_path: Path) -> None:
    import torch

    projection = CameraProjection(8, n_tokens=3, hidden=16)
    projection.save_pretrained(tmp_path)
    again = CameraProjection.from_pretrained(tmp_path)
    features = torch.from_numpy(camera_features(orbit_cameras(np.array([0.0, 90.0]), 10.0, 3.0, 40.0)))
    assert projection(features).shape == (2, 3, 8)
    torch.testing.assert_close(projection(features), again(features))

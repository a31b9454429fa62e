"""The training set of Toybox's model of hidden sides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from backend.cameras import orbit_cameras
from backend.toybox.instances import make_instance
from backend.toybox.maps_dataset import BELOW, ELEVATION, Below, MapBatches, make_below
from backend.toybox.true_maps import true_maps
from backend.toybox.view_dataset import DISTANCE, FIELD_OF_VIEW, VIEWS, Views, make_views, stable_poses

CPU = torch.device("cpu")
SEED = 5


@pytest.fixture(scope="module")
def views() -> Views:
    return make_views(0, 3, SEED)


@pytest.fixture(scope="module")
def below() -> Below:
    return make_below(0, 3, SEED)


def test_maps_from_below_are_of_the_same_objects(below: Below) -> None:
    assert below.angles.shape == (3, BELOW, 2)
    elevation = below.angles[..., 1]
    assert elevation.min() >= ELEVATION[0] and elevation.max() <= ELEVATION[1]
    solids = make_instance(np.random.default_rng((SEED, 1))).solids
    camera = orbit_cameras(below.angles[1, 2, 0], below.angles[1, 2, 1], DISTANCE, FIELD_OF_VIEW)
    depth, normals = true_maps(solids, camera, below.depth.shape[-1])
    np.testing.assert_allclose(below.depth[1, 2], depth, atol=2e-3)
    np.testing.assert_allclose(below.normals[1, 2] / 127, normals, atol=5e-3)
    again = make_below(1, 2, SEED)
    assert np.array_equal(again.angles[0], below.angles[1])


def test_pairs_are_a_picture_and_maps_of_one_object(views: Views, below: Below) -> None:
    """Each as likely from every place, half of them in the mirror, with their pose."""
    pairs = MapBatches(views, below, CPU, 0).draw_maps(80)
    pictures = torch.from_numpy(np.array(views.pictures)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    angles = np.concatenate((views.angles, below.angles), 1)
    depths = np.concatenate((views.depth, below.depth), 1).astype(np.float32)
    places = [*itertools.product(range(3), range(VIEWS), range(VIEWS + BELOW), (False, True))]
    seen: list[tuple[int, int, bool]] = []
    for picture, pose, depth in zip(pairs.references, pairs.poses, pairs.maps.depth, strict=True):
        fitting = [
            (reference, target, mirror)
            for n, reference, target, mirror in places
            if torch.equal(picture, pictures[n, reference].flip(2) if mirror else pictures[n, reference])
            and np.array_equal(depth.numpy(), np.nan_to_num(depths[n, target][:, :: -1 if mirror else 1]))
            and torch.allclose(pose, mirrored_pose(angles[n, target], angles[n, reference], mirror), atol=1e-5)
        ]
        assert len(fitting) == 1
        seen += fitting
    assert 20 < sum(mirror for _, _, mirror in seen) < 60
    assert {target for _, target, _ in seen} == set(range(VIEWS + BELOW))
    known = pairs.maps.known > 0
    length = pairs.maps.normals.norm(dim=1)
    assert float((length[known] - 1).abs().max()) < 0.02 and not length[~known].any()


def mirrored_pose(target: np.ndarray, reference: np.ndarray, mirror: bool) -> torch.Tensor:
    sign = np.array((-1.0 if mirror else 1.0, 1.0), np.float32)
    return stable_poses(*(torch.from_numpy(angles * sign)[None] for angles in (target, reference)))[0]

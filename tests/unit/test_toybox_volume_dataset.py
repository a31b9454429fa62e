"""The training set of Toybox's model of whole shapes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.cameras import CameraBatch, orbit_cameras
from backend.toybox.instances import make_instance
from backend.toybox.shapes import Solids
from backend.toybox.view_dataset import DISTANCE, FIELD_OF_VIEW, VIEWS, Views, make_views, stable_poses
from backend.toybox.volume_dataset import SLABS, ColumnBatches, Columns, column_cells, make_columns

CPU = torch.device("cpu")
SEED = 5


@pytest.fixture(scope="module")
def views() -> Views:
    return make_views(0, 3, SEED)


@pytest.fixture(scope="module")
def columns(views: Views, tmp_path_factory: pytest.TempPathFactory) -> Columns:
    angles = tmp_path_factory.mktemp("views") / "angles.npy"
    np.save(angles, views.angles)
    return make_columns(0, 3, SEED, angles)


def solids(number: int) -> Solids:
    return make_instance(np.random.default_rng((SEED, number))).solids


def middles(camera: CameraBatch, size: int) -> np.ndarray:
    """Of all cells [size, size, SLABS, 3], worked out from the camera's axes alone."""
    pose, (fx, fy) = camera.camera_to_world[0].astype(float), camera.focal[0]
    ndc = (np.arange(size) + 0.5) / size * 2 - 1
    depth = DISTANCE - 1 + (np.arange(SLABS) + 0.5) * 2 / SLABS
    x, y, z = np.broadcast_arrays(ndc[None, :, None] / fx, -ndc[:, None, None] / fy, depth)
    return np.stack((x * z, y * z, -z), -1) @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize("number", range(6))
def test_cells_are_filled_where_the_object_is(number: int) -> None:
    camera = orbit_cameras(40.0 * number, 25.0 - 10 * number, DISTANCE, FIELD_OF_VIEW)
    cells = column_cells(solids(number), camera, 32)
    inside = solids(number).contains(middles(camera, 32).reshape(-1, 3)).reshape(cells.shape)
    assert cells.any() and (cells != inside).mean() < 1e-5  # but for rounding at a surface


def test_columns_are_kept_before_each_view(views: Views, columns: Columns) -> None:
    assert columns.bits.shape == (3, VIEWS, 64, 64, SLABS // 8)
    azimuth, elevation = views.angles[1, 4]
    camera = orbit_cameras(azimuth, elevation, DISTANCE, FIELD_OF_VIEW)
    cells = np.unpackbits(columns.bits[1, 4], axis=-1).astype(bool)
    assert np.array_equal(cells, column_cells(solids(1), camera))
    known = ~np.isnan(views.depth[1, 4])
    first = DISTANCE - 1 + (cells.argmax(-1) + 0.5) * 2 / SLABS
    both = known & cells.any(-1)
    assert both.sum() > 0.95 * known.sum()
    off = (first - views.depth[1, 4])[both]
    assert (off > -2e-3).all() and np.median(off) < 2 / SLABS  # the first middle behind the surface


def test_a_batch_has_pictures_their_poses_and_what_is_behind_them(views: Views, columns: Columns) -> None:
    """Half of them in the mirror; columns of the object's pixels and of those beside them."""
    pairs = ColumnBatches(views, columns, CPU, 0).draw_columns(60)
    pictures = torch.from_numpy(np.array(views.pictures)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    counts = pairs.seen.sum((1, 2)).tolist()
    mirrors = 0
    for picture, pose, seen, filled in zip(
        pairs.pictures, pairs.poses, pairs.seen, pairs.filled.split(counts), strict=True
    ):
        [(n, view, mirror)] = [
            (n, view, mirror)
            for n, view, mirror in itertools.product(range(3), range(VIEWS), (False, True))
            if torch.equal(picture, pictures[n, view].flip(2) if mirror else pictures[n, view])
        ]
        step = -1 if mirror else 1
        cells = np.unpackbits(columns.bits[n, view], axis=-1)[:, ::step]
        known = ~np.isnan(views.depth[n, view])[:, ::step]
        assert seen.numpy()[known].all() and seen.sum() < 2 * known.sum()
        assert np.array_equal(filled.numpy(), cells[seen.numpy()])
        assert not cells[~seen.numpy()].any()
        angles = torch.from_numpy(views.angles[n, view] * np.array((step, 1), np.float32))[None]
        torch.testing.assert_close(pose, stable_poses(torch.zeros(1, 2), angles)[0])
        mirrors += mirror
    assert 15 < mirrors < 45


def test_other_rows_are_the_same_objects(views: Views, columns: Columns, tmp_path: Path) -> None:
    np.save(tmp_path / "angles.npy", views.angles)
    assert np.array_equal(make_columns(2, 3, SEED, tmp_path / "angles.npy").bits[0], columns.bits[2])

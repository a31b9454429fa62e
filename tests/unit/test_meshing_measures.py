"""Voxels, overlaps and distances."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.meshing import chamfer_distance, sample_surface, volume_iou, voxelize


def cells(resolution: int) -> np.ndarray:
    """Centres [R, R, R, 3]."""
    axis = (np.arange(resolution) + 0.5) * (2.0 / resolution) - 1.0
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def ball(radius: float, centre: tuple[float, ...] = (0.0, 0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return np.asarray(mesh.vertices, np.float32) + np.array(centre, np.float32), np.asarray(mesh.faces, np.int32)


def box(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.box(bounds=[low, high])
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)


@pytest.mark.parametrize("rule", ["parity", "winding"])
def test_ball_is_voxelized(rule):
    centre = np.array([0.1, -0.2, 0.05])
    radius = np.linalg.norm(cells(48) - centre, axis=-1)
    solid = voxelize(*ball(0.6, tuple(centre)), 48, rule)
    # The faceted ball lies between its inscribed ball and itself.
    assert solid[radius < 0.595].all()
    assert not solid[radius > 0.6001].any()


@pytest.mark.parametrize("rule", ["parity", "winding"])
def test_order_of_axes(rule):
    solid = voxelize(*box((-0.5, -0.25, 0.0), (0.75, 0.5, 0.25)), 16, rule)
    expected = np.zeros((16, 16, 16), bool)
    expected[4:14, 6:12, 8:10] = True
    assert np.array_equal(solid, expected)


def test_edges_and_corners_on_cell_centres_are_counted_once():
    """Every edge and the diagonals of this box run exactly through columns of cell centres."""
    low, high = -1 + 5 / 16, -1 + 23 / 16
    solid = voxelize(*box((low,) * 3, (high,) * 3), 16)
    inner = solid[3:11, 3:11, 3:11]
    assert inner.all()
    outside = solid.copy()
    outside[2:12, 2:12, 2:12] = False
    assert not outside.any()
    # No column is left open.
    assert not solid[:, :, -1].any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([8, 16, 32]))
def test_a_closed_mesh_with_vertices_on_the_grid_leaves_no_column_open(seed: int, resolution: int):
    """A ball whose vertices are snapped to quarter cells: rays meet vertices, edges and folded triangles."""
    rng = np.random.default_rng(seed)
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=rng.uniform(0.3, 0.9))
    step = 0.5 / resolution
    vertices = (np.round(np.asarray(mesh.vertices) / step) * step).astype(np.float32)
    faces = np.asarray(mesh.faces, np.int32)
    for rule in ("parity", "winding"):
        solid = voxelize(vertices, faces, resolution, rule)
        assert not solid[:, :, -1].any()
        inner = np.linalg.norm(cells(resolution), axis=-1) < 0.9 * np.linalg.norm(vertices, axis=1).min() - 2 * step
        assert solid[inner].all()


def test_overlapping_parts_are_a_union_by_winding():
    a, b = ball(0.4, (-0.2, 0, 0)), ball(0.4, (0.2, 0, 0))
    vertices, faces = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1] + len(a[0])])
    union = voxelize(vertices, faces, 32, "winding")
    assert np.array_equal(union, voxelize(*a, 32) | voxelize(*b, 32))
    assert np.array_equal(voxelize(vertices, faces, 32), voxelize(*a, 32) ^ voxelize(*b, 32))


def test_parity_does_not_mind_the_faces_directions():
    vertices, faces = ball(0.5)
    turned = faces.copy()
    turned[::2] = turned[::2, ::-1]
    assert np.array_equal(voxelize(vertices, turned, 24), voxelize(vertices, faces, 24))


def test_what_lies_outside_the_cube_is_cut_off():
    solid = voxelize(*box((-3.0, -0.5, -3.0), (0.0, 0.5, 3.0)), 8)
    expected = np.zeros((8, 8, 8), bool)
    expected[:4, 2:6, :] = True
    assert np.array_equal(solid, expected)


def test_iou_of_known_grids():
    a, b = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    assert volume_iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert volume_iou(a, b) == pytest.approx(1 / 3)
    assert volume_iou(a, a) == 1.0
    with pytest.raises(ValueError, match="one shape"):
        volume_iou(a, np.zeros((2, 2, 2), bool))


def test_chamfer_of_concentric_balls_is_their_gap():
    rng = np.random.default_rng(0)
    inner, outer = sample_surface(*ball(0.5), 20_000, rng), sample_surface(*ball(0.6), 20_000, rng)
    assert chamfer_distance(inner, outer) == pytest.approx(0.1, abs=0.002)
    assert chamfer_distance(inner, outer) == pytest.approx(chamfer_distance(outer, inner))
    assert chamfer_distance(inner, inner) == 0.0
    with pytest.raises(ValueError, match="empty"):
        chamfer_distance(inner, inner[:0])


def test_surface_samples_are_uniform_in_area():
    """A box of three side lengths: each side gets its share, spread evenly."""
    vertices, faces = box((-0.6, -0.3, -0.1), (0.6, 0.3, 0.1))
    points = sample_surface(vertices, faces, 40_000, np.random.default_rng(1))
    top = points[:, 2] > 0.0999
    assert top.mean() == pytest.approx(1.2 * 0.6 / (2 * (1.2 * 0.6 + 1.2 * 0.2 + 0.6 * 0.2)), abs=0.01)
    counts, _, _ = np.histogram2d(points[top, 0], points[top, 1], bins=(4, 2))
    assert counts.std() < 0.05 * counts.mean()
    assert np.array_equal(points, sample_surface(vertices, faces, 40_000, np.random.default_rng(1)))

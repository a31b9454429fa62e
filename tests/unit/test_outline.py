"""The mesh's outline against the pictures' masks: the rim moves, the rest stays."""

from __future__ import annotations

import numpy as np
import pytest

from backend.cameras import CameraBatch, orbit_cameras
from backend.meshing import PictureView
from backend.meshing.isosurface import Surface
from backend.meshing.outline import fit_outline
from backend.meshing.rasterize import depth_map
from tests.unit.analytic_fields import ball, surface_of

FRONT, SIDE = orbit_cameras(0.0, 0.0, 3.0, 40.0), orbit_cameras(90.0, 20.0, 3.0, 40.0)
SIZE = 256


@pytest.fixture(scope="module")
def surface() -> Surface:
    return surface_of(ball(100.0, 0.46))


def mask(camera: CameraBatch, *solids: Surface) -> PictureView:
    """Of surfaces, as the camera sees them."""
    there = np.zeros((SIZE, SIZE), bool)
    for solid in solids:
        there |= np.isfinite(depth_map(solid.vertices, solid.faces, camera, SIZE))
    return PictureView(camera, np.repeat(there[..., None] * np.uint8(255), 4, axis=2))


def overlap(vertices: np.ndarray, surface: Surface, view: PictureView) -> float:
    ours = np.isfinite(depth_map(vertices, surface.faces, view.camera, SIZE))
    wanted = view.rgba[..., 3] > 0
    return float((ours & wanted).sum() / (ours | wanted).sum())


@pytest.mark.parametrize("radius", [0.5, 0.43])
def test_the_rim_goes_to_the_masks_edge_and_the_front_stays(surface: Surface, radius: float):
    views = [mask(camera, surface_of(ball(100.0, radius))) for camera in (FRONT, SIDE)]
    moved = fit_outline(surface.vertices, surface.faces, views)
    for view in views:
        assert overlap(surface.vertices, surface, view) < 0.9
        assert overlap(moved, surface, view) > 0.98
    step = np.linalg.norm(moved - surface.vertices, axis=1)
    assert step.max() < 1.5 * abs(radius - 0.46)
    away_from_rims = np.abs(surface.vertices @ np.array([0, 1, 0])) > 0.3
    single = fit_outline(surface.vertices, surface.faces, views[:1])
    assert np.linalg.norm(single - surface.vertices, axis=1)[away_from_rims].max() < 0.35 * abs(radius - 0.46)


def test_strength_is_the_share_of_the_way(surface: Surface):
    view = mask(FRONT, surface_of(ball(100.0, 0.5)))
    whole = fit_outline(surface.vertices, surface.faces, [view])
    half = fit_outline(surface.vertices, surface.faces, [view], 0.5)
    assert half == pytest.approx((whole + surface.vertices) / 2, abs=1e-6)
    assert fit_outline(surface.vertices, surface.faces, [view], 0.0) is surface.vertices
    assert fit_outline(surface.vertices, surface.faces, []) is surface.vertices


def test_a_mask_that_agrees_moves_nothing(surface: Surface):
    moved = fit_outline(surface.vertices, surface.faces, [mask(FRONT, surface)])
    assert np.linalg.norm(moved - surface.vertices, axis=1).max() < 0.01


def test_a_part_that_the_surface_lacks_draws_nothing(surface: Surface):
    arm = surface_of(ball(100.0, 0.15, centre=(0.5, 0.0, 0.0)))
    view = mask(FRONT, surface, arm)
    moved = fit_outline(surface.vertices, surface.faces, [view])
    towards_it = surface.vertices[:, 0] > 0.44
    assert np.linalg.norm(moved - surface.vertices, axis=1)[towards_it].max() < 0.02

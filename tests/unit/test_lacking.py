"""What a picture shows and the surface lacks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.cameras import CameraBatch, orbit_cameras, rays, world_to_ndc
from backend.meshing import Pictures, PictureView, extract_mesh, render_mesh
from backend.meshing.isosurface import sample_grid
from backend.meshing.lacking import lacking
from backend.request import MeshSettings
from tests.unit.analytic_fields import Analytic, ball, quiet

BODY, NOSE = ((0.0, 0.0, 0.0), 0.4), ((0.0, -0.55, 0.0), 0.2)
FOG = 4.0
ASIDE = orbit_cameras(70.0, 10.0, 3.0, 40.0)
SETTINGS = MeshSettings(grid_resolution=48, faces=6000, texture_size=64)


def density(x: Tensor) -> Tensor:
    """A solid body and a nose of fog, through whose middle half of the light gets and more."""
    solid, fog = (ball(strength, radius, 0.01, at)(x) for strength, (at, radius) in ((60.0, BODY), (FOG, NOSE)))
    return torch.maximum(solid, fog)


def picture(camera: CameraBatch, size: int = 128) -> PictureView:
    """Body and nose, both as solid."""
    origins, directions = rays(camera, size, size)
    rgba = np.zeros((size, size, 4), np.uint8)
    for at, radius in (BODY, NOSE):
        beside = np.linalg.norm(np.cross(np.array(at) - origins[0], directions[0]), axis=-1)
        rgba[..., 3][beside < radius] = 255
    return PictureView(camera, rgba)


def test_a_fog_that_a_picture_shows_is_as_dense_as_the_surface() -> None:
    grid = sample_grid(Analytic(density), None, 48, quiet)
    factor = lacking(grid, 10.0, [picture(ASIDE)])
    assert factor is not None
    axis = np.linspace(-1, 1, 49)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    away = np.sqrt(x**2 + (y + 0.55) ** 2 + z**2)
    beside_body = np.sqrt(x**2 + y**2 + z**2) > 0.45
    nose = (away < 0.15) & beside_body
    assert ((grid * factor)[nose] > 10.0).mean() > 0.9
    assert factor[away > 0.45].max() == pytest.approx(1.0, abs=0.02)
    assert factor.min() >= 1.0


def test_what_is_solid_or_hardly_there_is_left_alone() -> None:
    for field in (ball(60.0, 0.9, 0.01), ball(0.3, NOSE[1], 0.01, NOSE[0])):
        grid = sample_grid(Analytic(field), None, 48, quiet)
        assert lacking(grid, 10.0, [picture(ASIDE)]) is None
    grid = sample_grid(Analytic(density), None, 48, quiet)
    assert lacking(grid, 10.0, []) is None
    empty = dataclasses.replace(picture(ASIDE), rgba=np.zeros((128, 128, 4), np.uint8))
    assert lacking(grid, 10.0, [empty]) is None


@pytest.mark.parametrize(("kind", "stands"), [("picture", True), ("mirror image", True), ("sketch", False)])
def test_the_mesh_has_it(kind: str, stands: bool) -> None:
    """A sketch alone makes no matter of fog."""
    shown = dataclasses.replace(picture(ASIDE), kind=kind)
    mesh = extract_mesh(Analytic(density), None, SETTINGS, quiet, Pictures((shown,), colours=0.0))
    there = render_mesh(mesh, ASIDE, 96, 96, lit=False)[0, ..., 3] > 0.5
    column, row = ((world_to_ndc(ASIDE, np.array([NOSE[0]]))[0, 0] * (1, -1) + 1) / 2 * 96).astype(int)
    assert there[row, column] == stands
    nothing = extract_mesh(Analytic(density), None, SETTINGS, quiet, Pictures((shown,), colours=0.0, outline=0.0))
    assert not (render_mesh(nothing, ASIDE, 96, 96, lit=False)[0, row, column, 3] > 0.5)

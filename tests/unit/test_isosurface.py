"""From the density to triangles: the level, the parts that stay, what is closed and what is an error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.errors import DivergedError
from backend.meshing import extract_mesh
from backend.meshing.isosurface import extract_surface, sample_grid
from backend.meshing.mesh import components, signed_volume
from backend.meshing.threshold import choose_level
from backend.request import MeshSettings
from tests.unit.analytic_fields import (
    BOX,
    Analytic,
    Occupied,
    ball,
    box,
    is_closed,
    quiet,
    radii,
    surface_of,
)

# The level


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_sharp_surface_stays_whatever_the_density(scale: float):
    surface = surface_of(ball(30.0 * scale))
    assert abs(radii(surface).mean() - 0.5) < 0.002
    assert radii(surface).std() < 0.003


@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0])
def test_soft_surface_is_where_rays_are_half_opaque(scale: float):
    """Between the depth at which a central ray is half opaque and the silhouette at which a whole ray is."""

    def gauss(x: Tensor) -> Tensor:
        return 30.0 * scale * torch.exp(-((x.norm(dim=1) / 0.25) ** 2))

    line = np.linspace(1.0, -1.0, 2001)
    offsets = np.linspace(0.0, 0.99, 100)
    squared = line**2 + offsets[:, None] ** 2
    optical = np.cumsum(30.0 * scale * np.exp(-squared / 0.25**2) * (squared < 1.0), axis=1) * (2.0 / 2000)
    target = -np.log1p(0.5 * np.expm1(-optical[0, -1]))
    head_on = line[np.argmax(optical[0] >= target)]
    silhouette = offsets[optical[:, -1] >= target].max()
    assert head_on < radii(surface_of(gauss)).mean() < silhouette


def test_soft_surface_moves_with_the_visible_one():
    means = [radii(surface_of(ball(30.0 * scale, softness=0.04))).mean() for scale in (0.1, 1.0, 10.0)]
    assert means[0] < means[1] - 0.02 < means[2] - 0.04


def test_level_does_not_depend_on_the_grid():
    def field(x: Tensor) -> Tensor:
        return 50.0 * torch.exp(-((x.norm(dim=1) / 0.4) ** 4))

    coarse, fine = (choose_level(sample_grid(Analytic(field), None, n, quiet), 2.0 / n, "") for n in (40, 80))
    assert coarse.density == pytest.approx(fine.density, rel=0.2)
    assert coarse.opacity == pytest.approx(0.5, abs=0.01)
    assert 0.0 < fine.disagreement < 0.05


def test_haze_does_not_become_surface():
    """A veil that hides a tenth of the light around a solid ball is not meshed."""
    surface = surface_of(lambda x: ball(100.0, 0.4)(x) + 0.15 * (x.norm(dim=1) < 0.8).float())
    assert abs(radii(surface).mean() - 0.4) < 0.01


# The surface


def test_surface_is_closed_outward_and_one():
    surface = surface_of(box)
    assert is_closed(surface.faces)
    assert components(surface.faces)[0] == 1
    volume = signed_volume(surface.vertices, surface.faces).sum()
    assert volume == pytest.approx(8 * np.prod(BOX), rel=0.02)


def test_sharp_oblique_side_has_no_terraces():
    """A density that jumps across a tilted plane: the grid only knows between which nodes, the field knows where."""
    normal = torch.nn.functional.normalize(torch.tensor([0.3, 0.2, 1.0]), dim=0)
    surface = surface_of(lambda x: 300.0 * ((x @ normal < 0.1) & (x.norm(dim=1) < 0.7)).float())
    height = surface.vertices @ normal.numpy()
    flat = np.linalg.norm(surface.vertices, axis=1) < 0.6
    assert flat.sum() > 200
    assert np.abs(height[flat] - 0.1).max() < 0.05 * surface.spacing


def test_floaters_and_cavities_go():
    def field(x: Tensor) -> Tensor:
        shell = ball(100.0)(x) - ball(100.0, 0.25)(x)
        return shell + ball(100.0, 0.1, centre=(0.0, 0.0, 0.8))(x) + ball(100.0, 0.1)(x)

    surface = surface_of(field)
    assert components(surface.faces)[0] == 1
    assert np.abs(radii(surface) - 0.5).max() < 0.01


def test_two_large_parts_stay():
    surface = surface_of(lambda x: ball(100.0, 0.3, centre=(0.5, 0, 0))(x) + ball(100.0, 0.2, centre=(-0.5, 0, 0))(x))
    assert components(surface.faces)[0] == 2


@pytest.mark.parametrize(("gap", "radius", "parts"), [(0.06, 0.1, 2), (0.2, 0.1, 1), (0.06, 0.04, 1)])
def test_a_small_part_stays_if_it_is_near_the_body(gap: float, radius: float, parts: int):
    foot = (0.0, 0.0, -(0.4 + gap + radius))
    field = Analytic(lambda x: ball(100.0, 0.4)(x) + ball(100.0, radius, centre=foot)(x))
    assert components(extract_surface(field, None, 64, quiet).faces)[0] == parts
    mesh = extract_mesh(field, None, MeshSettings(grid_resolution=64, faces=2000, texture_size=64), quiet)
    assert len(np.unique(np.sign(mesh.vertices[:, 2] + 0.4 + gap / 2))) == parts


def test_object_cut_by_the_ball_is_closed_and_round():
    surface = surface_of(lambda x: 100.0 * (x[:, 2] < 0.0).float())
    assert is_closed(surface.faces)
    lower = surface.vertices[:, 2] < -0.1
    assert np.abs(radii(surface)[lower] - 1.0).max() < 0.05 * surface.spacing


def test_only_occupied_cells_are_asked():
    binary = torch.zeros((16, 16, 16), dtype=torch.bool)
    binary[4:12, 4:12, 4:12] = True
    field = Analytic(ball(100.0, 0.45))
    density = sample_grid(field, Occupied(binary), 64, quiet)
    assert 0 < field.asked < 0.3 * 65**3
    assert np.array_equal(density, sample_grid(Analytic(ball(100.0, 0.45)), None, 64, quiet))


@pytest.mark.parametrize(
    ("density", "words"),
    [
        (lambda x: torch.zeros(len(x)), "empty"),
        (lambda x: torch.full((len(x),), 1e-3), "empty"),
        (lambda x: torch.full((len(x),), 1e3), "fills"),
        (lambda x: torch.full((len(x),), 1.0), "fills"),
        (lambda x: torch.full((len(x),), torch.nan), "not numbers"),
        (lambda x: torch.full((len(x),), torch.inf), "not numbers"),
    ],
)
def test_no_object_is_an_error_that_says_so(density: Callable[[Tensor], Tensor], words: str):
    with pytest.raises(DivergedError, match=words) as caught:
        extract_mesh(Analytic(density), None, MeshSettings(grid_resolution=32), quiet)
    assert caught.value.hint


def test_nothing_occupied_is_an_error():
    occupied = Occupied(torch.zeros((8, 8, 8), dtype=torch.bool))
    with pytest.raises(DivergedError, match="empty"):
        extract_mesh(Analytic(ball(100.0)), occupied, MeshSettings(grid_resolution=32), quiet)

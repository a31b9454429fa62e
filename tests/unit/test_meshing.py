"""From analytic fields to textured meshes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.meshing import Mesh, extract_mesh, voxelize
from backend.meshing.bake import fill_nearest, texels_of
from backend.meshing.clean import clean_surface, decimate, taubin, tidy
from backend.meshing.mesh import components, face_normals, signed_volume, vertex_normals, weld
from backend.meshing.unwrap import unwrap
from backend.request import MeshSettings
from tests.unit.analytic_fields import (
    BOX,
    Analytic,
    ball,
    box,
    box_colour,
    is_closed,
    quiet,
    surface_of,
)


@pytest.fixture(scope="module")
def painted() -> Mesh:
    settings = MeshSettings(grid_resolution=48, faces=2000, texture_size=256)
    return extract_mesh(Analytic(box, box_colour), None, settings, quiet)


# Cleaning


def test_taubin_smooths_noise_and_keeps_volume():
    surface = surface_of(ball(100.0, softness=0.01))
    noisy = surface.vertices + np.random.default_rng(0).normal(0, 0.003, surface.vertices.shape).astype(np.float32)
    smooth = taubin(noisy, surface.faces)
    assert np.linalg.norm(smooth, axis=1).std() < 0.5 * np.linalg.norm(noisy, axis=1).std()
    volume = [signed_volume(v, surface.faces).sum() for v in (surface.vertices, smooth)]
    assert volume[1] == pytest.approx(volume[0], rel=0.01)


def test_decimation_reaches_its_target_and_keeps_sides_flat():
    surface = surface_of(box, 64)
    vertices, faces = tidy(*decimate(surface.vertices, surface.faces, 1500))
    assert 1400 <= len(faces) <= 1500
    assert is_closed(faces)
    area = np.linalg.norm(face_normals(vertices, faces), axis=1)
    upright = np.abs(face_normals(vertices, faces)).max(axis=1) / np.maximum(area, 1e-12)
    assert area[upright > 0.999].sum() > 0.85 * area.sum()


def test_tidy_drops_what_is_broken():
    surface = surface_of(ball(100.0), 24)
    count = len(surface.vertices)
    scraps = surface.vertices[:3] + 1.0
    vertices = np.concatenate([surface.vertices, scraps, surface.vertices[:1]])
    flap = [[count, 7, 8], [7, count, 8]]
    extra = np.array([[count, count + 1, count + 2], [0, 1, 1], *flap], np.int32)
    moved = surface.faces.copy()
    moved[np.argmax((moved == 0).any(axis=1))] += (count + 3) * (moved[np.argmax((moved == 0).any(axis=1))] == 0)
    clean_vertices, clean_faces = tidy(vertices, np.concatenate([moved, extra]))
    assert len(clean_vertices) == count
    assert len(clean_faces) == len(surface.faces)
    assert is_closed(clean_faces)


@pytest.mark.parametrize("seed", [0, 1])
def test_rough_fields_give_closed_surfaces(seed: int):
    """Far more wrinkles than triangles: no edge is left open."""
    waves = torch.randn((32, 3), generator=torch.Generator().manual_seed(seed)) * 25

    def rough(x: Tensor) -> Tensor:
        return 60 * torch.sigmoid((0.5 - x.norm(dim=1) + 0.02 * torch.sin(x @ waves.T).sum(dim=1)) / 0.02)

    vertices, faces = clean_surface(surface_of(rough, 64), 1500)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()
    assert components(faces)[0] == 1
    assert signed_volume(vertices, faces).sum() > 0.3


def test_normals_of_a_ball_point_outwards():
    surface = surface_of(ball(100.0, softness=0.02))
    normals = vertex_normals(surface.vertices, surface.faces)
    outward = surface.vertices / np.linalg.norm(surface.vertices, axis=1, keepdims=True)
    assert (normals * outward).sum(axis=1).min() > 0.99
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-5)


# The texture


def test_unwrap_keeps_triangles_and_overlaps_nowhere():
    surface = surface_of(box, 24)
    source, faces, uvs = unwrap(surface.vertices, surface.faces, 256)
    assert np.array_equal(source[faces], surface.faces)
    assert uvs.min() >= 0.0
    assert uvs.max() <= 1.0
    a, b, c = (uvs[faces[:, i]].astype(np.float64) for i in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum()
    covered = texels_of(faces, uvs, 1024, border=0.0).covered
    # Charts that overlapped would cover less than their summed area.
    assert covered.mean() == pytest.approx(area, rel=0.002)
    assert area > 0.3


def test_uv_raster_finds_the_shown_points():
    """A square that covers the lower left quarter of the texture."""
    points = np.array([[0, 0, 0], [2, 0, 0], [2, 4, 0], [0, 4, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    texels = texels_of(faces, points[:, :2] * np.array([0.25, 0.125], np.float32), 64)
    covered, positions = texels.covered, texels.at(points)
    row, column = np.nonzero(covered)
    inside = (row >= 32) & (column < 32)
    assert inside.sum() == 32 * 32
    expected = np.stack([(column + 0.5) / 16, (63.5 - row) / 8, 0 * row], axis=1)
    assert np.allclose(positions[inside], expected[inside], atol=1e-5)
    # Two more rings are baked, at the border's own points.
    assert row[~inside].min() == 30
    assert column[~inside].max() == 33
    assert np.allclose(positions, np.clip(expected, 0, [2, 4, 0]), atol=1e-5)


def test_fill_leaves_no_empty_texel():
    image = np.zeros((16, 16, 3), np.uint8)
    covered = np.zeros((16, 16), bool)
    image[2, 3], image[12, 12] = (9, 8, 7), (1, 2, 3)
    covered[2, 3] = covered[12, 12] = True
    filled = fill_nearest(image, covered)
    assert filled.any(axis=2).all()
    assert tuple(filled[0, 0]) == (9, 8, 7)
    assert tuple(filled[15, 15]) == (1, 2, 3)


def lookup(mesh: Mesh, uvs: np.ndarray) -> np.ndarray:
    """Bilinear texture colours [N, 3] in bytes."""
    size = len(mesh.texture)
    place = np.clip(np.stack([(1 - uvs[:, 1]) * size, uvs[:, 0] * size], axis=1) - 0.5, 0, size - 1.001)
    corner = place.astype(int)
    share = place - corner
    total = np.zeros((len(uvs), 3))
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - share[:, 0]) * np.abs(1 - right - share[:, 1])
            total += weight[:, None] * mesh.texture[corner[:, 0] + down, corner[:, 1] + right]
    return total


def test_texture_is_the_albedo_in_srgb_up_to_the_seams(painted: Mesh):
    """Everywhere on the surface, chart borders included, a bilinear lookup gives the side's own sRGB colour."""
    corners = painted.vertices[painted.faces]
    # Borders of triangles are the borders of charts: weigh points towards them.
    weights = np.random.default_rng(0).dirichlet([0.3, 0.3, 0.3], (len(corners), 20))
    points = (weights @ corners).reshape(-1, 3)
    uvs = (weights @ painted.uvs[painted.faces]).reshape(-1, 2)
    # Away from the box's edges, where colours meet and texels rightly mix.
    share = np.sort(np.abs(points) / np.array(BOX), axis=1)
    clear = share[:, 1] < 0.85
    linear = box_colour(torch.from_numpy(points[clear]).float()).numpy()
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert clear.mean() > 0.4
    assert np.abs(lookup(painted, uvs[clear]) - srgb).max() < 1.0


def test_mesh_is_whole_and_in_bounds(painted: Mesh):
    points, faces = weld(painted)
    assert is_closed(faces)
    assert components(faces)[0] == 1
    assert len(painted.faces) <= 2000
    assert painted.uvs.min() >= 0.0
    assert painted.uvs.max() <= 1.0
    assert painted.texture.shape == (256, 256, 3)
    kinds = [painted.vertices.dtype, painted.faces.dtype, painted.normals.dtype, painted.uvs.dtype]
    assert kinds == [np.float32, np.int32, np.float32, np.float32]
    extent = points.max(axis=0)
    assert np.allclose(extent, BOX, atol=0.01)
    assert np.allclose(points.min(axis=0), -extent, atol=0.02)
    assert voxelize(painted.vertices, painted.faces, 40).mean() == pytest.approx(np.prod(BOX), rel=0.03)


def test_seam_vertices_share_their_normals(painted: Mesh):
    points, faces = weld(painted)
    assert len(painted.vertices) > len(points)
    normals = np.zeros_like(points)
    normals[faces] = painted.normals[painted.faces]
    assert np.array_equal(normals[faces], painted.normals[painted.faces])


def test_colour_is_read_where_the_light_comes_from():
    """The surface of a soft ball lies in its outer haze; the colour a camera sees comes from deeper."""
    field = Analytic(
        ball(400.0, softness=0.02),
        lambda x: torch.where(
            x.norm(dim=1, keepdim=True) > 0.62, torch.tensor([[0.0, 0, 1]]), torch.tensor([[1.0, 0, 0]])
        ),
    )
    mesh = extract_mesh(field, None, MeshSettings(grid_resolution=48, faces=2000, texture_size=128), quiet)
    assert (mesh.texture == (255, 0, 0)).all(axis=2).mean() > 0.99


def test_same_field_same_mesh(painted: Mesh):
    settings = MeshSettings(grid_resolution=48, faces=2000, texture_size=256)
    again = extract_mesh(Analytic(box, box_colour), None, settings, quiet)
    for name in ("vertices", "faces", "normals", "uvs", "texture"):
        assert np.array_equal(getattr(again, name), getattr(painted, name))


def test_progress_rises_to_one():
    seen: list[tuple[str, float]] = []
    settings = MeshSettings(grid_resolution=32, faces=500, texture_size=64)
    extract_mesh(Analytic(box, box_colour), None, settings, lambda text, share: seen.append((text, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len({text for text, _ in seen}) >= 4

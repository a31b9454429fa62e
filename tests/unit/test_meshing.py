"""From analytic fields to textured meshes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.errors import DivergedError
from backend.meshing import Mesh, extract_mesh, voxelize
from backend.meshing.bake import fill_nearest, rasterize_uv
from backend.meshing.clean import clean_surface, decimate, taubin, tidy
from backend.meshing.isosurface import Surface, extract_surface, sample_grid
from backend.meshing.mesh import components, face_normals, signed_volume, vertex_normals, weld
from backend.meshing.threshold import choose_level
from backend.meshing.unwrap import unwrap
from backend.request import MeshSettings

SIDES = torch.tensor(
    [[0.9, 0.05, 0.05], [0.05, 0.6, 0.05], [0.05, 0.05, 0.7], [0.8, 0.7, 0.05], [0.5, 0.05, 0.6], [0.02, 0.5, 0.5]]
)
"""Linear colours of a box's sides −x, +x, −y, +y, −z, +z."""
BOX = (0.5, 0.4, 0.3)


@dataclass
class Sample:
    density: Tensor
    albedo: Tensor


class Analytic:
    """A field given by functions of points [N, 3]."""

    def __init__(self, density: Callable[[Tensor], Tensor], albedo: Callable[[Tensor], Tensor] | None = None) -> None:
        self._density = density
        self._albedo = albedo or (lambda x: torch.full_like(x, 0.5))
        self.asked = 0

    def density(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self._density(x)

    def query(self, x: Tensor) -> Sample:
        return Sample(self._density(x), self._albedo(x))


@dataclass
class Occupied:
    binary: Tensor


def ball(density: float, radius: float = 0.5, softness: float = 0.0, centre: tuple[float, ...] = (0.0, 0.0, 0.0)):
    def at(x: Tensor) -> Tensor:
        inside = radius - (x - torch.tensor(centre)).norm(dim=1)
        return density * (torch.sigmoid(inside / softness) if softness else (inside > 0).float())

    return at


def box(x: Tensor) -> Tensor:
    return 200.0 * (x.abs() < torch.tensor(BOX)).all(dim=1).float()


def box_colour(x: Tensor) -> Tensor:
    share = x / torch.tensor(BOX)
    axis = share.abs().argmax(dim=1)
    sign = (share.gather(1, axis[:, None])[:, 0] > 0).long()
    return SIDES[2 * axis + sign]


def quiet(*_: object) -> None:
    pass


def surface_of(density: Callable[[Tensor], Tensor], resolution: int = 48) -> Surface:
    return extract_surface(Analytic(density), None, resolution, quiet)


def radii(surface: Surface) -> np.ndarray:
    return np.linalg.norm(surface.vertices, axis=1)


def is_closed(faces: np.ndarray) -> bool:
    """Every edge is used once in each direction."""
    edges = Counter(map(tuple, np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()))
    return all(count == 1 and edges[b, a] == 1 for (a, b), count in edges.items())


@pytest.fixture(scope="module")
def painted() -> Mesh:
    settings = MeshSettings(grid_resolution=48, faces=2000, texture_size=256)
    return extract_mesh(Analytic(box, box_colour), None, settings, quiet)


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
    covered, _ = rasterize_uv(surface.vertices[source], faces, uvs, 1024, border=0.0)
    # Charts that overlapped would cover less than their summed area.
    assert covered.mean() == pytest.approx(area, rel=0.002)
    assert area > 0.3


def test_uv_raster_finds_the_shown_points():
    """A square that covers the lower left quarter of the texture."""
    points = np.array([[0, 0, 0], [2, 0, 0], [2, 4, 0], [0, 4, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    covered, positions = rasterize_uv(points, faces, points[:, :2] * np.array([0.25, 0.125], np.float32), 64)
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

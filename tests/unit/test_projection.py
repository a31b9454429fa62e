"""Pictures on the texture: what they show, and nothing else, is theirs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backend.cameras import CameraBatch, orbit_cameras, rays
from backend.meshing import Mesh, Pictures, PictureView, extract_mesh, render_mesh
from backend.meshing.projection import project
from backend.meshing.rasterize import depth_map
from backend.rendering import srgb_to_linear
from backend.request import MeshSettings
from tests.unit.analytic_fields import BOX, Analytic, ball, box, box_colour, quiet, surface_of

FRONT = orbit_cameras(0.0, 0.0, 3.0, 40.0)
SETTINGS = MeshSettings(grid_resolution=48, faces=2000, texture_size=512)
MAGENTA = (255, 0, 255)


def stripes(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey levels in [0, 1], finer than any field of these tests."""
    return 0.5 + 0.4 * np.sign(np.sin(x * 60.0))


def seen_from(camera: CameraBatch, size: int = 256) -> PictureView:
    """The box's front side with stripes, before magenta that is not the object's."""
    origin, direction = rays(camera, size, size)
    length = (-BOX[1] - origin[0, 1]) / direction[0, ..., 1]
    point = origin[0] + length[..., None] * direction[0]
    there = (np.abs(point[..., 0]) < BOX[0]) & (np.abs(point[..., 2]) < BOX[2])
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., :3] = np.where(there[..., None], np.rint(stripes(point[..., 0]) * 255)[..., None], MAGENTA)
    rgba[..., 3] = there * 255
    return PictureView(camera, rgba)


def difference(a: Mesh, b: Mesh, azimuth: float) -> float:
    """The largest of two meshes' colours, but for the outermost two columns, where rounded edges look to two sides."""
    shown = [render_mesh(mesh, orbit_cameras(azimuth, 0, 3, 40), 64, 64, lit=False)[0] for mesh in (a, b)]
    columns = np.flatnonzero(shown[0][..., 3].any(axis=0))[2:-2]
    return float(np.abs(shown[0] - shown[1])[:, columns].max())


@pytest.fixture(scope="module")
def plain() -> Mesh:
    return extract_mesh(Analytic(box, box_colour), None, SETTINGS, quiet)


@pytest.fixture(scope="module")
def projected() -> Mesh:
    pictures = Pictures((seen_from(FRONT),), outline=0.0)
    return extract_mesh(Analytic(box, box_colour), None, SETTINGS, quiet, pictures)


def test_the_front_is_the_picture_and_the_rest_is_the_field(plain: Mesh, projected: Mesh):
    view = seen_from(FRONT)
    inside = np.abs(np.indices((256, 256)) - 127.5).max(axis=0) < 30
    there = render_mesh(projected, FRONT, 256, 256, lit=False)[0, inside, :3]
    error = there - view.rgba[inside, :3] / 255.0
    assert -10 * np.log10((error**2).mean()) > 18  # half a pixel of hard stripes
    assert np.corrcoef(there[:, 0], view.rgba[inside, 0])[0, 1] > 0.95
    for azimuth in (90.0, 180.0, -90.0):
        assert difference(plain, projected, azimuth) < 0.02


def test_nothing_of_the_background_comes_in(projected: Mesh):
    """Blue without much green would be magenta's; the box has a side that is a little like it, but not as bright."""
    red, green, blue = (projected.texture[..., channel].astype(int) for channel in range(3))
    assert not ((red > 215) & (blue > 215) & (green < 128)).any()


def test_without_strength_the_texture_is_the_fields(plain: Mesh):
    pictures = Pictures((seen_from(FRONT),), colours=0.0, outline=0.0)
    assert np.array_equal(
        extract_mesh(Analytic(box, box_colour), None, SETTINGS, quiet, pictures).texture, plain.texture
    )


def grey(level: int, weight: float, camera: CameraBatch = FRONT) -> PictureView:
    """All object, in one grey."""
    return PictureView(camera, np.full((256, 256, 4), (level, level, level, 255), np.uint8), weight)


def test_weights_and_facing_decide_between_pictures():
    surface = surface_of(ball(100.0))
    point, normal = np.array([[0, -0.5, 0]], np.float32), np.array([[0, -1, 0]], np.float32)
    linear = srgb_to_linear(torch.tensor([50.0, 200.0]) / 255).numpy()
    views = [grey(50, 1.0), grey(200, 3.0)]
    colour, share = project(views, surface.vertices, surface.faces, point, normal)
    assert colour[0] == pytest.approx(np.full(3, (linear[0] + 3 * linear[1]) / 4), abs=1e-4)
    assert share[0] == pytest.approx(1.0, abs=1e-6)
    aside = [grey(50, 1.0), grey(200, 1.0, orbit_cameras(50.0, 0.0, 3.0, 40.0))]
    turned, _ = project(aside, surface.vertices, surface.faces, point, normal)
    assert linear[0] < turned[0, 0] < (linear[0] + linear[1]) / 2


def test_a_mirror_image_tells_what_no_picture_does():
    surface = surface_of(ball(100.0))
    ways = np.array([[0, -1, 0], [0, 1, 0]], np.float32)  # to the picture's camera, and to the mirror image's
    linear = srgb_to_linear(torch.tensor([50.0, 200.0]) / 255).numpy()
    behind = orbit_cameras(180.0, 0.0, 3.0, 40.0)
    for camera, shown in ((FRONT, linear[:1]), (behind, linear)):
        twin = dataclasses.replace(grey(200, 3.0, camera), kind="mirror image")
        colour, share = project([twin, grey(50, 1.0)], surface.vertices, surface.faces, 0.5 * ways, ways)
        for i, wanted in enumerate(shown):
            assert colour[i] == pytest.approx(np.full(3, wanted), abs=1e-4)
        assert (share > 0.99).tolist() == [True, len(shown) == 2]


def test_belief_fades_toward_grazing_surfaces():
    surface = surface_of(ball(100.0))
    angle = np.radians(np.linspace(0, 180, 91))
    normals = np.stack([np.sin(angle), -np.cos(angle), 0 * angle], axis=1).astype(np.float32)
    _, share = project([grey(100, 1.0)], surface.vertices, surface.faces, 0.5 * normals, normals)
    assert share[:20] == pytest.approx(1.0, abs=1e-6)
    assert (share[40:] == 0.0).all()
    assert ((share > 0.01) & (share < 0.99)).sum() >= 5
    assert np.abs(np.diff(share)).max() < 0.4


def test_a_side_that_is_hardly_seen_keeps_its_colours(plain: Mesh):
    """From 15° the box's side is seen at a cosine of 0.09; its shading normals at the edge look much more this way."""
    pictures = Pictures((grey(100, 1.0, orbit_cameras(15.0, 0.0, 3.0, 40.0)),), outline=0.0)
    mesh = extract_mesh(Analytic(box, box_colour), None, SETTINGS, quiet, pictures)
    assert difference(plain, mesh, 90.0) < 0.02
    assert difference(plain, mesh, 0.0) > 0.2


def test_what_stands_before_hides_what_is_behind():
    """A small ball before a large one: the picture's colour is not given to both."""

    def two(x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(ball(100.0, 0.3, centre=(0, 0.5, 0))(x), ball(100.0, 0.12, centre=(0, -0.5, 0))(x))

    surface = surface_of(two, 64)
    points = np.array([[0, 0.2, 0], [0, -0.62, 0], [0.2, 0.5 - np.sqrt(0.05), 0]], np.float32)
    normals = np.array([[0, -1, 0], [0, -1, 0], [2 / 3, -np.sqrt(5) / 3, 0]], np.float32)
    _, share = project([grey(100, 1.0)], surface.vertices, surface.faces, points, normals)
    assert share[0] == 0.0
    assert (share[1:] > 0.9).all()


def test_depth_is_along_the_cameras_axis():
    surface = surface_of(ball(100.0), 64)
    depth = depth_map(surface.vertices, surface.faces, FRONT, 65)
    assert depth[32, 32] == pytest.approx(2.5, abs=0.01)
    assert np.isinf(depth[0]).all()
    wide = dataclasses.replace(FRONT, focal=FRONT.focal / 2)
    assert depth_map(surface.vertices, surface.faces, wide, 65)[32, 32] == pytest.approx(2.5, abs=0.01)

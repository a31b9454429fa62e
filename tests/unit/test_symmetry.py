"""A mirror-symmetric field: both sides are one, normals are the true ones, and when a request wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from backend.cameras import CameraBatch, mirror_images, orbit_cameras, world_to_ndc
from backend.errors import ModelError
from backend.field import Blob, Field, FieldConfig, GridLayout, HashGridConfig, build_field, select_engine
from backend.job import run_job
from backend.optimize.state import RunState
from backend.picture import Reference
from backend.reference import FixedCamera, ReferenceImage
from backend.reference_files import ReferenceView, with_mirror_images
from backend.request import GuidanceSettings, OptimizeSettings, Request
from tests.unit.picture_jobs import SMALL, disc, never, nothing
from tests.unit.reference_world import write_picture

pytestmark = pytest.mark.usefixtures("threads_kept")

MIRROR = torch.tensor((-1.0, 1.0, 1.0))


def lively(field: Field) -> Field:
    """The field with a grid that says something."""
    with torch.no_grad():
        field.grid.uniform_(-1.0, 1.0, generator=torch.Generator().manual_seed(1))
    return field


def points(count: int) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_both_sides_are_one(engine) -> None:
    settings = OptimizeSettings(grid_levels=3, grid_log2_size=10, engine=engine)
    field, x = lively(build_field(settings, "cpu", 0, FieldConfig(mirrored=True))), points(500)
    here, there = field.query(x), field.query(x * MIRROR)
    assert torch.equal(here.density, there.density) and torch.equal(here.albedo, there.albedo)
    assert torch.equal(field.density(x), field.density(x * MIRROR))
    torch.testing.assert_close(field.normal(x), field.normal(x * MIRROR) * MIRROR)
    free = lively(build_field(settings, "cpu", 0))
    assert not torch.allclose(free.density(x), free.density(x * MIRROR))
    right = x[x[:, 0] > 0]
    assert torch.equal(free.density(right), field.density(right))


def test_normals_are_against_the_gradient_on_both_sides() -> None:
    layout = GridLayout(HashGridConfig(2, 2, 5, 3, 1.7, "smoothstep"))
    config = FieldConfig(blob=Blob("gaussian", 1.0, 0.4), mirrored=True)
    generator = torch.Generator().manual_seed(2)
    field = lively(Field(layout, select_engine(layout, "cpu", "torch"), config, generator).double())
    x, width = points(60).double() * 0.9, 1e-6
    with torch.no_grad():
        shifts = width * torch.eye(3, dtype=torch.float64)
        slopes = torch.stack([(field.density(x + s) - field.density(x - s)) / (2 * width) for s in shifts], 1)
    expected = -torch.nn.functional.normalize(slopes, dim=1)
    agree = (field.normal(x) * expected).sum(1)
    assert (agree > 0.999).sum() >= 57  # a kink of a ReLU may lie between two shifts


def test_both_sides_teach_the_same_parameters() -> None:
    settings = OptimizeSettings(grid_levels=3, grid_log2_size=10)
    field, x = lively(build_field(settings, "cpu", 0, FieldConfig(mirrored=True))), points(200)
    gradients = [torch.autograd.grad(field.query(side).density.sum(), field.grid)[0] for side in (x, x * MIRROR)]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().sum() > 0


def test_by_words_alone_a_request_is_mirrored_where_the_built_in_model_is_asked() -> None:
    asked, mirror, none = (
        Request(prompt="a red duck"),
        OptimizeSettings(symmetry="mirror"),
        OptimizeSettings(symmetry="none"),
    )
    assert asked.mirrored and asked.replace(guidance=GuidanceSettings(camera_conditioning=False)).mirrored
    assert not asked.replace(optimize=none).mirrored
    assert not asked.replace(model="somebody/else").mirrored
    assert asked.replace(model="somebody/else", optimize=mirror).mirrored


def test_a_camera_that_is_told_something_of_its_own_may_see_what_the_other_side_lacks() -> None:
    pose = tuple(tuple(row) for row in orbit_cameras(90.0, 20.0, 3.0, 40.0).camera_to_world[0].tolist())
    plain, own = FixedCamera(pose, (2.7, 2.7)), FixedCamera(pose, (2.7, 2.7), prompt="a duck with a medal")
    assert Request(prompt="a duck", cameras=(plain,)).mirrored
    assert not Request(prompt="a duck", cameras=(plain, own)).mirrored


def test_by_pictures_a_request_is_mirrored_where_it_is_known_how_they_are_turned() -> None:
    turned, unknown = ReferenceImage("duck.png", azimuth=30.0), ReferenceImage("duck.png")
    request = Request(prompt="", references=(turned,))
    assert request.mirrored
    assert not request.replace(references=(turned, unknown)).mirrored
    assert request.replace(references=(unknown,), optimize=OptimizeSettings(symmetry="mirror")).mirrored
    assert not request.replace(view_model="somebody/else").mirrored
    assert not request.replace(view_model="none").mirrored
    assert request.replace(prompt="a duck").mirrored
    assert not request.replace(prompt="a duck", model="somebody/else").mirrored


@pytest.mark.parametrize(("azimuth", "turned"), [(0.0, False), (0.01, False), (30.0, True), (180.0, True)])
def test_a_camera_of_the_scene_says_how_its_picture_is_turned(azimuth: float, turned: bool) -> None:
    cameras = orbit_cameras(azimuth, 20.0, 3.0, 40.0)
    pose = tuple(tuple(row) for row in cameras.camera_to_world[0].tolist())
    picture = ReferenceImage("duck.png", camera=FixedCamera(pose, (2.7, 2.7)))
    assert Request(prompt="", references=(picture,)).mirrored is turned


def test_a_run_has_the_field_that_its_request_wants() -> None:
    settings = OptimizeSettings(grid_levels=2, grid_log2_size=8, symmetry="none")
    request = Request(prompt="a red duck", optimize=settings)
    for symmetry, mirrored in (("none", False), ("mirror", True)):
        changed = request.with_setting("optimize.symmetry", symmetry)
        assert RunState.fresh(changed, torch.device("cpu")).field.config.mirrored is mirrored


def test_mirrored_cameras_see_mirrored_points() -> None:
    cameras, x = orbit_cameras([35.0], 20.0, 3.0, 40.0), points(40).numpy() * 0.5
    there = CameraBatch(cameras.camera_to_world, cameras.focal, np.array([[0.2, -0.1]], np.float32))
    ndc = world_to_ndc(there, x)[0]
    found = world_to_ndc(mirror_images(there), x * MIRROR.numpy())[0]
    np.testing.assert_allclose(found, ndc * (-1.0, 1.0), atol=1e-5)
    turned = orbit_cameras([-35.0], 20.0, 3.0, 40.0)
    np.testing.assert_allclose(mirror_images(cameras).camera_to_world, turned.camera_to_world, atol=1e-6)


def seen_from(azimuth: float) -> ReferenceView:
    """A picture with something on its left, and normals that point right."""
    rgba, normals = np.zeros((8, 8, 4), np.float32), np.zeros((8, 8, 3), np.float32)
    rgba[2:5, :3], normals[..., 0] = 1.0, 1.0
    picture = Reference(rgba, "plain", np.arange(64, dtype=np.float32).reshape(8, 8), normals)
    return ReferenceView(orbit_cameras([azimuth], 10.0, 3.0, 40.0), 2.0, (picture,), picture)


@pytest.mark.parametrize(("azimuth", "count"), [(40.0, 2), (-120.0, 2), (0.0, 1), (180.0, 1), (3.0, 1)])
def test_a_picture_from_the_side_is_worth_two(azimuth, count) -> None:
    views = with_mirror_images((seen_from(azimuth),))
    assert len(views) == count
    for view in views[1:]:
        assert view.camera.azimuth[0] == pytest.approx(-azimuth, abs=1e-3) and view.weight == 2.0
        for twin, own in ((view.shown, views[0].shown), (view.sizes[0], views[0].sizes[0])):
            assert np.array_equal(twin.rgba, own.rgba[:, ::-1])
            assert twin.depth is not None and own.depth is not None and np.array_equal(twin.depth, own.depth[:, ::-1])
            assert twin.normals is not None
            assert (twin.normals[..., 0] == -1.0).all() and not twin.normals[..., 1:].any()


@pytest.mark.parametrize(("symmetry", "azimuths"), [("mirror", [30, -30]), ("none", [30])])
def test_the_mesh_takes_from_both_sides(symmetry, azimuths, tmp_path, monkeypatch) -> None:
    seen: list[int] = []

    def refuse(*arguments: Any) -> None:
        seen.extend(round(float(view.camera.azimuth[0])) for view in arguments[-1].views)
        raise ModelError("Enough seen.", "")

    monkeypatch.setattr("backend.meshing.extract_mesh", refuse)
    file = write_picture(tmp_path / "disc.png", disc())
    request = SMALL.replace(references=(ReferenceImage(str(file), 30.0),))
    with pytest.raises(ModelError, match="Enough seen"):
        run_job(request.with_setting("optimize.symmetry", symmetry), tmp_path / "job", nothing, never)
    assert seen == azimuths

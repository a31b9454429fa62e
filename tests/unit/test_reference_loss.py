"""Pictures as losses: what the rays cover, what the losses are blind to, and that they make the object they show."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backend.cameras import orbit_cameras, rays, rays_through
from backend.errors import Cancelled, RequestError
from backend.events import Event, Preview
from backend.guidance import GuidanceResult
from backend.meshing import extract_mesh, voxelize
from backend.optimize import optimize
from backend.optimize.reference_loss import ReferenceViews, depth_loss, draw_rays, normal_loss, place_loss
from backend.reference import ReferenceImage
from backend.reference_files import ReferenceView, bind, prepare
from backend.rendering import OccupancyGrid, Renderer, Shading, srgb_to_linear
from backend.request import MeshSettings, OptimizeSettings, ReferenceSettings, Request
from backend.toybox.world import Look, make_object
from tests.unit.reference_world import ellipsoid, ellipsoid_views, write_pictures
from tests.unit.silhouette import AXES, RED, SilhouetteGuidance, small_request

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(16, 200), st.floats(0, 3), st.integers(0, 2**32))
def test_rays_cover_the_picture_evenly(count: int, side: int, size: int, jitter: float, seed: int) -> None:
    pixels, points = draw_rays(count, side, size, jitter, np.random.default_rng(seed))
    assert pixels.shape == (count, side * side)
    assert points.shape == (count, side * side, 2)
    row, column = np.divmod(pixels, size)
    assert row.max() < size
    cells = (row * side // size) * side + column * side // size
    if size % side == 0:  # pixels do not straddle cells
        assert all(np.unique(each).size == side * side for each in cells)
    # The point lies in its pixel, give or take the jitter; the top row is at y = 1.
    x, y = (points[..., 0] + 1) / 2 * size - 0.5, (1 - points[..., 1]) / 2 * size - 0.5
    assert np.abs(x - column).max() <= jitter + 1e-9
    assert np.abs(y - row).max() <= jitter + 1e-9


def test_rays_through_pixels_are_the_pictures_rays() -> None:
    cameras = orbit_cameras([20.0, -100.0], [10.0, 50.0], 3.0, [40.0, 55.0])
    cameras = dataclasses.replace(cameras, center=np.array([[0.1, -0.2], [0.0, 0.3]], np.float32))
    origins, directions = rays(cameras, 8, 8)
    at = (np.arange(8) + 0.5) / 4 - 1
    points = np.stack(np.meshgrid(at, -at), axis=-1).reshape(1, -1, 2).repeat(2, axis=0)
    own_origins, own = rays_through(cameras, points)
    assert np.array_equal(own_origins, origins)
    assert np.allclose(own, directions.reshape(2, -1, 3), atol=1e-6)


def some_depth(seed: int = 0) -> Tensor:
    return torch.rand(2, 200, generator=torch.Generator().manual_seed(seed)) + 2.0


@given(st.floats(0.01, 100), st.floats(-50, 50))
def test_depth_is_compared_up_to_scale_and_shift(scale: float, shift: float) -> None:
    target = some_depth()
    one = torch.ones_like(target)
    assert depth_loss((target - 2) * scale + shift, target, one).tolist() == pytest.approx([0, 0], abs=2e-2)
    assert depth_loss(-target, target, one).tolist() == pytest.approx([2, 2], abs=1e-3)
    assert depth_loss(some_depth(1), target, one).tolist() == pytest.approx([1, 1], abs=0.25)


def test_depth_is_compared_only_where_it_is_known_and_seen() -> None:
    target, depth, opacity = some_depth(), some_depth(), torch.ones(2, 200)
    depth[0, :50] = 100.0
    assert depth_loss(depth, target, opacity)[0] > 0.5
    unknown = target.clone()
    unknown[0, :50] = torch.nan
    assert depth_loss(depth, unknown, opacity)[0] == pytest.approx(0, abs=1e-3)
    opacity[0, :50] = 0.0
    assert depth_loss(depth, target, opacity)[0] == pytest.approx(0, abs=1e-3)
    nothing = torch.full_like(target, torch.nan)
    assert depth_loss(depth, nothing, opacity).tolist() == [0, 0]


def test_metric_depth_is_compared_as_it_is() -> None:
    target, opacity = some_depth(), torch.ones(2, 200)
    assert place_loss(target + 0.25, target, opacity).tolist() == pytest.approx([0.25, 0.25])
    assert place_loss(1.5 * target, target, opacity)[0] == pytest.approx(0.5 * float(target[0].mean()))
    target[0, :50] = torch.nan
    opacity[0, 50:100] = 0.0
    depth = torch.where(torch.arange(200) < 100, 100.0, target).requires_grad_(True)
    loss = place_loss(depth, target, opacity)
    assert float(loss[0]) == 0 and float(loss[1]) > 40
    loss[0].backward()
    assert depth.grad is not None and not depth.grad.any()
    assert place_loss(depth, torch.full_like(target, torch.nan), opacity).tolist() == [0, 0]


def test_depth_of_a_flat_or_empty_picture_gives_a_finite_gradient() -> None:
    for depth in (torch.zeros(1, 50), torch.full((1, 50), 3.0)):
        depth.requires_grad_(True)
        depth_loss(depth, some_depth()[:1, :50], torch.zeros(1, 50)).sum().backward()
        assert depth.grad is not None
        assert torch.isfinite(depth.grad).all()


def test_normals_are_compared_by_their_angle() -> None:
    target = torch.nn.functional.normalize(torch.randn(1, 300, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert float(normal_loss(0.7 * target, target)) == pytest.approx(0, abs=1e-4)
    assert float(normal_loss(-target, target)) == pytest.approx(2, abs=1e-4)
    known = target.clone()
    known[:, 100:] = 0.0
    mixed = target.clone()
    mixed[:, 100:] *= -1
    assert float(normal_loss(mixed, known)) == pytest.approx(0, abs=1e-4)
    empty = torch.zeros(1, 300, 3, requires_grad=True)
    normal_loss(empty, target).sum().backward()
    assert empty.grad is not None
    assert torch.isfinite(empty.grad).all()


class Ball:
    """A field that is the ellipsoid itself, red and dense."""

    def __init__(self) -> None:
        self.strength = torch.tensor(400.0, requires_grad=True)

    def _inside(self, x: Tensor) -> Tensor:
        return ((x / torch.from_numpy(AXES)).square().sum(-1) < 1).float()

    def density(self, x: Tensor) -> Tensor:
        return self._inside(x) * self.strength

    def query(self, x: Tensor) -> Any:
        albedo = srgb_to_linear(torch.tensor(RED)).expand(len(x), 3)
        return type("Sample", (), {"density": self.density(x), "albedo": albedo})()

    def normal(self, x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(x / torch.from_numpy(AXES**2), dim=-1)


def loss_at_the_end(views: ReferenceViews, renderer: Renderer) -> float:
    """What a run's last step makes of them."""
    rng = np.random.default_rng(3)
    aim = views.aim(1.0, rng)
    return views.judge(aim, *renderer.render_together([aim.shot], rng)).loss.item()


def test_the_true_object_has_hardly_any_loss_and_another_one_has() -> None:
    """Colours, mask, depth along the camera's axis and normals in world axes, all from cameras off the axes."""
    renderer = Renderer(Ball(), OccupancyGrid(24), 160)
    one_by_one = {"colour_weight": 0.0, "mask_weight": 0.0, "depth_weight": 0.0, "normal_weight": 0.0}
    views = ellipsoid_views([35.0, -110.0], (64,))
    wrong = [dataclasses.replace(view, camera=orbit_cameras(80.0, -20.0, 3.0, 40.0)) for view in views[:1]]
    for name, most in {"colour": 0.01, "mask": 0.02, "depth": 0.02, "normal": 0.02}.items():
        settings = ReferenceSettings(rays=48, ramp=0.0, **{**one_by_one, f"{name}_weight": 1.0})  # type: ignore[arg-type]
        true, other = (loss_at_the_end(ReferenceViews(each, settings, CPU), renderer) for each in (views, wrong))
        assert true < most, name
        assert other > 3 * true, name


def test_nothing_is_asked_where_opacity_is_unknown() -> None:
    """A picture of half of an ellipsoid, the other half of which no one knows."""
    renderer = Renderer(Ball(), OccupancyGrid(24), 160)
    settings = ReferenceSettings(1.0, 1.0, depth_weight=0.0, normal_weight=0.0, rays=48)
    (whole,) = ellipsoid_views([35.0], (64,))

    def loss(other_half: float) -> float:
        rgba = whole.sizes[0].rgba.copy()
        rgba[:, 32:] = (0.0, 0.0, 0.0, other_half)
        view = dataclasses.replace(whole, sizes=(dataclasses.replace(whole.sizes[0], rgba=rgba),))
        return loss_at_the_end(ReferenceViews([view], settings, CPU), renderer)

    assert loss(np.nan) < 0.02 < loss(0.0)


def test_what_was_seen_is_measured() -> None:
    renderer = Renderer(Ball(), OccupancyGrid(24), 256)
    pictures = ReferenceViews(ellipsoid_views([35.0, -110.0], (32, 64)), ReferenceSettings(), CPU)
    good = pictures.measure(renderer)
    assert len(good) == 2
    assert min(each["psnr"] for each in good) > 20
    assert min(each["mask_iou"] for each in good) > 0.97
    output = renderer.render(pictures.cameras[:1], 64, 64, shading=Shading(), background=torch.ones(3), rng=None)
    alpha = torch.from_numpy(ellipsoid(pictures.cameras[:1], 64).rgba[..., 3])
    overlap = ((output.opacity[0] > 0.5) & (alpha > 0.5)).sum() / ((output.opacity[0] > 0.5) | (alpha > 0.5)).sum()
    assert good[0]["mask_iou"] == pytest.approx(float(overlap), abs=1e-4)


def run(
    request: Request, folder: Path, guidance: Any, views: tuple[ReferenceView, ...], stop_at: int = -1
) -> tuple[Any, ...]:
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return calls - 1 == stop_at

    folder.mkdir(exist_ok=True)
    return optimize(request, folder, guidance, CPU, lambda _: None, should_stop, views)


PICTURE = ReferenceImage("a.png")
REQUEST = small_request(24, checkpoint_every=8).replace(prompt="", references=(PICTURE,), view_model="none")
VIEWS = ellipsoid_views([10.0, 100.0, -120.0])


def with_reference(request: Request = REQUEST, **changes: Any) -> Request:
    return request.replace(reference=ReferenceSettings(**changes))


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("how", ["pictures", "both", "alone"])
def test_it_resumes_bit_for_bit(tmp_path: Path, how: str, interval: int) -> None:
    torch.set_num_threads(1)
    request = with_reference(rays=16, interval=interval, alone=how == "alone")

    def guidance() -> Any:
        return None if how == "pictures" else SilhouetteGuidance()

    field, occupancy, metrics = run(request, tmp_path / "whole", guidance(), VIEWS)
    with pytest.raises(Cancelled):
        run(request, tmp_path / "parts", guidance(), VIEWS, stop_at=13)
    again, grid, numbers = run(request, tmp_path / "parts", guidance(), VIEWS)
    for one, other in ((field, again), (occupancy, grid)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
    timed = {"seconds", "sketching_seconds", "steps_per_second"}
    assert {k: v for k, v in metrics.items() if k not in timed} == {k: v for k, v in numbers.items() if k not in timed}


def test_models_are_asked_as_the_schedule_says(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    schedules: list[tuple[dict[str, Any], int]] = [
        ({}, 24),
        ({"interval": 4}, 24),
        ({"interval": 4, "alone": True}, 18),
    ]
    for index, (settings, calls) in enumerate(schedules):
        guidance = SilhouetteGuidance()
        run(with_reference(rays=8, **settings), tmp_path / str(index), guidance, VIEWS)
        assert guidance.calls == calls


def test_there_must_be_something_to_go_by(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing to go by"):
        run(REQUEST, tmp_path, None, ())


class WhiteWatch:
    """Notes the colour at the corners of what it is shown."""

    def __init__(self) -> None:
        self.corners: list[float] = []

    def gradient(self, images: Tensor, cameras: Any, progress: float, generator: torch.Generator) -> GuidanceResult:
        self.corners.append(float(images[:, :, 0, 0].min()))
        return GuidanceResult(torch.zeros_like(images), 0.0)


def test_a_model_of_pictures_sees_views_before_white(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    request = with_reference(rays=8)
    shown = request.replace(view_model="some")
    white, coloured = WhiteWatch(), WhiteWatch()
    run(shown, tmp_path / "white", white, VIEWS)
    run(request, tmp_path / "coloured", coloured, VIEWS)
    assert min(white.corners) > 0.95  # a fog that thins out
    assert min(coloured.corners) < 0.5


def test_eight_pictures_and_no_model_make_the_object(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    solids = make_object(Look("duck", "red"))
    poses = [(-157.5 + 45.0 * index, (10.0, 40.0, -10.0, 60.0)[index % 4]) for index in range(8)]
    request = Request(
        "",
        references=write_pictures(tmp_path, solids, poses, 64),
        view_model="none",
        optimize=OptimizeSettings(iterations=150, learning_rate=0.04, preview_every=1000),
        reference=ReferenceSettings(resolution=64, resolution_start=32),
        mesh=MeshSettings(grid_resolution=64, faces=8000, texture_size=64),
    )
    events: list[Event] = []
    views = prepare(bind(request.validated())[0], events.append)
    field, occupancy, metrics = run(request, tmp_path, None, views)
    psnr = [each["psnr"] for each in metrics["references"]]
    assert min(psnr) >= 25, psnr
    assert min(each["mask_iou"] for each in metrics["references"]) > 0.95
    mesh = extract_mesh(field, occupancy, request.mesh, lambda *_: None)
    made, true = voxelize(mesh.vertices, mesh.faces, 64), solids.volume(64)
    assert (made & true).sum() / (made | true).sum() > 0.8
    assert not [event for event in events if isinstance(event, Preview)]
